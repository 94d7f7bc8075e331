"""Rules that carry a tuned run of AdamW over to another size, each from a paper.

With κ = B′/B, the ratio of the batch sizes, and primes for the new run, they are

    learning rate   α′ = α,  α √κ  or  α κ;  over widths α′ = α  or  α width / width′
    decay           what stays the same: λ, αλ, or αλ times the number of steps in an
                    epoch, in the run, or the root of the latter; or λ′ = λ √(width′ / width)
    averages        β₂′ = β₂,  β₂^κ  or  1 − κ (1 − β₂)

where λ is `weight_decay`, which the learning rate multiplies, and αλ the decay per step.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from adamw_jax.hyperparameters import decay_rate, non_negative, positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class TunedRun:
    """The hyperparameters of a run with AdamW, and its size.

    All are numbers, and are kept as floats.

    Attributes:
      learning_rate: α > 0; under a schedule its largest value.
      weight_decay: λ ≥ 0, as `adamw` takes it.
      batch_size: B, examples in a step, in (0, examples].
      examples: examples in an epoch, > 0.
      epochs: passes over the examples, > 0; may be a fraction.
      width: > 0, what the rules over widths compare: the inputs of the hidden matrices.
        None where widths do not matter.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε ≥ 0.

    Raises:
      ValueError: a number is out of range, or the batch is larger than an epoch.
    """

    learning_rate: float
    weight_decay: float
    batch_size: float
    examples: float
    epochs: float
    width: float | None = None
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self):
        for name in ("learning_rate", "batch_size", "examples", "epochs"):
            object.__setattr__(self, name, float(positive(name, getattr(self, name))))
        for name in ("weight_decay", "eps"):
            object.__setattr__(self, name, float(non_negative(name, getattr(self, name))))
        for name in ("b1", "b2"):
            decay_rate(name, getattr(self, name))
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.width is not None:
            object.__setattr__(self, "width", float(positive("width", self.width)))
        if self.batch_size > self.examples:
            raise ValueError(
                f"batch_size must be at most the number of examples, {self.examples:g}; got "
                f"{self.batch_size:g}"
            )

    @property
    def decay_per_step(self) -> float:
        """αλ, the fraction of a weight that a step takes away at the learning rate α."""
        return self.learning_rate * self.weight_decay

    @property
    def steps_per_epoch(self) -> float:
        """Examples / batch size, not rounded."""
        return self.examples / self.batch_size

    @property
    def steps(self) -> float:
        """Steps in the run, not rounded."""
        return self.steps_per_epoch * self.epochs


class ScalingRule(NamedTuple):
    """A rule of a `ScalingReport`.

    Attributes:
      name: unique among all rules.
      gives: "rate over batch sizes", "rate over widths", "decay" or "averages".
      formula: what it says.
      source: the paper, and where in it.
      assumes: what its derivation or its users assume.
      found: where the source found it to hold; empty for what nobody proposes.
      apply: `(old, new) -> TunedRun`: sets its hyperparameters in `new`, which has its sizes and
        what the rules before it gave.
    """

    name: str
    gives: str
    formula: str
    source: str
    assumes: str
    found: str
    apply: Callable[[TunedRun, TunedRun], TunedRun]


def _rate(factor: Callable[[TunedRun, TunedRun], float]) -> Callable[..., TunedRun]:
    return lambda old, new: dataclasses.replace(
        new, learning_rate=new.learning_rate * factor(old, new)
    )


def _decay(factor: Callable[[TunedRun, TunedRun], float]) -> Callable[..., TunedRun]:
    """Multiplies the old decay per step, from which λ follows at the new learning rate."""
    return lambda old, new: dataclasses.replace(
        new, weight_decay=old.decay_per_step * factor(old, new) / new.learning_rate
    )


def _kappa(old: TunedRun, new: TunedRun) -> float:
    return new.batch_size / old.batch_size


def _width(old: TunedRun, new: TunedRun) -> float:
    return (new.width or 1) / (old.width or 1)


def _half_life(old: TunedRun, new: TunedRun) -> TunedRun:
    return dataclasses.replace(new, b2=old.b2 ** _kappa(old, new))


def _sde(old: TunedRun, new: TunedRun) -> TunedRun:
    kappa = _kappa(old, new)
    for name, b in (("b1", old.b1), ("b2", old.b2)):
        if kappa * (1 - b) > 1:
            raise ValueError(
                f"the rule 'SDE' has no {name} for {kappa:g} times the batch size: "
                f"1 − {kappa:g}·(1 − {b:g}) is negative"
            )
    return dataclasses.replace(
        new,
        b1=1 - kappa * (1 - old.b1),
        b2=1 - kappa * (1 - old.b2),
        eps=old.eps / kappa**0.5,
    )


def _same(old: TunedRun, new: TunedRun) -> TunedRun:
    del old
    return new


BATCH, WIDTH, DECAY, AVERAGES = KINDS = (
    "rate over batch sizes",
    "rate over widths",
    "decay",
    "averages",
)
NOTHING = "nobody: what happens if nothing is changed", "nothing", ""

RULES = (
    ScalingRule("same α", BATCH, "α′ = α", *NOTHING, _same),
    ScalingRule(
        "root of batch",
        BATCH,
        "α′ = α √(B′/B)",
        "Malladi et al., 2205.10287, for Adam; Krizhevsky, 1404.5997, for SGD",
        "the noise of the gradient outweighs the gradient, and β and ε follow 'SDE'",
        "vision and language models with Adam, at small enough α; not for batches of any size",
        _rate(lambda old, new: _kappa(old, new) ** 0.5),
    ),
    ScalingRule(
        "linear in batch",
        BATCH,
        "α′ = α B′/B",
        "Goyal et al., 1706.02677",
        "SGD; the gradient hardly changes over B′/B steps",
        "ResNet-50 on ImageNet with momentum and a warmup, batches of up to 8,192",
        _rate(_kappa),
    ),
    ScalingRule("same α over widths", WIDTH, "α′ = α", *NOTHING, _same),
    ScalingRule(
        "one over width",
        WIDTH,
        "α′ = α width/width′",
        "Yang et al., 2203.03466 (muP), for Adam",
        "a hidden matrix is updated in line with its inputs, as at the beginning of training",
        "hidden matrices, parametrized as in muP; biases and the first layer keep α",
        _rate(lambda old, new: 1 / _width(old, new)),
    ),
    ScalingRule(
        "same λ",
        DECAY,
        "λ′ = λ",
        "the default: PyTorch's and Optax's λ, times α; so in 1706.02677",
        "αλ is to follow α",
        "SGD with 'linear in batch'",
        lambda old, new: dataclasses.replace(new, weight_decay=old.weight_decay),
    ),
    ScalingRule(
        "same decay per step",
        DECAY,
        "α′λ′ = αλ",
        "Kosson et al., 2510.19093, with 'one over width' (independent decay)",
        "for most of training it is αλ, not muP, that keeps the updates of wide layers in line",
        "learning rates over widths, in language models",
        _decay(lambda old, new: 1),
    ),
    ScalingRule(
        "same τ",
        DECAY,
        "α′λ′ examples′/B′ = αλ examples/B",
        "Wang & Aitchison, 2405.13698",
        "the weights are an average of the updates over τ epochs",
        "image classifiers and a small language model, over sizes of model and data set",
        _decay(lambda old, new: old.steps_per_epoch / new.steps_per_epoch),
    ),
    ScalingRule(
        "same share of run",
        DECAY,
        "α′λ′ steps′ = αλ steps",
        "Bergsma et al., 2505.13738",
        "as many examples per parameter; with more the best share is smaller, by a power law",
        "language models trained for an epoch; there λ ∝ B at the same α",
        _decay(lambda old, new: old.steps / new.steps),
    ),
    ScalingRule(
        "same normalized decay",
        DECAY,
        "α′λ′ √steps′ = αλ √steps",
        "Loshchilov & Hutter, 1711.05101, App. B.1",
        "a longer run needs less decay per step",
        "image classifiers on several data sets, best at a λ_norm of 0.025 to 0.05",
        _decay(lambda old, new: (old.steps / new.steps) ** 0.5),
    ),
    ScalingRule(
        "root of width",
        DECAY,
        "λ′ = λ √(width′/width)",
        "Fan et al., 2510.15262, with 'one over width'",
        "the largest singular value of a matrix goes with √(α/λ)·width^0.75",
        "hidden matrices of language models, after normalizations; vectors do not decay",
        lambda old, new: dataclasses.replace(
            new, weight_decay=old.weight_decay * _width(old, new) ** 0.5
        ),
    ),
    ScalingRule("same averages", AVERAGES, "β₁′ = β₁, β₂′ = β₂", *NOTHING, _same),
    ScalingRule(
        "same half-life",
        AVERAGES,
        "β₂′ = β₂^(B′/B), β₁′ = β₁",
        "Marek et al., 2507.07101",
        "the second moment is to average over as many examples",
        "language models, batches down to 1",
        _half_life,
    ),
    ScalingRule(
        "SDE",
        AVERAGES,
        "1 − β′ = (1 − β) B′/B for both, ε′ = ε/√(B′/B)",
        "Malladi et al., 2205.10287",
        "as 'root of batch', with which it goes",
        "vision and language models, while (1 − β) B′/B is well below 1",
        _sde,
    ),
)

"""Every member of the family against its float64 reference, over long runs."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from cases import decays_matrices, error, problem
from test_optimizers import OPTIMIZERS

import adamw_jax as aj
from adamw_jax import optimizers, relatives, second_generation

GREEK = {
    "learning_rate": "α",
    "b1": "β1",
    "b2": "β2",
    "eps": "ε",
    "eps_root": "ε_root",
    "decay_per_step": "λ",
    "schedule": "η",
    "normalized_decay": "λ_norm",
    "first_cycle": "T_0",
    "cycle_mult": "T_mult",
    "b3": "β3",
    "alpha": "mix",
}
DECAYS = "weight_decay", "decay_per_step", "normalized_decay"
SCHEDULED = "learning_rate", "weight_decay", "decay_per_step", "schedule", "b3", "alpha"


@dataclasses.dataclass(frozen=True)
class Member:
    """A member of the family, its reference, and hyperparameters by our names.

    Attributes:
      make: makes ours from the hyperparameters.
      algorithm: the reference, which takes them in the papers' notation.
      numbers: the hyperparameters.
      tolerance: of the float32 run, as a share of the parameters' range.
    """

    make: Callable[..., Any]
    algorithm: Callable[..., Any]
    numbers: dict[str, Any]
    tolerance: float = 2e-5


def value(rate, step):
    return rate(step) if callable(rate) else rate


def in_greek(numbers):
    """The same in the papers' notation, where λ is the decay per step: α·weight_decay."""
    numbers = dict(numbers)
    weight_decay, α = numbers.pop("weight_decay", None), numbers["learning_rate"]
    greek = {GREEK.get(name, name): number for name, number in numbers.items()}
    if weight_decay is None:
        return greek
    return greek | {"λ": lambda step: value(α, step) * value(weight_decay, step)}


def per_step(make, **fixed):
    """The member with decay in the other convention, by the schedule alone."""

    def decayed(decay_per_step, schedule, mask=None, **numbers):
        return aj.decayed_per_step(make(**numbers, **fixed), decay_per_step, schedule, mask)

    return decayed


def prox_per_step(learning_rate, decay_per_step, schedule, mask=None, **adam):
    """AdamProx as in its paper, and as the docstring of `adam_prox` says."""
    rate = aj.per_step_from_weight_decay(learning_rate, schedule)
    decay = aj.per_step_from_weight_decay(decay_per_step, schedule)
    return aj.chain(aj.adam(rate, **adam), aj.proximal_weight_decay(decay, mask))


def cautious_per_step(learning_rate, decay_per_step, schedule, mask=None, **adam):
    return aj.chain(
        *(aj.adam(learning_rate, **adam), aj.scale_by_learning_rate(1.0)),
        *(aj.cautious_weight_decay(decay_per_step, mask), aj.scale_by_learning_rate(schedule)),
    )


SGD = {"learning_rate": 1e-3, "b1": 0.8}
ADAMAX = {"learning_rate": 1e-2, "b1": 0.8, "b2": 0.99, "eps": 1e-6}
ADAM = ADAMAX | {"eps_root": 1e-4}
LION = {"learning_rate": 1e-3, "b1": 0.8, "b2": 0.95}
DECAY, PER_STEP = {"weight_decay": 0.1}, {"decay_per_step": 1e-3, "schedule": 0.5}
NESTEROV, BEFORE = {"nesterov": True}, {"max_before_correction": True}
RESTARTS = {"normalized_decay": 0.05, "first_cycle": 100, "cycle_mult": 2}
# In float32 rounding decides Lion's sign where the mixture is nearly zero, which takes the
# parameter 2α another way; and each of 2,000 steps of α rounds θ the same way. The signs
# have a test of their own below.
FLIPS = 1e-2

MEMBERS = {
    "heavy_ball_gd": Member(aj.heavy_ball_gd, reference.heavy_ball, SGD),
    "heavy_ball_gd nesterov": Member(aj.heavy_ball_gd, reference.heavy_ball, SGD | NESTEROV),
    "heavy_ball_gd per step": Member(
        per_step(aj.heavy_ball_gd), reference.heavy_ball, SGD | PER_STEP
    ),
    "sgdw": Member(aj.sgdw, reference.sgdw, SGD | PER_STEP),
    "rmsprop": Member(
        aj.rmsprop, reference.rmsprop, {"learning_rate": 1e-2, "b2": 0.95, "eps": 1e-6}
    ),
    "rmsprop eps_root": Member(
        aj.rmsprop, reference.rmsprop, {"learning_rate": 1e-2, "eps": 0.1, "eps_root": 0.1}
    ),
    "rmsprop per step": Member(
        per_step(aj.rmsprop), reference.rmsprop, {"learning_rate": 1e-2} | PER_STEP
    ),
    "adam per step": Member(per_step(aj.adam), reference.adamw, ADAMAX | PER_STEP),
    "nadam": Member(aj.nadam, reference.nadam, ADAM),
    "nadam per step": Member(per_step(aj.nadam), reference.nadam, ADAM | PER_STEP),
    "nadamw": Member(aj.nadamw, reference.nadam, ADAM | DECAY),
    "amsgrad": Member(aj.amsgrad, reference.amsgrad, ADAM),
    "amsgrad before": Member(aj.amsgrad, reference.amsgrad, ADAM | BEFORE),
    "amsgrad per step": Member(per_step(aj.amsgrad), reference.amsgrad, ADAM | PER_STEP),
    "amsgradw": Member(aj.amsgradw, reference.amsgrad, ADAM | DECAY),
    "amsgradw before": Member(aj.amsgradw, reference.amsgrad, ADAM | DECAY | BEFORE),
    "adamax": Member(aj.adamax, reference.adamax, ADAMAX),
    "adamax eps": Member(aj.adamax, reference.adamax, ADAMAX | {"eps": 0.1}),
    "adamax per step": Member(per_step(aj.adamax), reference.adamax, ADAMAX | PER_STEP),
    "adamaxw": Member(aj.adamaxw, reference.adamax, ADAMAX | DECAY),
    "radam, the paper's": Member(aj.radam, reference.radam, ADAM | {"threshold": 4.0}),
    "radam": Member(aj.radam, reference.radam, ADAMAX | {"threshold": 5.0}),
    "radam slow": Member(
        aj.radam, reference.radam, {"learning_rate": 1e-2, "b2": 0.9999, "threshold": 5.0}
    ),
    "radam nesterov": Member(aj.radam, reference.radam, ADAM | {"threshold": 5.0} | NESTEROV),
    "radam per step": Member(
        per_step(aj.radam), reference.radam, ADAM | PER_STEP | {"threshold": 4.0}
    ),
    "adabelief": Member(aj.adabelief, reference.adabelief, ADAM),
    "adabelief defaults": Member(aj.adabelief, reference.adabelief, {"learning_rate": 1e-3}),
    "adabelief nesterov": Member(aj.adabelief, reference.adabelief, ADAM | NESTEROV),
    "adabelief per step": Member(per_step(aj.adabelief), reference.adabelief, ADAM | PER_STEP),
    "lion": Member(aj.lion, reference.lion, LION | DECAY, FLIPS),
    "lion per step": Member(
        per_step(aj.lion, weight_decay=0), reference.lion, LION | PER_STEP, FLIPS
    ),
    "adam_prox": Member(aj.adam_prox, reference.adam_prox, ADAM | DECAY),
    "adam_prox per step": Member(prox_per_step, reference.adam_prox, ADAM | PER_STEP),
    "cautious_adamw": Member(aj.cautious_adamw, reference.cautious_adamw, ADAM | DECAY),
    "cautious_adamw per step": Member(cautious_per_step, reference.cautious_adamw, ADAM | PER_STEP),
    "stable_adamw": Member(aj.stable_adamw, reference.stable_adamw, ADAMAX | DECAY),
    "schedule_free_adamw": Member(
        aj.schedule_free_adamw, reference.schedule_free_adamw, ADAMAX | DECAY
    ),
    "ademamix": Member(aj.ademamix, reference.ademamix, ADAM | DECAY | {"b3": 0.999, "alpha": 2.0}),
    "adopt": Member(aj.adopt, reference.adopt, ADAMAX | DECAY | NESTEROV | {"eps": 0.1}),
    "c_adamw": Member(aj.c_adamw, reference.c_adamw, ADAM | DECAY),
    "adafactor": Member(
        functools.partial(aj.adafactor, min_axis=2),
        reference.adafactor,
        {"learning_rate": 1e-2, "power": 0.7, "eps": 1e-3, "floor": 2.0} | DECAY,
    ),
    "muon": Member(aj.muon, reference.muon, SGD | DECAY | {"eps": 0.1, "nesterov": True}),
    "adamwr": Member(aj.adamwr, reference.adamwr, ADAMAX | RESTARTS),
}


def falling(number, rate):
    """A schedule for NumPy and JAX alike, from the number down to a third of it or less."""
    pace = 1e-3 * (1 + SCHEDULED.index(rate))
    return lambda step: number / (1 + pace * step)


@dataclasses.dataclass(frozen=True)
class Run:
    """A member with hyperparameters of its own, masked or not."""

    member: Member
    numbers: dict[str, Any]
    masked: bool = False

    def tx(self):
        return self.member.make(
            **self.numbers, **({"mask": decays_matrices} if self.masked else {})
        )

    def expected(self, quadratics):
        end = quadratics.reference(self.member.algorithm, **in_greek(self.numbers))
        if self.masked:
            plain = self.numbers | {name: 0.0 for name in DECAYS if name in self.numbers}
            end["bias"] = quadratics.reference(self.member.algorithm, **in_greek(plain))["bias"]
        return end


def error_in_float64(run, quadratics, expected):
    with jax.enable_x64(True):
        return error(quadratics.descend(run.tx(), jnp.float64), expected)


def test_every_optimizer_has_a_reference():
    modules = optimizers.__name__, relatives.__name__, second_generation.__name__
    exports = {name: getattr(aj, name) for name in aj.__all__}
    made = {n for n, v in exports.items() if getattr(v, "__module__", None) in modules}
    compared = {re.match(r"\w+", name)[0] for name in (*MEMBERS, *OPTIMIZERS)}
    # decayed_per_step makes the members "per step".
    assert made == compared | {"decayed_per_step"}


every_member = pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)


@every_member
def test_equals_the_reference_over_two_thousand_steps(member):
    quadratics, run = problem(2000), Run(member, member.numbers)
    expected = run.expected(quadratics)
    assert error(quadratics.descend(run.tx()), expected) < member.tolerance
    assert error_in_float64(run, quadratics, expected) < 1e-10


@every_member
def test_equals_the_reference_with_all_its_schedules_and_its_mask(member):
    # Each rate falls at a pace of its own, so that none can stand for another.
    quadratics, numbers = problem(1000), member.numbers
    falls = {rate: falling(numbers[rate], rate) for rate in SCHEDULED if rate in numbers}
    run = Run(member, numbers | falls, masked=any(decay in numbers for decay in DECAYS))
    assert error_in_float64(run, quadratics, run.expected(quadratics)) < 1e-10


@every_member
def test_equals_the_reference_on_complex_parameters(member):
    quadratics = problem(200, complex_=True)
    run = Run(member, member.numbers)
    actual = quadratics.descend(run.tx(), jnp.complex64)
    assert error(actual, run.expected(quadratics)) < 2e-5


@every_member
def test_every_hyperparameter_counts(member):
    # Otherwise the runs above would not see one that is lost or mixed up with another.
    def end(numbers):
        return problem(300).reference(member.algorithm, **in_greek(numbers))

    for name, number in member.numbers.items():
        if name in ("b1", "b2"):
            changed = number / 2
        elif name == "threshold":
            changed = 9 - number  # 4 or 5
        else:
            changed = not number if isinstance(number, bool) else 2 * number
        assert error(end(member.numbers | {name: changed}), end(member.numbers)) > 1e-9, name


def test_the_signs_of_lion_are_right_wherever_rounding_leaves_one():
    # With the gradients held fixed, one wrong sign does not pull others along. In float32 the
    # mixture is right to a few of its last bits beside its largest term.
    b1, b2, steps = 0.8, 0.95, 2000
    gradients = 10 ** np.linspace(-3, 2, 16) * np.random.default_rng(0).normal(size=(steps, 16))
    gradients = gradients.astype(np.float32)
    tx = aj.lion(1.0, b1, b2, weight_decay=0)

    def step(state, g):
        return tx.update(g, state, jnp.zeros_like(g))[::-1]

    _, updates = jax.lax.scan(step, tx.init(jnp.zeros(16)), gradients)
    m, mixtures = np.zeros(16), []
    for g in np.float64(gradients):
        mixtures.append(b1 * m + (1 - b1) * g)
        m = b2 * m + (1 - b2) * g
    clear = np.abs(mixtures) > 1e-6 * np.max(np.abs(gradients), axis=0)
    assert np.mean(clear) > 0.999
    np.testing.assert_array_equal(np.asarray(updates)[clear], -np.sign(mixtures)[clear])


def test_the_masks_hold_for_other_leaves_than_the_kernel():
    # The runs above mask one leaf; whatever the mask, the rest is as without decay.
    quadratics = problem(100)
    for name in "nadamw", "amsgradw", "adamaxw", "adam_prox", "cautious_adamw", "stable_adamw":
        decayed, plain = (
            quadratics.descend(getattr(aj, name)(1e-2, weight_decay=decay, mask=mask))
            for decay, mask in [(0.5, {"kernel": False, "bias": True}), (0.0, None)]
        )
        np.testing.assert_allclose(decayed["kernel"], plain["kernel"], rtol=1e-5)
        assert np.max(np.abs(decayed["bias"] - plain["bias"])) > 1e-3

"""Tables, plots and sentences of the comparison."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments import plots
from experiments.report import Figure, Report, Table
from experiments.train import Metrics


class Arm(NamedTuple):
    """What is compared: an optimizer and its decay.

    Attributes:
      family: name of the optimizer and of the convention of its decay.
      optimizer: key of `comparison.OPTIMIZERS`.
      decay: λ or λ′, in the family's own convention.
      weight_decay: the argument that the optimizer gets.
      decay_per_step: share of a weight that a step takes away; for Adam+L2 what it
        would be for gradient descent.
      color: in plots.
    """

    family: str
    optimizer: str
    decay: float
    weight_decay: float
    decay_per_step: float
    color: str

    @property
    def label(self) -> str:
        """Family and decay, as shown."""
        return self.family if self.optimizer == "adam" else f"{self.family} {self.decay:g}"

    def timescale(self, steps_per_epoch: int) -> float:
        """Epochs in which decay alone takes a weight to 1/e; infinite without decay."""
        per_epoch = self.decay_per_step * steps_per_epoch
        return 1 / per_epoch if per_epoch else np.inf


class Result(NamedTuple):
    """An arm and what was measured.

    Attributes:
      arm: what was run.
      metrics: arrays [seeds, epochs].
    """

    arm: Arm
    metrics: Metrics

    def final(self, name: str) -> np.ndarray:
        """A metric after the last epoch, [seeds]; accuracies in percent."""
        return _percent(name, getattr(self.metrics, name)[:, -1])


class Difference(NamedTuple):
    """Mean of paired differences with its 95 % t-interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: np.ndarray, base: np.ndarray) -> "Difference":
        """Compares seed by seed; with a single seed the interval is unbounded."""
        change = ours - base
        margin = (
            stats.t.ppf(0.975, len(change) - 1) * stats.sem(change) if len(change) > 1 else np.inf
        )
        return cls(change.mean(), change.mean() - margin, change.mean() + margin)

    @property
    def sign(self) -> int:
        """1 or −1 where the interval leaves zero out, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def text(self, digits: int) -> str:
        """The mean and the interval, rounded."""
        return f"{self.mean:+.{digits}f} [{self.low:+.{digits}f}, {self.high:+.{digits}f}]"


def summarize(
    results: Sequence[Result], title: str, steps_per_epoch: int, validated: bool
) -> Report:
    """Makes the report; the first result is the one that others are compared with."""
    base, *others = results
    seeds, epochs = base.metrics.train_loss.shape
    diverged = [r for r in results if not np.isfinite(r.final("test_loss")).all()]
    differences = [
        (
            r,
            Difference.of(r.final("test_accuracy"), base.final("test_accuracy")),
            Difference.of(r.final("test_loss"), base.final("test_loss")),
        )
        for r in others
    ]
    columns = ["arm", "λ", "τ, epochs", "train loss"]
    columns += ["valid. loss", "valid. acc. %"] if validated else []
    columns += ["test loss", "sd", "test acc. %", "sd", "‖θ‖"]
    table = Table(
        f"After {epochs} epochs: mean of {seeds} seeds, and their standard deviation (sd)",
        columns,
        [_row(r, steps_per_epoch, validated) for r in results],
        "A step of AdamW ×α takes the share α·λ of each weight away (PyTorch's and Optax's "
        "weight_decay), one of AdamW /step the share λ (the paper's). τ is the time in which "
        "that alone takes a weight to 1/e. Adam+L2 has no τ: what it takes depends on the "
        "gradients. Train loss is the mean over the last epoch's minibatches.",
    )
    paired = Table(
        f"Minus {base.arm.label}, seed by seed: mean [95 % interval]",
        ["arm", "test acc., points", "test loss"],
        [[r.arm.label, accuracy.text(2), loss.text(4)] for r, accuracy, loss in differences],
        f"{len(others)} arms are compared, and the intervals are not corrected for that.",
    )
    findings = [
        f"{base.arm.label} reaches {base.final('test_accuracy').mean():.2f} % test accuracy and "
        f"{base.final('test_loss').mean():.3f} test loss.",
        _sentence("test accuracy", [(r, accuracy) for r, accuracy, _ in differences]),
        _sentence("test loss", [(r, loss) for r, _, loss in differences]),
        *_chosen(results, validated),
        *(f"{r.arm.label} diverged in some runs." for r in diverged),
    ]
    shown = _best_of_families(results, validated) if validated else results
    figures = [
        Figure("curves", _curves(shown), _curves_caption(validated)),
        Figure("decays", _decays(results, steps_per_epoch), _DECAYS_CAPTION),
    ]
    return Report(title, findings, [table, paired], figures, {"results": _tidy(results)})


def _row(result: Result, steps_per_epoch: int, validated: bool) -> list[str]:
    arm = result.arm
    tau = arm.timescale(steps_per_epoch)
    names = ["train_loss", *(["validation_loss", "validation_accuracy"] if validated else [])]
    cells = [_rounded(name, result.final(name).mean()) for name in names]
    for name in ("test_loss", "test_accuracy"):
        values = result.final(name)
        spread = _rounded(name, values.std(ddof=1)) if len(values) > 1 else "—"
        cells += [_rounded(name, values.mean()), spread]
    return [
        arm.family,
        "" if arm.optimizer == "adam" else f"{arm.decay:g}",
        "—" if arm.optimizer == "adam_l2" else "∞" if tau == np.inf else _epochs(tau),
        *cells,
        f"{result.final('weight_norm').mean():.1f}",
    ]


def _epochs(tau: float) -> str:
    return f"{tau:,.0f}" if tau >= 100 else f"{tau:.3g}"


def _rounded(name: str, value: float) -> str:
    return f"{value:.2f}" if name.endswith("accuracy") else f"{value:.4f}"


def _percent(name: str, values: np.ndarray) -> np.ndarray:
    return 100 * values if name.endswith("accuracy") else values


def _sentence(what: str, differences: Sequence[tuple[Result, Difference]]) -> str:
    groups = {1: "higher", -1: "lower", 0: "not distinguishable"}
    parts = []
    for sign, word in groups.items():
        families: dict[str, list[str]] = {}
        for result, difference in differences:
            if difference.sign == sign:
                families.setdefault(result.arm.family, []).append(f"{result.arm.decay:g}")
        listed = "; ".join(f"{family} {', '.join(d)}" for family, d in families.items())
        parts += [f"{word} with {listed}"] if listed else []
    return f"Compared with Adam's, {what} is {'. It is '.join(parts)}."


def _best_of_families(results: Sequence[Result], validated: bool) -> list[Result]:
    families: dict[str, list[Result]] = {}
    for result in results:
        families.setdefault(result.arm.family, []).append(result)
    metric = "validation_loss" if validated else "test_loss"
    return [min(family, key=lambda r: r.final(metric).mean()) for family in families.values()]


def _chosen(results: Sequence[Result], validated: bool) -> Iterable[str]:
    if not validated:
        return
    chosen = _best_of_families(results, validated)
    listed = "; ".join(
        f"{r.arm.label} (test {r.final('test_accuracy').mean():.2f} %, "
        f"loss {r.final('test_loss').mean():.3f})"
        for r in chosen
    )
    yield f"Chosen by validation loss in each family: {listed}."


def _curves(results: Sequence[Result]):
    figure, axes = plots.subplots(3, height=4.2)
    metrics = {"train_loss": "training loss", "test_loss": "test loss", "test_error": "test error"}
    families: dict[str, list[float]] = {}
    for result in results:
        families.setdefault(result.arm.family, []).append(result.arm.decay)
    for axis, (name, title) in zip(axes[0], metrics.items(), strict=True):
        for result in results:
            values = _positive(result, name)
            epochs = np.arange(1, values.shape[1] + 1)
            mean, spread = values.mean(0), values.std(0)
            # Arms of a family share a colour and differ in their dashes.
            dashes = ["-", "--", ":", "-."][families[result.arm.family].index(result.arm.decay) % 4]
            # Ever thinner, so that a curve that coincides with an earlier one hides it not.
            width = 3 - 0.5 * list(families).index(result.arm.family)
            style = {"color": result.arm.color, "linewidth": width, "label": result.arm.label}
            axis.plot(epochs, mean, dashes, **style)
            axis.fill_between(
                epochs, mean - spread, mean + spread, color=result.arm.color, alpha=0.12, lw=0
            )
        plots.log_y(axis)
        axis.set(title=title + (", %" if name == "test_error" else ""), xlabel="epoch")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _decays(results: Sequence[Result], steps_per_epoch: int):
    base, *others = results
    figure, axes = plots.subplots(3, height=4.2)
    metrics = {"test_error": "test error, %", "test_loss": "test loss", "weight_norm": "‖θ‖"}
    families = dict.fromkeys(r.arm.family for r in others)
    for axis, (name, title) in zip(axes[0], metrics.items(), strict=True):
        level = _positive(base, name)[:, -1]
        low, high = level.mean() - level.std(), level.mean() + level.std()
        axis.axhline(level.mean(), color=base.arm.color, ls="--", label=base.arm.label)
        axis.axhspan(low, high, color=base.arm.color, alpha=0.1)
        for family, (marker, size) in zip(families, [("^", 4), ("o", 8), ("s", 4)], strict=False):
            members = sorted(
                (r for r in others if r.arm.family == family and r.arm.decay_per_step > 0),
                key=lambda r: r.arm.decay_per_step,
            )
            finals = [_positive(r, name)[:, -1] for r in members]
            axis.errorbar(
                [r.arm.decay_per_step for r in members],
                [values.mean() for values in finals],
                [values.std() for values in finals],
                fmt=f"{marker}-",
                markersize=size,
                markerfacecolor="white" if size > 4 else None,
                capsize=2,
                color=next(r.arm.color for r in others if r.arm.family == family),
                label=family,
            )
        axis.set(xscale="log", xlabel="decay per step (Adam+L2: α·λ′)")
        plots.log_y(axis)
        axis.set_title(title, pad=34)
        top = axis.secondary_xaxis("top", functions=(_inverse(steps_per_epoch),) * 2)
        top.set_xlabel("τ, epochs", fontsize=9)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _positive(result: Result, name: str) -> np.ndarray:
    """A metric [seeds, epochs] as it is plotted: errors instead of accuracies."""
    if name == "test_error":
        return 100 * (1 - np.asarray(result.metrics.test_accuracy))
    return np.asarray(getattr(result.metrics, name))


def _inverse(steps_per_epoch: int):
    def inverse(x):
        with np.errstate(divide="ignore"):  # Matplotlib also asks for zero
            return 1 / (np.asarray(x, float) * steps_per_epoch)

    return inverse


def _curves_caption(validated: bool) -> str:
    which = "Each family at the decay of the lowest validation loss" if validated else "Every arm"
    return f"{which}: mean over the seeds, shaded by one standard deviation."


_DECAYS_CAPTION = (
    "After the last epoch, over the decay per step, which puts both conventions of AdamW on "
    "one axis; above it the decay's timescale. Bars and band: one standard deviation over "
    "the seeds. Dashed: Adam without decay."
)


def _tidy(results: Sequence[Result]) -> list[dict[str, object]]:
    return [
        {
            "family": r.arm.family,
            "optimizer": r.arm.optimizer,
            "decay": r.arm.decay,
            "weight_decay": r.arm.weight_decay,
            "decay_per_step": r.arm.decay_per_step,
            "seed": seed,
            "epoch": epoch + 1,
            **{name: values[seed, epoch] for name, values in r.metrics._asdict().items()},
        }
        for r in results
        for seed, epoch in np.ndindex(r.metrics.train_loss.shape)
    ]

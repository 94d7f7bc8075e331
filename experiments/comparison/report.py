"""Tables and sentences of the comparison."""

from collections.abc import Sequence

import numpy as np

from experiments.comparison import plots as comparison_plots
from experiments.harness.formats import timescale
from experiments.harness.report import Report, Table
from experiments.harness.statistics import Difference, deviation
from experiments.training.arms import Result


def summarize(
    results: Sequence[Result], title: str, steps_per_epoch: int, validated: bool
) -> Report:
    """Makes the report; the first result is the one that others are compared with."""
    base, *others = results
    seeds, epochs = base.metrics.train_loss.shape
    diverged = [r.arm for r in results if not np.isfinite(r.final("test_loss")).all()]
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
        f"{len({r.arm.run for r in others})} different arms are compared, and the intervals are "
        "not corrected for that.",
    )
    accuracies = [(r, a) for r, a, _ in differences if r.arm not in diverged]
    losses = [(r, loss) for r, _, loss in differences if r.arm not in diverged]
    findings = [
        f"{base.arm.label} reaches {base.final('test_accuracy').mean():.2f} % test accuracy and "
        f"{base.final('test_loss').mean():.3f} test loss.",
        *(
            [_sentence("test accuracy", accuracies), _sentence("test loss", losses)]
            if seeds > 1 and accuracies
            else ["Whether the others differ takes more than one seed."]
        ),
        *(f"{arm.label} diverged: some of its losses are not finite." for arm in diverged),
    ]
    finite = [r for r in results if r.arm not in diverged]
    chosen = _best_of_families(finite) if validated else []
    findings += [_choice(chosen)] if chosen else []
    which = "Each family at the decay of the lowest validation loss" if chosen else "Every arm"
    figures = [
        comparison_plots.curves(chosen or results, which),
        comparison_plots.decays(results, steps_per_epoch),
    ]
    return Report(title, findings, [table, paired], figures, {"results": _tidy(results)})


def _row(result: Result, steps_per_epoch: int, validated: bool) -> list[str]:
    arm = result.arm
    tau = arm.timescale(steps_per_epoch)
    names = ["train_loss", *(["validation_loss", "validation_accuracy"] if validated else [])]
    cells = [_rounded(name, result.final(name).mean()) for name in names]
    for name in ("test_loss", "test_accuracy"):
        values = result.final(name)
        spread = _rounded(name, float(deviation(values))) if len(values) > 1 else "—"
        cells += [_rounded(name, values.mean()), spread]
    return [
        arm.family,
        f"{arm.decay:g}" if arm.decays else "",
        "—" if arm.l2 else timescale(tau),
        *cells,
        f"{result.final('weight_norm').mean():.1f}",
    ]


def _rounded(name: str, value: float) -> str:
    return f"{value:.2f}" if name.endswith("accuracy") else f"{value:.4f}"


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


def _best_of_families(results: Sequence[Result]) -> list[Result]:
    families: dict[str, list[Result]] = {}
    for result in results:
        families.setdefault(result.arm.family, []).append(result)
    return [
        min(family, key=lambda r: r.final("validation_loss").mean()) for family in families.values()
    ]


def _choice(chosen: Sequence[Result]) -> str:
    listed = "; ".join(
        f"{r.arm.label} (test {r.final('test_accuracy').mean():.2f} %, "
        f"loss {r.final('test_loss').mean():.3f})"
        for r in chosen
    )
    return f"Chosen by validation loss in each family: {listed}."


def _tidy(results: Sequence[Result]) -> list[dict[str, object]]:
    return [
        {
            "family": r.arm.family,
            "decay": r.arm.decay,
            "l2": r.arm.l2,
            "weight_decay": r.arm.weight_decay,
            "decay_per_step": r.arm.decay_per_step,
            "seed": seed,
            "epoch": epoch + 1,
            **{name: values[seed, epoch] for name, values in r.metrics._asdict().items()},
        }
        for r in results
        for seed, epoch in np.ndindex(r.metrics.train_loss.shape)
    ]

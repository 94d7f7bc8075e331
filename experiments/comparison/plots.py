"""Plots of the comparison."""

import math
from typing import Any

import polars as pl

from experiments.harness import plots
from experiments.harness.report import Figure
from experiments.training.arms import ADAM
from experiments.training.plots import COLORS, NAMES, named, over_decay

DASHES = ["-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1))]
# Test errors and losses that are more times the least than this leave the plot at the top.
SPAN = 4
WIDE = 45  # characters; two longer labels do not fit side by side


def curves(shown: pl.DataFrame) -> Figure:
    """Training loss, test loss and test error over the epochs.

    Args:
      shown: measurements of the best arm of each family, with accuracies in percent.
    """
    lines = _lines(shown)
    columns = 2 if max(len(style["label"]) for _, style in lines) < WIDE else 1
    figure, axes = plots.subplots(3, height=4.2 + 0.3 * len(lines) / columns)
    metrics = {"train_loss": "training loss", "test_loss": "test loss", "test_error": "test error"}
    for axis, (name, title) in zip(axes[0], metrics.items(), strict=True):
        for runs, style in lines:
            by_epoch = runs.group_by("evaluation", maintain_order=True).agg(
                mean=pl.mean(name), sd=pl.std(name)
            )
            epochs, mean, sd = (column.to_numpy() for column in by_epoch)
            axis.plot(epochs, mean, **style)
            axis.fill_between(epochs, mean - sd, mean + sd, color=style["color"], alpha=0.12, lw=0)
        plots.log_y(axis, math.inf if name == "train_loss" else SPAN)
        axis.set(title=title + (", %" if name == "test_error" else ""), xlabel="epoch")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    caption = (
        "Each family at the decay of the lowest validation loss: mean over the seeds, shaded by "
        f"one standard deviation. The axes of the test images end at {SPAN} times the least value."
    )
    last = shown.filter(pl.col("evaluation") == pl.col("evaluation").max())
    return Figure("curves", _who_ends_lowest(_losses(last)), figure, caption)


def _lines(shown: pl.DataFrame) -> list[tuple[pl.DataFrame, dict]]:
    """The measurements of each different arm, and its style; equal arms share line and label."""
    lines, members = [], dict.fromkeys(shown["family"], 0)
    for _, same in shown.group_by("l2", "weight_decay", maintain_order=True):
        runs = same.filter(pl.col("label") == same["label"][0])
        arms = same.select("family", "decay").unique(maintain_order=True)
        family, label = (
            same["family"][0],
            " = ".join(named(*arm) for arm in arms.rows()).replace("= AdamW, ", "= "),
        )
        dashes = DASHES[members[family] % len(DASHES)]
        members[family] += 1
        lines.append((runs, {"color": COLORS[family], "linestyle": dashes, "label": label}))
    return lines


def _losses(last: pl.DataFrame) -> list[dict[str, Any]]:
    """The arms that did not diverge, with their mean test loss, the least first."""
    arm = ["family", "decay", "decay_per_step"]
    means = last.group_by(arm, maintain_order=True).agg(pl.mean("test_loss"))
    finite = means.filter(pl.col("test_loss").is_finite())
    return finite.sort("test_loss", maintain_order=True).to_dicts()


def decays(last: pl.DataFrame, steps_per_epoch: int) -> Figure:
    """Test error, test loss and weight norm at the end, over the decay per step.

    Args:
      last: the last evaluations, with accuracies in percent.
      steps_per_epoch: optimizer steps.
    """
    figure, axes = plots.subplots(3, height=4.8)
    metrics = {"test_error": "test error, %", "test_loss": "test loss", "weight_norm": "‖θ‖"}
    for axis, (name, title) in zip(axes[0], metrics.items(), strict=True):
        span = math.inf if name == "weight_norm" else SPAN
        over_decay(axis, last.with_columns(value=pl.col(name)), steps_per_epoch, title, span)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    caption = (
        "After the last epoch, over the decay per step, which puts both conventions of AdamW on "
        "one axis; above it the decay's timescale. For Adam+L2 the decay per step is that of "
        "gradient descent, α·λ′. Bars and band: one standard deviation over the seeds. Dashed: "
        f"Adam without decay. The axes of the test images end at {SPAN} times the least value."
    )
    return Figure("decays", _best_decay(_losses(last)), figure, caption)


def _who_ends_lowest(losses: list[dict[str, Any]]) -> str:
    if not losses:
        return "Every arm diverged"
    least, *others = losses
    arm = named(least["family"], least["decay"])
    adam = [f"; Adam with {each['test_loss']:.3f}" for each in others if each["family"] == ADAM]
    return "".join([f"{arm} ends with the least test loss, {least['test_loss']:.3f}", *adam])


def _best_decay(losses: list[dict[str, Any]]) -> str:
    if not losses:
        return "Every arm diverged"
    least = losses[0]
    if least["family"] == ADAM:
        return "No decay lowers Adam's test loss"
    decay = f"a decay of {least['decay_per_step']:.2g} per step"
    return f"The test loss is least with {NAMES[least['family']]}, at {decay}"

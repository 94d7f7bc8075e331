"""Plots of the comparison."""

import polars as pl

from experiments.harness import plots
from experiments.harness.report import Figure
from experiments.training.plots import COLORS, over_decay

DASHES = ["-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1))]


def curves(shown: pl.DataFrame, which: str) -> Figure:
    """Training loss, test loss and test error over the epochs.

    Args:
      shown: measurements with accuracies in percent.
      which: which arms these are, for the caption.
    """
    figure, axes = plots.subplots(3, height=4.2)
    metrics = {"train_loss": "training loss", "test_loss": "test loss", "test_error": "test error"}
    lines = _lines(shown)
    for axis, (name, title) in zip(axes[0], metrics.items(), strict=True):
        for runs, style in lines:
            by_epoch = runs.group_by("evaluation", maintain_order=True).agg(
                mean=pl.mean(name), sd=pl.std(name)
            )
            epochs, mean, sd = (column.to_numpy() for column in by_epoch)
            axis.plot(epochs, mean, **style)
            axis.fill_between(epochs, mean - sd, mean + sd, color=style["color"], alpha=0.12, lw=0)
        plots.log_y(axis)
        axis.set(title=title + (", %" if name == "test_error" else ""), xlabel="epoch")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    title = "Training loss, test loss and test error over the epochs"
    caption = f"{which}: mean over the seeds, shaded by one standard deviation."
    return Figure("curves", title, figure, caption)


def _lines(shown: pl.DataFrame) -> list[tuple[pl.DataFrame, dict]]:
    """The measurements of each different arm, and its style; equal arms share line and label."""
    lines, members = [], dict.fromkeys(shown["family"], 0)
    for _, same in shown.group_by("l2", "weight_decay", maintain_order=True):
        runs = same.filter(pl.col("label") == same["label"][0])
        family, label = same["family"][0], " = ".join(same["label"].unique(maintain_order=True))
        dashes = DASHES[members[family] % len(DASHES)]
        members[family] += 1
        lines.append((runs, {"color": COLORS[family], "linestyle": dashes, "label": label}))
    return lines


def decays(last: pl.DataFrame, steps_per_epoch: int) -> Figure:
    """Test error, test loss and weight norm at the end, over the decay per step.

    Args:
      last: the last evaluations, with accuracies in percent.
      steps_per_epoch: optimizer steps.
    """
    figure, axes = plots.subplots(3, height=4.2)
    metrics = {"test_error": "test error, %", "test_loss": "test loss", "weight_norm": "‖θ‖"}
    for axis, (name, title) in zip(axes[0], metrics.items(), strict=True):
        over_decay(axis, last.with_columns(value=pl.col(name)), steps_per_epoch, title)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    caption = (
        "After the last epoch, over the decay per step, which puts both conventions of AdamW on "
        "one axis; above it the decay's timescale. For Adam+L2 the decay per step is that of "
        "gradient descent, α·λ′. Bars and band: one standard deviation over the seeds. Dashed: "
        "Adam without decay."
    )
    title = "Test error, test loss and weight norm over the decay"
    return Figure("decays", title, figure, caption)

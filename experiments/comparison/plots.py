"""Plots of the comparison."""

from collections.abc import Sequence

import numpy as np

from experiments.harness import plots
from experiments.harness.report import Figure
from experiments.harness.statistics import deviation
from experiments.training.arms import Result

DASHES = ["-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1))]


def curves(results: Sequence[Result], which: str) -> Figure:
    """Training loss, test loss and test error over the epochs."""
    figure, axes = plots.subplots(3, height=4.2)
    metrics = {"train_loss": "training loss", "test_loss": "test loss", "test_error": "test error"}
    results, labels = _distinct(results)
    families: dict[str, list[float]] = {}
    for result in results:
        families.setdefault(result.arm.family, []).append(result.arm.decay)
    for axis, (name, title) in zip(axes[0], metrics.items(), strict=True):
        for result in results:
            values = result.series(name)
            epochs = np.arange(1, values.shape[1] + 1)
            mean, spread = values.mean(0), deviation(values)
            # Arms of a family share a colour and differ in their dashes.
            dashes = DASHES[families[result.arm.family].index(result.arm.decay) % len(DASHES)]
            style = {"color": result.arm.color, "label": labels[result.arm.run]}
            axis.plot(epochs, mean, linestyle=dashes, **style)
            axis.fill_between(
                epochs, mean - spread, mean + spread, color=result.arm.color, alpha=0.12, lw=0
            )
        plots.log_y(axis)
        axis.set(title=title + (", %" if name == "test_error" else ""), xlabel="epoch")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    caption = f"{which}: mean over the seeds, shaded by one standard deviation."
    return Figure("curves", figure, caption)


def _distinct(results: Sequence[Result]) -> tuple[list[Result], dict[tuple[float, float], str]]:
    """One result for arms that are the same run, and labels that name them all."""
    labels: dict[tuple[float, float], str] = {}
    for result in results:
        run = result.arm.run
        labels[run] = f"{labels[run]} = {result.arm.label}" if run in labels else result.arm.label
    first = {result.arm.run: result for result in reversed(results)}
    return [first[run] for run in labels], labels


def decays(results: Sequence[Result], steps_per_epoch: int) -> Figure:
    """Test error, test loss and weight norm at the end, over the decay per step."""
    base, *others = results
    figure, axes = plots.subplots(3, height=4.2)
    metrics = {"test_error": "test error, %", "test_loss": "test loss", "weight_norm": "‖θ‖"}
    families = dict.fromkeys(r.arm.family for r in others)
    for axis, (name, title) in zip(axes[0], metrics.items(), strict=True):
        level = base.final(name)
        spread = np.nan_to_num(deviation(level))
        axis.axhline(level.mean(), color=base.arm.color, ls="--", label=base.arm.label)
        axis.axhspan(level.mean() - spread, level.mean() + spread, color=base.arm.color, alpha=0.1)
        for family, (marker, size) in zip(families, [("^", 4), ("o", 8), ("s", 4)], strict=False):
            members = sorted(
                (r for r in others if r.arm.family == family and r.arm.decay_per_step > 0),
                key=lambda r: r.arm.decay_per_step,
            )
            finals = [r.final(name) for r in members]
            axis.errorbar(
                [r.arm.decay_per_step for r in members],
                [values.mean() for values in finals],
                [*map(deviation, finals)],
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
        top = axis.secondary_xaxis("top", functions=(plots.inverse(steps_per_epoch),) * 2)
        top.set_xlabel("τ of AdamW, epochs", fontsize=9)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    caption = (
        "After the last epoch, over the decay per step, which puts both conventions of AdamW on "
        "one axis; above it the decay's timescale. Bars and band: one standard deviation over "
        "the seeds. Dashed: Adam without decay."
    )
    return Figure("decays", figure, caption)

"""Plots of the study."""

from collections.abc import Sequence

import numpy as np

import adamw_jax
from experiments.harness import plots
from experiments.harness.report import Figure
from experiments.harness.statistics import deviation
from experiments.study.trials import Measured
from experiments.study.verdicts import METRICS, REFUTED, REVERSED, SUPPORTED, Comparison, verdict

# The AdamW paper's best normalized decay (App. B.1).
NORMALIZED = 0.025, 0.05
FAMILIES = {"Adam+L2": (plots.VERMILION, "^"), "AdamW": (plots.BLUE, "o")}
EFFECTS = {"accuracy": "test accuracy, points more", "loss": "test loss, less by"}
COLORS = {SUPPORTED: plots.BLUE, REVERSED: plots.VERMILION, REFUTED: "#999999"}
TITLES = {"accuracy": "validation error, %", "loss": "validation loss"}


def decays(
    task: str, measured: Sequence[Measured], learning_rate: float, talk: Sequence[float], name: str
) -> Figure:
    """Validation error and loss over the decay per step, a column for each schedule."""
    figure, axes = plots.subplots(len(measured), len(METRICS), height=3.8)
    for column, m in enumerate(measured):
        for axis, metric in zip(axes[:, column], METRICS, strict=True):
            _decay_axis(axis, m, metric, learning_rate, talk)
            axis.set_title(f"{m.trial.schedule}: {TITLES[metric]}", pad=34)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    caption = (
        f"{task}: after the last epoch, over the decay per step, which puts both conventions of "
        "AdamW on one axis; above it the decay's timescale. Bars and band: one standard "
        "deviation over the seeds. Filled: chosen on these validation images. Grey: where the "
        "AdamW paper finds the best λ (normalized 0.025 to 0.05). Dotted: what the talk's λ may "
        "have meant. For Adam+L2 the decay per step is that of gradient descent, α·λ′."
    )
    return Figure(name, figure, caption)


def _decay_axis(axis, m: Measured, metric: str, learning_rate: float, talk: Sequence[float]):
    trial = m.trial
    shown = f"validation_{metric}"

    def values(arm):
        final = m.final(arm, shown)
        return 100 - final if metric == "accuracy" else final

    level = values((0.0, 0.0))
    axis.axhline(level.mean(), color=plots.BLACK, ls="--", label="Adam")
    spread = np.nan_to_num(deviation(level))
    axis.axhspan(level.mean() - spread, level.mean() + spread, color=plots.BLACK, alpha=0.1, lw=0)
    paper = [n * np.sqrt(1 / trial.total) for n in NORMALIZED]
    axis.axvspan(*paper, color=plots.BLACK, alpha=0.12, lw=0, label="the paper's best λ")
    for i, decay in enumerate(talk):
        label = "the talk's λ" if i == 0 else None
        axis.axvline(decay * learning_rate, color=plots.BLUE, ls=":", lw=1, label=label)
    for family, (color, marker) in FAMILIES.items():
        arms = sorted(m.arms(family), key=sum)
        if not arms:
            continue
        x = [adamw_jax.per_step_from_weight_decay(sum(arm), learning_rate) for arm in arms]
        finals = [values(arm) for arm in arms]
        means, deviations = [f.mean() for f in finals], [*map(deviation, finals)]
        style = {"color": color, "marker": marker, "markerfacecolor": "white", "capsize": 2}
        axis.errorbar(x, means, deviations, label=family, **style)
        best = arms.index(m.chosen(family, metric))
        axis.plot(x[best], means[best], marker, color=color, markersize=8, zorder=5)
    axis.set(xscale="log", xlabel="decay per step")
    plots.log_y(axis)
    top = axis.secondary_xaxis("top", functions=(plots.inverse(trial.steps),) * 2)
    top.set_xlabel("τ, epochs", fontsize=9)


def forest(compared: Sequence[Comparison], matters: dict[str, float]) -> Figure:
    """Every effect with its interval, accuracy left and loss right."""
    rows = list(dict.fromkeys((c.claim, c.where) for c in compared))
    figure, axes = plots.subplots(len(METRICS), height=1.2 + 0.24 * len(rows))
    lines: list[str] = []
    position: dict[tuple[str, str], int] = {}
    for claim, where in rows:
        if claim not in lines:
            lines += [claim]
        position[claim, where] = len(lines)
        lines += [f"{where}  "]
    for axis, metric in zip(axes[0], METRICS, strict=True):
        axis.axvspan(-matters[metric], matters[metric], color=plots.BLACK, alpha=0.08, lw=0)
        axis.axvline(0, color=plots.BLACK, lw=1)
        for c in compared:
            if c.metric != metric:
                continue
            interval, y = c.interval(len(compared)), position[c.claim, c.where]
            says = verdict(interval, matters[metric])
            color = COLORS.get(says, plots.BLACK)
            axis.plot([interval.low, interval.high], [y, y], color=color)
            axis.plot(interval.mean, y, "o", color=color, markersize=4)
        axis.set_yticks(range(len(lines)), lines if metric == METRICS[0] else [], fontsize=8)
        axis.set_ylim(len(lines) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
        axis.set_title(EFFECTS[metric])
    for label in axes[0, 0].get_yticklabels():
        if label.get_text() in {claim for claim, _ in rows}:
            label.set_fontweight("bold")
    caption = (
        "The effect that each claim predicts, to the right of zero: mean of the paired differences "
        f"and the interval that corrects for {len(compared)} comparisons. Blue: supported; "
        "vermilion: reversed; grey: refuted; black: undecided. Band: too small to matter."
    )
    return Figure("effects", figure, caption)

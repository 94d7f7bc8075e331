"""Plots of the study."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from experiments.harness import plots
from experiments.harness.report import Figure
from experiments.study.choices import ACCURACY, METRICS
from experiments.study.verdicts import REFUTED, REVERSED, SUPPORTED, Judgement
from experiments.training.arms import ADAM
from experiments.training.plots import COLORS, MARKERS, over_decay

# The AdamW paper's best normalized decay (App. B.1).
NORMALIZED = 0.025, 0.05
EFFECTS = {"accuracy": "test accuracy, points more", "loss": "test loss, less by"}
VERDICTS = {SUPPORTED: plots.BLUE, REVERSED: plots.VERMILION, REFUTED: "#999999"}
TITLES = {"accuracy": "validation error, %", "loss": "validation loss"}


def decays(scores: pl.DataFrame, chosen: pl.DataFrame, talk: Sequence[float], name: str) -> Figure:
    """Validation error and loss over the decay per step, a column for each schedule.

    Args:
      scores: the scores of the trials of one task.
      chosen: the decays that validation chooses.
      talk: values of λ, times α, that the talk may have meant.
      name: the name of the figure's file.
    """
    trials = scores.partition_by("trial", maintain_order=True)
    figure, axes = plots.subplots(len(trials), len(METRICS), height=3.8)
    for column, trial in enumerate(trials):
        for axis, metric in zip(axes[:, column], METRICS, strict=True):
            of_metric = trial.filter(pl.col("metric") == metric)
            _axis(axis, of_metric, chosen, talk, f"{trial['schedule'][0]}: {TITLES[metric]}")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    caption = (
        "After the last epoch, over the decay per step, which puts both "
        "conventions of AdamW on one axis; above it the decay's timescale. Bars and band: one "
        "standard deviation over the seeds. Filled: chosen on these validation images. Grey: where "
        "the AdamW paper finds the best λ (normalized 0.025 to 0.05). Dotted: what the talk's λ "
        "may have meant. For Adam+L2 the decay per step is that of gradient descent, α·λ′."
    )
    title = f"{scores['task'][0]}: validation error and loss over the decay"
    return Figure(name, title, figure, caption)


def _axis(axis, scores: pl.DataFrame, chosen: pl.DataFrame, talk: Sequence[float], title: str):
    """One trial and metric."""
    first = scores.row(0, named=True)
    best = 100 if first["metric"] == ACCURACY else 0  # so that the error is shown, or the loss
    values = scores.with_columns(value=best - pl.col("validation"))
    over_decay(axis, values, first["steps"], title)
    paper = [n * np.sqrt(1 / (first["epochs"] * first["steps"])) for n in NORMALIZED]
    axis.axvspan(*paper, color=plots.BLACK, alpha=0.12, lw=0, label="the paper's best λ")
    for i, decay in enumerate(talk):
        label = "the talk's λ" if i == 0 else None
        axis.axvline(decay * first["learning_rate"], color=plots.BLUE, ls=":", lw=1, label=label)
    on = ["trial", "family", "metric", "decay"]
    filled = values.filter(pl.col("family") != ADAM).join(chosen, on=on, how="semi")
    for (family,), runs in filled.group_by("family", maintain_order=True):
        marker, size = MARKERS[str(family)]
        style = {"color": COLORS[str(family)], "markersize": size + 2, "zorder": 5}
        axis.plot(runs["decay_per_step"][0], runs["value"].mean(), marker, **style)


def forest(judgements: Sequence[Judgement], matters: Mapping[str, float]) -> Figure:
    """Every effect with its interval, accuracy left and loss right."""
    rows = list(dict.fromkeys((j.claim, j.where) for j in judgements))
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
        for j in judgements:
            if j.metric != metric:
                continue
            interval, y = j.interval, position[j.claim, j.where]
            color = VERDICTS.get(j.verdict, plots.BLACK)
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
        f"and the interval that corrects for {len(judgements)} comparisons. Blue: supported; "
        "vermilion: reversed; grey: refuted; black: undecided. Band: too small to matter."
    )
    return Figure("effects", "Every effect with its interval", figure, caption)

"""What the runs say, in a few sentences and a picture."""

import math
from collections.abc import Sequence

import polars as pl

from experiments.harness import plots
from experiments.harness.formats import listed, signed
from experiments.harness.report import Figure, Report
from experiments.members import tables
from experiments.members.members import BASE
from experiments.members.settings import Settings
from experiments.members.stages import FRESH, task
from experiments.tuning import comparisons
from experiments.tuning.comparisons import BETTER, NEGLIGIBLE, UNCLEAR, WORSE, Judgement
from experiments.tuning.measures import ACCURACY, RUN, STOPPED

SPAN = 5  # a lead of more than so many times what matters is no point in the picture
COLORS = {BETTER: plots.GREEN, WORSE: plots.VERMILION}


def summarize(config: Settings, scores: pl.DataFrame) -> Report:
    """Says which members lead AdamW.

    Args:
      config: the settings.
      scores: of all runs, as `stages.run_member` returns them.
    """
    settled = scores.filter(pl.col("stage") == FRESH, pl.col("read") == STOPPED)
    tasks, others = [task(noise) for noise in config.noises], config.members[1:]
    asked = [(each, name, BASE, ACCURACY) for each in tasks for name in others]
    judged = comparisons.judge(settled, asked, {ACCURACY: config.matters})
    figure = _figure(config, tasks, judged)
    rows = scores.select("task", "stage", *RUN, "measure", "read", "epoch", "validation", "test")
    findings = [f"{finding(judged)}.", *_others(judged)]
    shown = [
        tables.summary(config, tasks, judged),
        *(tables.details(config, each, settled, judged) for each in tasks),
    ]
    return Report("", findings, shown, [figure], {"results": rows.to_dicts()})


def finding(judged: Sequence[Judgement]) -> str:
    """Which members are better than AdamW."""
    if found := [j for j in judged if j.verdict == BETTER]:
        return f"Better than {BASE} {_by_task(found)}"
    return f"No member is shown to be better than {BASE} by as much as matters"


def _others(judged: Sequence[Judgement]) -> list[str]:
    """Which members are worse, as good, or not to be told from AdamW, and the largest lead."""
    says = {
        WORSE: "Worse",
        NEGLIGIBLE: "Different by too little to matter",
        UNCLEAR: "Not to be told from it",
    }
    found = {
        words: [j for j in judged if j.verdict.endswith(verdict)] for verdict, words in says.items()
    }
    found["The largest lead"] = [max(judged, key=lambda j: j.lead.mean)]
    return [f"{words} {_by_task(these)}." for words, these in found.items() if these]


def _by_task(judged: Sequence[Judgement]) -> str:
    """Members with their leads in points, those on the same task together."""
    by_task: dict[str, list[str]] = {}
    for j in judged:
        by_task.setdefault(j.task, []).append(f"{j.ours} ({signed(j.lead.mean)})")
    return "; ".join(f"with {each}: {listed(named)}" for each, named in by_task.items())


def _figure(config: Settings, tasks: Sequence[str], judged: Sequence[Judgement]) -> Figure:
    order = tables.order(judged, tasks[0])
    figure, axes = plots.subplots(len(tasks), height=1.5 + 0.42 * len(order))
    widest = SPAN * config.matters
    ends = [-config.matters, config.matters]
    for axis, each in zip(axes[0], tasks, strict=True):
        plots.no_lead(axis, config.matters)
        for j in judged:
            color, y = COLORS.get(j.verdict, plots.BLUE), order.index(j.ours)
            if j.task == each and abs(j.lead.mean) <= widest:
                plots.interval(axis, j.lead, y, color)
                ends += [j.lead.low, j.lead.high]
            elif j.task == each:
                beyond, number = math.copysign(widest, j.lead.mean), signed(j.lead.mean)
                text, side = (f"← {number}", "left") if beyond < 0 else (f"{number} →", "right")
                axis.annotate(text, (beyond, y), color=color, ha=side, va="center_baseline")
                ends.append(beyond)
        plots.rows(axis, order if axis is axes[0, 0] else [""] * len(order))
        axis.set(title=each, xlabel=f"points more than {BASE}")
    for axis in axes[0]:
        axis.set_xlim(min(ends) - config.matters / 2, max(ends) + config.matters / 2)
    caption = (
        f"Test accuracy: mean over {config.seeds} fresh seeds and 95 % interval. Grey: too small "
        "to matter. Green: better, red: worse, by a corrected test; blue: neither, or by too "
        f"little to matter. A lead beyond {widest:g} points is a number."
    )
    return Figure("members", finding(judged), figure, caption)

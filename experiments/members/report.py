"""What the runs say, in a few sentences and a picture."""

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
    most = max(judged, key=lambda j: j.lead.mean)
    return (
        f"No member is shown to be better than {BASE} by as much as matters; the largest lead, "
        f"{_by_task([most])}"
    )


def _others(judged: Sequence[Judgement]) -> list[str]:
    """Which members are worse than AdamW, which as good, and which cannot be told."""
    says = {
        WORSE: "Worse",
        NEGLIGIBLE: "Different by too little to matter",
        UNCLEAR: "Not to be told from it",
    }
    found = {
        words: [j for j in judged if j.verdict.endswith(verdict)] for verdict, words in says.items()
    }
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
    for axis, each in zip(axes[0], tasks, strict=True):
        plots.no_lead(axis, config.matters)
        for j in judged:
            if j.task == each:
                color = COLORS.get(j.verdict, plots.BLUE)
                plots.interval(axis, j.lead, order.index(j.ours), color)
        plots.rows(axis, order if axis is axes[0, 0] else [""] * len(order))
        axis.set(title=each, xlabel=f"points more than {BASE}")
        if axis is not axes[0, 0]:
            axis.sharex(axes[0, 0])
    caption = (
        f"Test accuracy: mean over {config.seeds} fresh seeds and 95 % interval. Grey: too small "
        "to matter. Green: better, red: worse, by a corrected test; blue: neither, or by too "
        "little to matter."
    )
    return Figure("members", finding(judged), figure, caption)

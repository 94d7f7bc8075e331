"""What the runs say, in a sentence, tables and a picture."""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
from flax import nnx

import adamw_jax as aj
from experiments.harness import data, plots
from experiments.harness.formats import listed, signed
from experiments.harness.report import Figure, Report, Table
from experiments.harness.statistics import Difference
from experiments.members.members import BASE, MEMBERS, optimizer
from experiments.members.settings import Settings
from experiments.members.stages import FRESH, network, task, training
from experiments.tuning import comparisons
from experiments.tuning.comparisons import BETTER, NEGLIGIBLE, WORSE, Judgement
from experiments.tuning.measures import ACCURACY, CALIBRATED, RUN, STOPPED

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
    tables = [_table(config, each, settled, judged) for each in tasks]
    figure = _figure(config, tasks, judged)
    rows = scores.select("task", "stage", *RUN, "measure", "read", "epoch", "validation", "test")
    findings = [f"{finding(judged)}.", *_others(judged)]
    return Report("", findings, tables, [figure], {"results": rows.to_dicts()})


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
    """Which members are worse than AdamW, and which differ by too little to matter."""
    says = {WORSE: "Worse", NEGLIGIBLE: "Different by too little to matter"}
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


def _table(
    config: Settings, each: str, settled: pl.DataFrame, judged: Sequence[Judgement]
) -> Table:
    by_name = {j.ours: j for j in judged if j.task == each}
    order = [BASE, *sorted(by_name, key=lambda name: -by_name[name].lead.mean)]
    rows = []
    for name in order:
        runs = settled.filter(pl.col("task") == each, pl.col("family") == name)
        chosen = runs.row(0, named=True)
        means = {
            measure: float(np.mean(runs.filter(pl.col("measure") == measure)["test"].to_numpy()))
            for measure in (ACCURACY, CALIBRATED)
        }
        rows.append([
            name,
            f"{means[ACCURACY]:.2f}",
            *_compared(by_name.get(name)),
            f"{-means[CALIBRATED]:.4f}",
            "" if name == BASE else _less(settled, each, name).text(4),
            f"{chosen['learning_rate']:g}",
            f"{chosen['decay']:g}",
            ", ".join(ends(config, name, chosen["learning_rate"], chosen["decay"])),
            f"{state_bytes(config, name):.2f}",
        ])  # fmt: skip
    return Table(
        f"Beside {BASE}, {each}",
        ["", "test accuracy, %", f"minus {BASE}", "p, corrected", "verdict", "calibrated loss",
         f"less than {BASE} by", "α", "λ", "near an end", "state, bytes"],
        rows,
        f"Means of {config.seeds} fresh seeds of runs that were stopped by their validation "
        f"images; points of accuracy more than {BASE}, paired by seed, with 95 % intervals. p: "
        f"sign-flip test, corrected by Holm for all {len(judged)} comparisons in accuracy. "
        f"Negligible: nearer to {BASE} than {config.matters:g} points by an equivalence test. α "
        "and λ: what validation accuracy chose, for both measures; near an end: within a tenth of "
        "its range's end, on a log scale, so that better values may lie beyond. Bytes of the "
        "optimizer's state for each parameter of this network.",
    )  # fmt: skip


def _compared(judgement: Judgement | None) -> list[str]:
    if judgement is None:
        return [""] * 3
    return [judgement.lead.text(2), f"{judgement.p:.2g}", judgement.verdict]


def _less(settled: pl.DataFrame, each: str, name: str) -> Difference:
    return comparisons.lead(settled, each, name, BASE, CALIBRATED)


def ends(config: Settings, name: str, rate: float, decay: float) -> list[str]:
    """Which of the chosen values are within a tenth of an end of the member's range."""
    times = MEMBERS[name].times
    tried = {
        "α": (rate / times, config.learning_rates),
        "λ": (decay * times, config.weight_decays),
    }
    shares = {
        symbol: math.log(value / low) / math.log(high / low)
        for symbol, (value, (low, high)) in tried.items()
    }
    return [
        f"{symbol} {'low' if share < 0.1 else 'high'}"
        for symbol, share in shares.items()
        if not 0.1 <= share <= 0.9
    ]


def state_bytes(config: Settings, name: str) -> float:
    """The bytes of a member's state for each parameter of the network."""
    make = network(data.SIZES[config.data].pixels, config.hidden)
    module = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    params = nnx.as_pure(nnx.state(module, nnx.Param))
    numbers = {"learning_rate": 1e-3, "weight_decay": 0.1}
    made = optimizer(MEMBERS[name], training(1, config.hidden), numbers)
    report = aj.memory_report(made, params)
    return report.bytes / report.parameters


def _figure(config: Settings, tasks: Sequence[str], judged: Sequence[Judgement]) -> Figure:
    first = [j for j in judged if j.task == tasks[0]]
    order = [j.ours for j in sorted(first, key=lambda j: -j.lead.mean)]
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

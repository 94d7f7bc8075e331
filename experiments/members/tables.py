"""Tables of the comparison of members."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from flax import nnx

import adamw_jax as aj
from experiments.harness import data
from experiments.harness.report import Table
from experiments.harness.statistics import Difference
from experiments.members.members import BASE, MEMBERS, optimizer
from experiments.members.settings import Settings
from experiments.members.stages import network, training
from experiments.tuning import comparisons
from experiments.tuning.candidates import near_end
from experiments.tuning.comparisons import Judgement
from experiments.tuning.measures import ACCURACY, CALIBRATED


def summary(config: Settings, tasks: Sequence[str], judged: Sequence[Judgement]) -> Table:
    """The comparisons, a row for each member."""
    found = {(j.task, j.ours): j for j in judged}
    rows = [
        [name, *(cell for each in tasks for cell in _compared(found[each, name])),
         f"{state_bytes(config, name):.2f}"]
        for name in order(judged, tasks[0])
    ]  # fmt: skip
    return Table(
        f"The members beside {BASE}",
        ["", *(cell for each in tasks for cell in (each, "p, corrected", "verdict")),
         "state, bytes"],
        rows,
        f"Points of test accuracy more than {BASE}: means over {config.seeds} fresh seeds of runs "
        "that were stopped by their validation images, paired by seed, with 95 % intervals. p: "
        f"sign-flip test, corrected by Holm for all {len(judged)} comparisons. Negligible: nearer "
        f"to {BASE} than {config.matters:g} points by an equivalence test. Bytes of the "
        f"optimizer's state for each parameter of this network; {BASE}'s are "
        f"{state_bytes(config, BASE):.2f}.",
    )  # fmt: skip


def order(judged: Sequence[Judgement], each: str) -> list[str]:
    """The members, the one that leads the most on a task first."""
    of_task = [j for j in judged if j.task == each]
    return [j.ours for j in sorted(of_task, key=lambda j: -j.lead.mean)]


def details(
    config: Settings, each: str, settled: pl.DataFrame, judged: Sequence[Judgement]
) -> Table:
    """What tuning chose on a task, and how it does with fresh seeds."""
    rows = []
    for name in [BASE, *order(judged, each)]:
        runs = settled.filter(pl.col("task") == each, pl.col("family") == name)
        chosen = runs.row(0, named=True)
        means = {
            measure: float(np.mean(runs.filter(pl.col("measure") == measure)["test"].to_numpy()))
            for measure in (ACCURACY, CALIBRATED)
        }
        rows.append([
            name,
            f"{means[ACCURACY]:.2f}",
            f"{-means[CALIBRATED]:.4f}",
            "" if name == BASE else _less(settled, each, name).text(4),
            f"{chosen['learning_rate']:g}",
            f"{chosen['decay']:g}",
            ", ".join(ends(config, name, chosen["learning_rate"], chosen["decay"])),
        ])  # fmt: skip
    return Table(
        f"What tuning chose, {each}",
        ["", "test accuracy, %", "calibrated loss", f"less than {BASE} by", "α", "λ",
         "near an end"],
        rows,
        f"Means over {config.seeds} fresh seeds. Calibrated loss: of the test images, after one "
        "temperature, in runs that were stopped by the same on their validation images, with the "
        "settings that validation accuracy chose; its differences, with their 95 % intervals, are "
        "exploratory. Near an end: within a tenth of the range's end, on a log scale, so that "
        "better values may lie beyond.",
    )  # fmt: skip


def _compared(judgement: Judgement) -> list[str]:
    return [judgement.lead.text(2), f"{judgement.p:.2g}", judgement.verdict]


def _less(settled: pl.DataFrame, each: str, name: str) -> Difference:
    return comparisons.lead(settled, each, name, BASE, CALIBRATED)


def ends(config: Settings, name: str, rate: float, decay: float) -> list[str]:
    """Which of the chosen values are near an end of the member's range."""
    times = MEMBERS[name].times
    tried = {
        "α": (rate / times, config.learning_rates),
        "λ": (decay * times, config.weight_decays),
    }
    return [f"{symbol} {end}" for symbol, of in tried.items() if (end := near_end(*of))]


def state_bytes(config: Settings, name: str) -> float:
    """The bytes of a member's state for each parameter of the network."""
    make = network(data.SIZES[config.data].pixels, config.hidden)
    module = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    params = nnx.as_pure(nnx.state(module, nnx.Param))
    numbers = {"learning_rate": 1e-3, "weight_decay": 0.1}
    made = optimizer(MEMBERS[name], training(1, config.hidden), numbers)
    report = aj.memory_report(made, params)
    return report.bytes / report.parameters

"""By how much one arm leads another, seed by seed, and the verdicts on such comparisons."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl

from experiments.harness.statistics import Difference, holm
from experiments.tuning.measures import STOPPED

BETTER, WORSE, NEGLIGIBLE, UNCLEAR = "better", "worse", "negligible", "unclear"
Comparison = tuple[str, str, str, str]  # a task, the family that may lead, the other, a measure


class Judgement(NamedTuple):
    """A comparison and what it says.

    Attributes:
      task: the name of the task with its schedule.
      ours: the family that may lead.
      base: the family that it is compared with.
      measure: "accuracy" (points) or "calibrated loss".
      lead: by how much `ours` is better, with its interval.
      p: the p-value, corrected for all comparisons that were made.
      matters: the smallest lead that matters.
    """

    task: str
    ours: str
    base: str
    measure: str
    lead: Difference
    p: float
    matters: float

    @property
    def verdict(self) -> str:
        """Better, worse, negligible, both (better, but negligible), or unclear."""
        small = self.lead.negligible(self.matters)
        if not self.p < 0.05:
            return NEGLIGIBLE if small else UNCLEAR
        found = BETTER if self.lead.mean > 0 else WORSE
        return f"{found}, but {NEGLIGIBLE}" if small else found


def lead(
    settled: pl.DataFrame, task: str, ours: str, base: str, measure: str, read: str = STOPPED
) -> Difference:
    """By how much a family's chosen settings are better than another's, seed by seed.

    Args:
      settled: the scores of what was chosen, of all tasks.
      task: the name of the task with its schedule.
      ours: the family that may lead.
      base: the family that it is compared with.
      measure: the measure.
      read: "stopped" or "last".
    """
    rows = settled.filter(
        pl.col("task") == task, pl.col("measure") == measure, pl.col("read") == read
    )
    first, second = (
        rows.filter(pl.col("family") == family).sort("seed")["test"].to_numpy()
        for family in (ours, base)
    )
    return Difference.of(first, second)


def judge(
    settled: pl.DataFrame, asked: Sequence[Comparison], matters: Mapping[str, float]
) -> list[Judgement]:
    """Makes comparisons, and corrects their p-values by Holm.

    Args:
      settled: the scores of what was chosen.
      asked: the comparisons, all that count.
      matters: the smallest lead that matters, by measure.
    """
    leads = [lead(settled, *comparison) for comparison in asked]
    p_values = holm([each.p for each in leads])
    return [
        Judgement(*comparison, each, float(p), matters[comparison[-1]])
        for comparison, each, p in zip(asked, leads, p_values, strict=True)
    ]


def growth(more: Difference, less: Difference) -> Difference:
    """By how much one lead is larger than another, over the seeds that both have."""
    seeds = min(len(more.changes), len(less.changes))
    return Difference.of(more.changes[:seeds], less.changes[:seeds])

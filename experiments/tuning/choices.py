"""Which settings tuning chooses for every family, and how good the best is after some trials."""

from collections.abc import Iterable

import numpy as np
import polars as pl
from scipy.special import comb

from experiments.training.arms import Arm
from experiments.tuning.candidates import CANDIDATE, Candidate
from experiments.tuning.measures import ACCURACY, CALIBRATED, LOSS, STOPPED

# The measure that chooses the settings for each measure.
CHOSEN_BY = {ACCURACY: ACCURACY, CALIBRATED: CALIBRATED, LOSS: CALIBRATED}


def best(scores: pl.DataFrame, count: int) -> pl.DataFrame:
    """The best candidates of every family, by each measure.

    A candidate's score is the mean over the seeds of the validation score of its stopped runs;
    among equals the earlier trial is better.

    Args:
      scores: as the function `scores` returns them.
      count: how many candidates of a family each measure chooses.

    Returns:
      The columns of `CANDIDATE`, `measure` and `validation`, the best first.
    """
    stopped = scores.filter(
        pl.col("read") == STOPPED, pl.col("measure").is_in(set(CHOSEN_BY.values()))
    )
    # Rounded, so that accuracies that are equal but for the rounding of float32 are equal.
    means = stopped.group_by(*CANDIDATE, "measure", maintain_order=True).agg(
        pl.col("validation").mean().round(5)
    )
    ranked = means.sort("validation", descending=True, maintain_order=True)
    return ranked.group_by("family", "measure", maintain_order=True).head(count)


def of(table: pl.DataFrame) -> list[Candidate]:
    """The candidates that the rows of a table name, each once."""
    rows = table.select(CANDIDATE).unique(maintain_order=True).rows()
    return [Candidate(Arm(family, decay, rate), epochs) for family, decay, rate, epochs in rows]


def settled(scores: pl.DataFrame, chosen: pl.DataFrame) -> pl.DataFrame:
    """The scores of what was chosen: by accuracy for accuracy, by calibrated loss for losses."""
    by = pl.col("measure").replace_strict(CHOSEN_BY)
    asked = chosen.select(*CANDIDATE, by=pl.col("measure"))
    on = [*CANDIDATE, "by"]
    return scores.with_columns(by=by).join(asked, on=on, how="semi", maintain_order="left")


def best_so_far(values: Iterable[float]) -> np.ndarray:
    """The expected best of n trials out of all that were made, for n = 1, 2, and so on.

    The expectation is over all choices of n trials (as in Dodge et al., arXiv 1909.03004, but
    without replacement).

    Args:
      values: the score of every trial, float[trials]; −∞ for one that diverged.

    Returns:
      float[trials].
    """
    ascending = np.sort(np.fromiter(values, float))
    trials = len(ascending)
    # Of the subsets of n trials, C(i, n − 1) have the i-th worst, counted from 0, as their best.
    return np.array(
        [
            np.dot(comb(np.arange(n - 1, trials), n - 1) / comb(trials, n), ascending[n - 1 :])
            for n in range(1, trials + 1)
        ]
    )

"""Which settings tuning chooses for every family, and how good the best is after some trials."""

from collections.abc import Iterable

import numpy as np
import polars as pl

from experiments.study.candidates import CANDIDATE, Candidate
from experiments.study.measures import ACCURACY, CALIBRATED, STOPPED
from experiments.training.arms import Arm

CHOSEN_BY = ACCURACY, CALIBRATED


def ranked(scores: pl.DataFrame) -> pl.DataFrame:
    """The candidates of every family by every measure that chooses, the best first.

    The score is the mean over the seeds of the stopped runs' validation scores; among equals the
    earlier trial is first.
    """
    stopped = scores.filter(pl.col("read") == STOPPED, pl.col("measure").is_in(CHOSEN_BY))
    means = stopped.group_by(*CANDIDATE, "measure", maintain_order=True).agg(pl.mean("validation"))
    return means.sort("validation", descending=True, maintain_order=True)


def best(scores: pl.DataFrame, count: int) -> list[Candidate]:
    """The best candidates of every family, as many by accuracy and as many by loss."""
    rows = ranked(scores).group_by("family", "measure", maintain_order=True).head(count)
    return of_rows(rows)


def of_rows(table: pl.DataFrame) -> list[Candidate]:
    """The candidates that a table's rows name, each once."""
    return [
        Candidate(Arm(family, decay, rate), epochs)
        for family, decay, rate, epochs in table.select(CANDIDATE)
        .unique(maintain_order=True)
        .rows()
    ]


def best_so_far(values: Iterable[float]) -> np.ndarray:
    """The expected best of n trials out of all that were made, for n = 1, 2, …

    The expectation is over all subsets of n trials (Dodge et al., arXiv 1909.03004, without
    replacement).

    Args:
      values: the score of every trial.
    """
    ascending = np.sort(np.asarray(list(values), float))
    trials = len(ascending)
    # The i-th smallest is the best of n with probability C(i−1, n−1) / C(trials, n).
    expected = []
    weights = np.ones(trials) / trials
    for n in range(1, trials + 1):
        expected.append(float(weights @ ascending))
        i = np.arange(trials)
        # From C(i, n−1)/C(trials, n) to C(i, n)/C(trials, n+1).
        if n < trials:
            weights = weights * (i - n + 1) / (trials - n) * (n + 1) / n
    return np.array(expected)

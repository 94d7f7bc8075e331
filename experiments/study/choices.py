"""How runs score, which decays are chosen on the validation images, and their test scores."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from experiments.training.arms import ADAMW

ACCURACY, LOSS = METRICS = ("accuracy", "loss")
# What turns a measurement into a score, so that higher is better: percent, or the loss negated.
SCALES: Mapping[str, float] = {ACCURACY: 100, LOSS: -1}
FAMILY = ["trial", "family", "metric"]


def last(table: pl.DataFrame) -> pl.DataFrame:
    """The rows of every run's last evaluation."""
    return table.filter(pl.col("evaluation") == pl.col("evaluation").max().over("trial"))


def scores(table: pl.DataFrame) -> pl.DataFrame:
    """Scores every run by its last evaluation, in a row for "accuracy" and one for "loss".

    Args:
      table: the measurements of trials, as `Trial.table` returns them.

    Returns:
      The columns that describe a run, `metric`, and the scores `validation` and `test`, which are
      NaN where the run diverged.
    """
    ended = last(table)
    described = ended.select(pl.exclude("^(train|validation|test)_.*$", "weight_norm"))
    return pl.concat(
        described.with_columns(
            *(scale * ended[f"{split}_{metric}"].alias(split) for split in ("validation", "test")),
            metric=pl.lit(metric),
        )
        for metric, scale in SCALES.items()
    )


def choose(scores: pl.DataFrame) -> pl.DataFrame:
    """Chooses the decay with the best mean validation score, by trial, family and metric.

    A decay with which a run diverged counts as the worst; among equals the first is chosen.

    Returns:
      The columns `trial`, `family`, `metric` and `decay`.
    """
    means = scores.group_by(*FAMILY, "decay", maintain_order=True).agg(pl.mean("validation"))
    score = pl.col("validation").fill_nan(-float("inf"))
    return means.group_by(*FAMILY, maintain_order=True).agg(pl.col("decay").get(score.arg_max()))


def cross_fit(scores: pl.DataFrame) -> pl.DataFrame:
    """Lets each half of the seeds choose the decays of the other.

    The even seeds choose for the odd ones, and the odd for the even: a lucky run is lucky on both
    validation and test images, and would flatter the decay that it helps to choose. A single seed
    has no other half and chooses for itself.

    Returns:
      The rows of `scores` whose decay is the chosen one, ordered by seed.
    """
    halves = scores.with_columns(half=pl.col("seed") % 2)
    chosen = []
    for half in (0, 1):
        others = halves.filter(pl.col("half") != half)
        made = choose(others if len(others) else scores)
        chosen.append(made.with_columns(half=pl.lit(half, halves["half"].dtype)))
    keys = [*FAMILY, "decay", "half"]
    kept = halves.join(pl.concat(chosen), on=keys, how="semi", maintain_order="left")
    return kept.sort("seed", maintain_order=True)


def rivals(scores: pl.DataFrame, talk: Sequence[float]) -> pl.DataFrame:
    """Chooses AdamW's λ again, once without each value that the talk may have meant.

    Args:
      scores: as the function `scores` returns them.
      talk: the values of λ that the talk may have meant.

    Returns:
      Rows as in `cross_fit`, with two more columns: `against`, the λ that was left out, and `base`,
      its test score with the same seed.
    """
    found = []
    for trial in scores.filter(pl.col("family") == ADAMW).partition_by(
        "trial", maintain_order=True
    ):
        for decay in trial["decay"].unique(maintain_order=True):
            if np.isclose(decay, talk).any():
                base = trial.filter(pl.col("decay") == decay)
                base = base.select("metric", "seed", against="decay", base="test")
                ours = cross_fit(trial.filter(pl.col("decay") != decay))
                found.append(ours.join(base, on=["metric", "seed"], maintain_order="left"))
    # An empty table has the columns even if no λ is the talk's.
    nothing = cross_fit(scores.clear()).with_columns(against=pl.lit(0.0), base=pl.lit(0.0))
    return pl.concat([nothing, *found])

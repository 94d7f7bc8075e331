"""What a run scores: accuracy and loss, where it stopped or at its end, calibrated or not."""

from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from experiments.tuning.candidates import CANDIDATE

RUN = [*CANDIDATE, "seed"]
ACCURACY, CALIBRATED, LOSS = "accuracy", "calibrated loss", "loss"
STOPPED, LAST = "stopped", "last"


class Measure(NamedTuple):
    """What is measured.

    Attributes:
      column: the metric's name after "validation_" or "test_".
      scale: turns a metric into a score, so that higher is better: percent, or a loss negated.
      digits: how many are shown after the point.
    """

    column: str
    scale: float
    digits: int


MEASURES: Mapping[str, Measure] = {
    ACCURACY: Measure("accuracy", 100, 2),
    CALIBRATED: Measure("calibrated_loss", -1, 4),
    LOSS: Measure("loss", -1, 4),
}


def scores(table: pl.DataFrame, every: int) -> pl.DataFrame:
    """Scores every run by every measure, stopped and at its end.

    A stopped run is read at the evaluation with the best validation score by the same measure,
    the earliest of equals.

    Args:
      table: the measurements, as `candidates.table` returns them.
      every: epochs between two evaluations.

    Returns:
      The columns of `RUN`, `measure`, `read` ("stopped" or "last"), `epoch` (at which it was
      read), and the scores `validation` and `test`, where higher is better. A
      score is −∞ from the evaluation at which a run diverged.
    """
    within = table.filter(pl.col("evaluation") * every <= pl.col("epochs"))
    measured = pl.concat(
        within.select(
            *RUN,
            (pl.col("evaluation") * every).alias("epoch"),
            pl.lit(name).alias("measure"),
            *(
                (pl.col(f"{split}_{column}") * scale).fill_nan(-float("inf")).alias(split)
                for split in ("validation", "test")
            ),
        )
        for name, (column, scale, _) in MEASURES.items()
    )
    of_run = measured.group_by(*RUN, "measure", maintain_order=True)
    shown = ["epoch", "validation", "test"]
    best = of_run.agg(pl.col(shown).get(pl.col("validation").arg_max()))
    end = of_run.agg(pl.col(shown).last())
    return pl.concat([best.with_columns(read=pl.lit(STOPPED)), end.with_columns(read=pl.lit(LAST))])

"""The scores of a classifier by which experiments choose, on validation images."""

import math
from collections.abc import Mapping

import polars as pl

LOSS, ERROR = "calibrated loss", "error, %"
# Of each measure, less is better. A run that diverged scores like a guess among the ten classes.
MEASURES: Mapping[str, pl.Expr] = {
    LOSS: pl.col("validation_calibrated_loss").fill_nan(math.log(10)),
    ERROR: 100 * (1 - pl.col("validation_accuracy").fill_nan(0.1)),
}

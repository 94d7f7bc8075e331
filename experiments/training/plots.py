"""How arms look in plots, and the axis that shows any of them over the decay."""

import math
from typing import Any

import numpy as np
import polars as pl

from experiments.harness import plots
from experiments.training.arms import ADAM, ADAMW, L2, PER_STEP, TIMES_RATE

COLORS = {
    ADAM: plots.BLACK,
    L2: plots.VERMILION,
    ADAMW: plots.BLUE,
    TIMES_RATE: plots.BLUE,
    PER_STEP: plots.GREEN,
}
# The names of the families, in words.
NAMES = {
    ADAM: ADAM,
    L2: L2,
    ADAMW: ADAMW,
    TIMES_RATE: "AdamW, decay × learning rate",
    PER_STEP: "AdamW, decay per step",
}
# Points of AdamW's two conventions may coincide: a small square is then inside a large circle.
MARKERS = {L2: ("^", 6), ADAMW: ("o", 6), TIMES_RATE: ("o", 8), PER_STEP: ("s", 4)}


def named(family: str, decay: float) -> str:
    """An arm in words."""
    return NAMES[family] if family == ADAM else f"{NAMES[family]} (λ = {decay:g})"


def over_decay(
    axis: Any, values: pl.DataFrame, steps_per_epoch: int, title: str, span: float = math.inf
) -> None:
    """Draws a quantity over the decay per step, with the timescale τ above.

    Adam, which has no decay, is a dashed line. Bars and band are one standard deviation.

    Args:
      axis: the Matplotlib axis.
      values: a row for each arm and seed: `family`, `decay_per_step` and `value`.
      steps_per_epoch: the number of optimizer steps in an epoch.
      title: the title of the axis.
      span: as `plots.log_y` takes it.
    """
    means = values.group_by("family", "decay_per_step", maintain_order=True).agg(
        mean=pl.mean("value"), sd=pl.std("value")
    )
    adam = means.row(by_predicate=pl.col("family") == ADAM, named=True)
    axis.axhline(adam["mean"], color=COLORS[ADAM], ls="--", label=NAMES[ADAM])
    band = adam["mean"] + np.nan_to_num(adam["sd"] or 0.0) * np.array([-1, 1])
    axis.axhspan(*band, color=COLORS[ADAM], alpha=0.1, lw=0)
    # AdamW without decay is Adam, and a logarithmic axis has no place for it.
    decayed = means.filter(pl.col("family") != ADAM, pl.col("decay_per_step") > 0)
    for (family,), arms in decayed.group_by("family", maintain_order=True):
        _, x, mean, sd = (column.to_numpy() for column in arms.sort("decay_per_step"))
        marker, size = MARKERS[str(family)]
        style = {"marker": marker, "markersize": size, "markerfacecolor": "white", "capsize": 2}
        axis.errorbar(x, mean, sd, color=COLORS[str(family)], label=NAMES[str(family)], **style)
    axis.set(xscale="log", xlabel="decay per step")
    plots.log_y(axis, span)
    axis.set_title(title, pad=12)
    top = axis.secondary_xaxis("top", functions=(plots.inverse(steps_per_epoch),) * 2)
    top.set_xlabel("timescale τ, epochs")

"""One style for all plots."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Okabe and Ito's colors, which color-blind people can tell apart.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#222222", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip

STYLE: dict[str, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "adamw_jax",
}


style.use(STYLE)


def subplots(columns: int, rows: int = 1, height: float = 3.6) -> tuple[Figure, Any]:
    """A figure ten inches wide, and its axes as an array [rows, columns]."""
    # Figure instead of pyplot: no window, no global list of figures, nothing to close.
    figure = Figure(figsize=(10, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def log_y(axis: Any) -> None:
    """Makes the y axis logarithmic, with plain numbers; must be called after all drawing."""
    if axis.dataLim.minposy == math.inf:
        return  # nothing drawn is positive: every run diverged
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    coarse, medium, fine = (1,), (1, 2, 3, 6), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    per_decade = coarse if high / low > 300 else medium if high / low > 6 else fine
    axis.yaxis.set_major_locator(LogLocator(subs=per_decade))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def inverse(steps_per_epoch: int) -> Callable[[Any], np.ndarray]:
    """The function, its own inverse, from a decay per step to its timescale in epochs.

    For Matplotlib's secondary axes.
    """

    def function(x):
        with np.errstate(divide="ignore"):  # Matplotlib also asks for zero
            return 1 / (np.asarray(x, float) * steps_per_epoch)

    return function

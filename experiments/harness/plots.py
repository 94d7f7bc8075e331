"""One style for all plots."""

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy.optimize import isotonic_regression

from experiments.harness.statistics import Difference

# Okabe and Ito's colors, which color-blind people can tell apart.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#222222", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip

CARD = 4.5  # inches

STYLE: dict[str, Any] = {
    "axes.grid": True,
    "axes.labelpad": 5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.titlesize": 17,
    "figure.titleweight": "bold",
    "font.size": 14,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": "medium",
    "lines.linewidth": 2.2,
    "svg.hashsalt": "adamw_jax",
}


style.use(STYLE)


def subplots(
    columns: int, rows: int = 1, height: float = 4.0, width: float = 10.0
) -> tuple[Figure, Any]:
    """A figure and its axes, as an array [rows, columns].

    Args:
      columns: of axes.
      rows: of axes.
      height: of a row, in inches.
      width: of the figure, in inches; a card's is `CARD`.
    """
    # Figure instead of pyplot: no window, no global list of figures, nothing to close.
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def entitle(figure: Figure, title: str) -> None:
    """Writes a title above a whole figure, which grows by as much as the title is high."""
    lines = textwrap.wrap(title, width=int(6.6 * figure.get_figwidth()))
    figure.set_figheight(figure.get_figheight() + 0.32 * len(lines))
    figure.suptitle("\n".join(lines), x=0.01, ha="left")


def label_ends(axis: Any, labels: Sequence[tuple[Line2D, str]]) -> None:
    """Writes names to the right of lines, in their colors; must be called after all drawing.

    Names that would overlap are moved apart, each as little as possible.

    Args:
      axis: the Matplotlib axis.
      labels: lines, drawn from left to right, and their names.
    """
    axis.figure.draw_without_rendering()  # which finds out how large the axis is
    low, high = axis.get_ylim()
    # A line that leaves the axis is named where it does, one that diverged at the top.
    last = [np.asarray(line.get_ydata())[-1] for line, _ in labels]
    ends = np.clip(np.nan_to_num(last, nan=high), low, high)
    transformed = axis.transData.transform([(axis.get_xlim()[1], end) for end in ends])
    heights = 72 / axis.figure.dpi * transformed[:, 1]
    order = np.argsort(heights)
    gaps = 1.2 * STYLE["font.size"] * np.arange(len(order))
    shifts = gaps + isotonic_regression(heights[order] - gaps).x - heights[order]
    for i, shift in zip(order, shifts, strict=True):
        line, text = labels[i]
        axis.annotate(text, (1, ends[i]), (6, shift), ("axes fraction", "data"), "offset points",
                      color=line.get_color(), va="center_baseline")  # fmt: skip


def log_y(axis: Any, span: float = math.inf) -> None:
    """Makes the y axis logarithmic, with plain numbers; must be called after all drawing.

    Args:
      axis: the Matplotlib axis.
      span: the axis ends at so many times the least that is drawn.
    """
    if axis.dataLim.minposy == math.inf:
        return  # nothing drawn is positive: every run diverged
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    high = min(high, span * axis.dataLim.minposy)
    axis.set_ylim(low, high)
    coarse, medium, fine = (1,), (1, 2, 3, 6), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    per_decade = coarse if high / low > 300 else medium if high / low > 6 else fine
    axis.yaxis.set_major_locator(LogLocator(subs=per_decade))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def interval(axis: Any, lead: Difference, y: float, color: str, label: str = "") -> None:
    """Draws a lead as a dot with its interval."""
    axis.plot([lead.low, lead.high], [y, y], color=color, lw=2.5, solid_capstyle="round")
    axis.plot(lead.mean, y, "o", color=color, markersize=8, label=label)


def rows(axis: Any, labels: Sequence[str]) -> None:
    """Puts words on the y axis, the first on top."""
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)


def no_lead(axis: Any, matters: float) -> None:
    """Draws zero, and the band of what is too small to matter."""
    axis.axvline(0, color=BLACK, lw=1)
    axis.axvspan(-matters, matters, color=BLACK, alpha=0.08, lw=0)
    axis.set_title("grey: too small to matter")


def inverse(steps_per_epoch: int) -> Callable[[Any], np.ndarray]:
    """The function, its own inverse, from a decay per step to its timescale in epochs.

    For Matplotlib's secondary axes.
    """

    def function(x):
        with np.errstate(divide="ignore"):  # Matplotlib also asks for zero
            return 1 / (np.asarray(x, float) * steps_per_epoch)

    return function

"""Scores over a hyperparameter, as smooth curves over its logarithm."""

from collections.abc import Sequence

import numpy as np
from scipy import interpolate

FINE = 200


def smooth(
    curves: np.ndarray, values: Sequence[float], points: int = FINE
) -> tuple[np.ndarray, np.ndarray]:
    """Curves on a fine grid of log x, by Akima's interpolation, which hardly overshoots.

    Args:
      curves: scores float[…, n].
      values: the x of each, n positive numbers, ascending.
      points: of the fine grid.

    Returns:
      log x, float64[points], and the curves there, float64[…, points].
    """
    coarse = np.log(values)
    fine = np.linspace(coarse[0], coarse[-1], points)
    return fine, interpolate.Akima1DInterpolator(coarse, curves, axis=-1)(fine)


def optimum(curves: np.ndarray, values: Sequence[float]) -> np.ndarray:
    """Where smooth curves are least: log x, float64[…], for arguments as `smooth` takes them.

    Where a measured score at an end is the least, it is that end, whatever the curve does.
    """
    fine, smoothed = smooth(curves, values)
    least, last = curves.argmin(-1), len(values) - 1
    at_end = (least == 0) | (least == last)
    return np.where(at_end, np.log(values)[least], fine[smoothed.argmin(-1)])

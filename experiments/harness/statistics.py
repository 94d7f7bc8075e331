"""Paired differences: by how much two arms differ, seed by seed."""

from typing import NamedTuple

import numpy as np
from scipy import stats


class Difference(NamedTuple):
    """The mean of paired differences, with its t-interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: np.ndarray, base: np.ndarray, comparisons: int = 1) -> "Difference":
        """Compares two arms seed by seed; with a single seed the interval is unbounded.

        Args:
          ours: the values of one arm, by seed.
          base: the values of the other arm, for the same seeds.
          comparisons: the number of intervals that together cover with 95 % (Bonferroni).
        """
        change = np.asarray(ours, float) - np.asarray(base, float)
        quantile = stats.t.ppf(1 - 0.025 / comparisons, len(change) - 1)
        margin = quantile * stats.sem(change) if len(change) > 1 else np.inf
        return cls(change.mean(), change.mean() - margin, change.mean() + margin)

    @property
    def sign(self) -> int:
        """1 or −1 if zero is outside the interval, otherwise 0."""
        return int(self.low > 0) - int(self.high < 0)

    def text(self, digits: int) -> str:
        """The mean and the interval, rounded."""
        interval = f" [{self.low:+.{digits}f}, {self.high:+.{digits}f}]"
        return f"{self.mean:+.{digits}f}" + (interval if np.isfinite(self.low) else "")

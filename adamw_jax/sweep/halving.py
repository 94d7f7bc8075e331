"""Successive halving: most of the time goes to the runs that do best (arXiv 1502.07943)."""

import itertools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from adamw_jax.sweep.results import DIVERGED, Block


@dataclass(frozen=True)
class Halving:
    """After each rung the better runs go on, packed into full lanes.

    Attributes:
      metric: the name of a scalar metric, whose value after the rung's last advance counts.
      rungs: increasing numbers of advances, after each of which runs are dropped.
      keep: the fraction of the runs that go on, in (0, 1); their number is rounded up.
      largest: whether large values are good, as with an accuracy.

    Raises:
      ValueError: the rungs do not increase from at least 1, or `keep` is outside (0, 1).
    """

    metric: str
    rungs: tuple[int, ...]
    keep: float = 0.5
    largest: bool = False

    def __post_init__(self):
        try:
            rungs = tuple(map(operator.index, self.rungs))
        except TypeError as error:
            raise ValueError(f"rungs are integers in a tuple; got {self.rungs!r}") from error
        if not rungs or any(a >= b for a, b in itertools.pairwise((0, *rungs))):
            raise ValueError(f"rungs must increase from at least 1; got {self.rungs}")
        if not isinstance(self.keep, int | float | np.number) or not 0 < self.keep < 1:
            raise ValueError(f"keep must be in (0, 1); got {self.keep!r}")
        object.__setattr__(self, "rungs", rungs)
        object.__setattr__(self, "keep", float(self.keep))

    def check(self, metrics: Mapping[str, Any], length: int) -> None:
        """Checks that runs with these metrics and this length can be halved.

        Args:
          metrics: the types of the metrics, by name.
          length: how often the shortest run is advanced.

        Raises:
          ValueError: the metric is missing or is not a scalar, or a rung is not before the
            end of the shortest run.
        """
        if self.metric not in metrics:
            raise ValueError(
                f"halving's metric {self.metric!r} is none of {', '.join(map(repr, metrics))}"
            )
        if shape := metrics[self.metric].shape:
            raise ValueError(
                f"halving's metric {self.metric!r} must be a scalar; its shape is {shape}"
            )
        if self.rungs[-1] >= length:
            raise ValueError(
                f"rungs must be less than {length}, the shortest run's length; got {self.rungs}"
            )

    def badness(self, block: Block) -> np.ndarray:
        """How bad the last value of each run is, float64[n]: infinitely, if the run diverged."""
        values = block.metrics[self.metric][block.ends - 1].astype(np.float64)
        lost = (block.status == DIVERGED) | ~np.isfinite(values)
        return np.where(lost, math.inf, -values if self.largest else values)

    def survivors(self, runs: np.ndarray, badness: np.ndarray) -> np.ndarray:
        """The numbers of the runs that go on; among equals, those earlier in the grid.

        Args:
          runs: int[n], the numbers of the runs that took part in the rung. Diverged runs take
            part, but lose; stopped ones keep their last value.
          badness: float64[n], as `badness` tells it.
        """
        return runs[np.lexsort((runs, badness))][: self._going_on(len(runs))]

    def entrants(self, runs: int) -> list[int]:
        """How many runs take part in each rung, and how many train to the end."""
        counts = [runs]
        for _ in self.rungs:
            counts.append(self._going_on(counts[-1]))
        return counts

    def _going_on(self, runs: int) -> int:
        # Rounded first: 0.07 · 100 is a little above 7 in binary.
        return math.ceil(round(self.keep * runs, 6))


class Rung(NamedTuple):
    """A stretch of advances between two comparisons.

    Attributes:
      number: from 0.
      first: how many advances a run has made when the rung begins.
      last: how many it has made when the rung ends; None for all of the run's length.
    """

    number: int
    first: int
    last: int | None

    def advances(self, length: int) -> range:
        """The numbers, from 0, of the advances in this rung, for a run of `length` advances."""
        return range(self.first, self.last or length)


def rungs_of(halving: Halving | None) -> list[Rung]:
    """The rungs of a halving and one more, to the end of the runs; without halving, only that."""
    ends = halving.rungs if halving else ()
    bounds = zip((0, *ends), (*ends, None), strict=True)
    return [Rung(i, first, last) for i, (first, last) in enumerate(bounds)]

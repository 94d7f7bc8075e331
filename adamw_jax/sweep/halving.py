"""Successive halving: most of the time goes to the runs that do best (arXiv 1502.07943)."""

import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from adamw_jax.sweep.results import DIVERGED, Result


class Halving(NamedTuple):
    """After each rung the better runs go on, packed into full lanes.

    Attributes:
      metric: a scalar metric's name; its value after the rung's last advance counts.
      rungs: numbers of advances, increasing, after which runs are dropped.
      keep: share of the runs that goes on, in (0, 1), rounded up.
      largest: whether large values are good ones, as of an accuracy.
    """

    metric: str
    rungs: tuple[int, ...]
    keep: float = 0.5
    largest: bool = False

    def checked(self, shortest: int) -> "Halving":
        """The same, with Python's own integers.

        Raises:
          ValueError: rungs that runs of this length do not reach, or another value.
        """
        try:
            rungs = tuple(map(operator.index, self.rungs))
        except TypeError as error:
            raise ValueError(f"rungs are integers in a tuple; got {self.rungs!r}") from error
        ends = (0, *rungs, shortest)
        if not rungs or any(a >= b for a, b in itertools.pairwise(ends)):
            raise ValueError(
                f"rungs must increase from at least 1 to less than {shortest}, the shortest "
                f"run's length; got {self.rungs}"
            )
        if not 0 < self.keep < 1:
            raise ValueError(f"keep must be in (0, 1); got {self.keep}")
        return self._replace(rungs=rungs, keep=float(self.keep))

    def check_metric(self, metrics: Mapping[str, tuple[int, ...]]) -> None:
        """Refuses a metric that there is not, or that is no scalar; they come with shapes.

        Raises:
          ValueError: naming it.
        """
        if metrics.get(self.metric):
            raise ValueError(
                f"halving's metric {self.metric!r} must be a scalar; its shape is "
                f"{metrics[self.metric]}"
            )
        if self.metric not in metrics:
            raise ValueError(
                f"halving's metric {self.metric!r} is none of {', '.join(map(repr, metrics))}"
            )

    def survivors(self, results: Sequence[Result], advances: int) -> set[int]:
        """The runs that go on; ties go to the earlier one.

        Args:
          results: those that took part in the rung, which may have gone on already.
            Diverged ones count, but lose; stopped ones count with their last value.
          advances: after how many they are compared.
        """

        def badness(result: Result) -> tuple[float, int]:
            made = min(advances, len(result.advance))
            value = float(result.metrics[self.metric][made - 1])
            lost = result.status == DIVERGED and made == len(result.advance)
            lost = lost or not np.isfinite(value)
            return math.inf if lost else -value if self.largest else value, result.run

        ranked = sorted(results, key=badness)
        kept = ranked[: self._kept(len(ranked))]
        return {result.run for result in kept}

    def entrants(self, runs: int) -> list[int]:
        """How many runs take part in each rung and in the rest."""
        counts = [runs]
        for _ in self.rungs:
            counts.append(self._kept(counts[-1]))
        return counts

    def _kept(self, runs: int) -> int:
        # Rounded first: 0.07 · 100 is a little above 7 in binary.
        return math.ceil(round(self.keep * runs, 6))

"""The result of a run: its history and how it ended."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from adamw_jax.sweep.grid import Row

FINISHED, DIVERGED, STOPPED, DROPPED, RUNNING = (
    "finished", "diverged", "stopped", "dropped", "running",
)  # fmt: skip


class Result(NamedTuple):
    """A run and its history.

    Attributes:
      run: the number, from 0, of the run's row in the grid.
      settings: that row.
      advance: int32[n], the numbers of the calls of `advance`, from 1.
      metrics: arrays [n, …] by name.
      status: the run's state after the last of the advances: "finished"; "diverged"; "stopped"
        by `until`; "dropped" by halving; or "running", between two rungs.
      lanes: how many runs were side by side on a device.
      device: the kind of device; for a CPU its name and how many threads it has, such as
        "AMD EPYC 7763 64-Core Processor, 2 threads".
      seconds: the run's part of the wall time.
      compile_seconds: the time to compile its program, which all runs of the program share.
    """

    run: int
    settings: Row
    advance: np.ndarray
    metrics: Mapping[str, np.ndarray]
    status: str
    lanes: int
    device: str
    seconds: float
    compile_seconds: float

    def final(self, metric: str) -> Any:
        """A metric's last value."""
        return self.metrics[metric][-1]

    def history(self, metric: str, length: int) -> np.ndarray:
        """A metric's values, float64[length, …]; NaN where the run diverged and after it ended."""
        values = np.array(self.metrics[metric], np.float64)
        if self.status == DIVERGED:
            values[-1] = np.nan
        missing = np.full((length - len(values), *values.shape[1:]), np.nan)
        return np.concatenate([values, missing])

    def at_best(self, metric: str, *, highest: bool = False) -> dict[str, Any]:
        """All metrics after the advance at which one was least or highest; NaN is neither.

        Returns:
          The metrics by name, and the number of that advance as "advance".

        Raises:
          ValueError: the metric was NaN after every advance.
        """
        choose = np.nanargmax if highest else np.nanargmin
        best = int(choose(self.metrics[metric]))
        return {k: v[best] for k, v in self.metrics.items()} | {"advance": int(self.advance[best])}

    def followed_by(self, later: "Result") -> "Result":
        """Joins this part of a run and the part that follows it."""
        metrics = {k: np.concatenate([v, later.metrics[k]]) for k, v in self.metrics.items()}
        return later._replace(
            advance=np.concatenate([self.advance, later.advance]),
            metrics=metrics,
            seconds=self.seconds + later.seconds,
            compile_seconds=max(self.compile_seconds, later.compile_seconds),
        )


def joined(parts: Iterable[Result]) -> list[Result]:
    """Joins the parts of each run, in the order of the grid.

    A part is left out if the one before it is missing.
    """
    runs: dict[int, Result] = {}
    for part in sorted(parts, key=lambda part: (part.run, part.advance[0])):
        before = runs.get(part.run)
        if before is None and part.advance[0] == 1:
            runs[part.run] = part
        elif before is not None and part.advance[0] == before.advance[-1] + 1:
            runs[part.run] = before.followed_by(part)
    return list(runs.values())

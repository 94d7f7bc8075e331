"""The results of runs: their histories and how they ended."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

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


class Block(NamedTuple):
    """Results of some runs in columns, which take little memory.

    Attributes:
      rows: the settings of each run.
      run: int32[n], their numbers.
      counts: int32[n], how many advances each has.
      advance: int32[advances], those of the first run, then those of the second, and so on.
      metrics: arrays [advances, …] by name.
      status: object[n], as are the others: see `Result`.
      lanes: int32[n].
      device: object[n].
      seconds: float64[n].
      compile_seconds: float64[n].
    """

    rows: Sequence[Row]
    run: np.ndarray
    counts: np.ndarray
    advance: np.ndarray
    metrics: Mapping[str, np.ndarray]
    status: np.ndarray
    lanes: np.ndarray
    device: np.ndarray
    seconds: np.ndarray
    compile_seconds: np.ndarray

    @classmethod
    def of(cls, results: Sequence[Result]) -> "Block":
        """The columns of results, which have the same metrics."""
        return cls(
            [result.settings for result in results],
            np.array([result.run for result in results], np.int32),
            np.array([len(result.advance) for result in results], np.int32),
            np.concatenate([result.advance for result in results]),
            {
                name: np.concatenate([result.metrics[name] for result in results])
                for name in results[0].metrics
            },
            np.array([result.status for result in results], object),
            np.array([result.lanes for result in results], np.int32),
            np.array([result.device for result in results], object),
            np.array([result.seconds for result in results], np.float64),
            np.array([result.compile_seconds for result in results], np.float64),
        )

    @property
    def ends(self) -> np.ndarray:
        """int64[n], where each run's advances end."""
        return np.cumsum(self.counts, dtype=np.int64)

    def results(self) -> list[Result]:
        """A result for each run."""
        own = (self.status, self.lanes, self.device, self.seconds, self.compile_seconds)
        columns = zip(
            self.run.tolist(), self.rows, *(column.tolist() for column in own), strict=True
        )
        bounds = itertools.pairwise([0, *self.ends.tolist()])
        return [
            Result(run, row, self.advance[a:b], {k: v[a:b] for k, v in self.metrics.items()}, *rest)
            for (run, row, *rest), (a, b) in zip(columns, bounds, strict=True)
        ]

    def taken(self, chosen: np.ndarray) -> "Block":
        """The results at some places, int[m]."""
        count = self.counts[chosen]
        first = np.cumsum(count, dtype=np.int64) - count
        # For each advance, its place in the run, after the place where the run's advances begin.
        within = np.arange(count.sum()) - np.repeat(first, count)
        places = np.repeat(self.ends[chosen] - count, count) + within
        return Block(
            [self.rows[i] for i in chosen],
            self.run[chosen],
            count,
            self.advance[places],
            {name: values[places] for name, values in self.metrics.items()},
            self.status[chosen],
            self.lanes[chosen],
            self.device[chosen],
            self.seconds[chosen],
            self.compile_seconds[chosen],
        )

    @classmethod
    def joined(cls, parts: Sequence["Block"]) -> "Block":
        """Joins the parts of each run, given in the order of its advances, and sorts the runs."""

        def all_of(column):
            return np.concatenate([getattr(part, column) for part in parts])

        each, advance = np.repeat(all_of("run"), all_of("counts")), all_of("advance")
        order = np.lexsort((advance, each))
        run, first, inverse = np.unique(all_of("run"), return_index=True, return_inverse=True)
        last = np.empty_like(first)
        last[inverse] = np.arange(len(inverse))  # where a run is assigned twice, the later counts
        rows = [row for part in parts for row in part.rows]
        compile_seconds = np.zeros(len(run))
        np.maximum.at(compile_seconds, inverse, all_of("compile_seconds"))
        return cls(
            [rows[i] for i in first],
            run,
            np.bincount(inverse, all_of("counts")).astype(np.int32),
            advance[order],
            {
                name: np.concatenate([part.metrics[name] for part in parts])[order]
                for name in parts[0].metrics
            },
            all_of("status")[last],
            all_of("lanes")[last],
            all_of("device")[last],
            np.bincount(inverse, all_of("seconds")),
            compile_seconds,
        )


class Results(Sequence[Result]):
    """A result for each run, made when it is asked for.

    Args:
      load: gives a block by its number.
      runs: for each block, the numbers of its runs, int[n].
    """

    def __init__(self, load: Callable[[int], Block], runs: Sequence[np.ndarray]):
        self._load, self._runs = functools.lru_cache(maxsize=4)(load), runs
        which = np.repeat(np.arange(len(runs)), [len(each) for each in runs])
        place = np.concatenate([np.empty(0, int), *(np.arange(len(each)) for each in runs)])
        order = np.argsort(np.concatenate([np.empty(0, int), *runs]), kind="stable")
        self._which, self._place = which[order], place[order]
        self._made = functools.lru_cache(maxsize=4)(lambda block: self._load(block).results())

    def blocks(self) -> Iterator[Block]:
        """The blocks, one after another."""
        return map(self._load, range(len(self._runs)))

    def __len__(self) -> int:
        return len(self._which)

    @overload
    def __getitem__(self, index: int) -> Result: ...

    @overload
    def __getitem__(self, index: slice) -> list[Result]: ...

    def __getitem__(self, index: int | slice) -> Result | list[Result]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._made(int(self._which[index]))[self._place[index]]

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # a copy, and what is unpickled, is a list

    def __repr__(self) -> str:
        return f"<the results of {len(self)} runs>"

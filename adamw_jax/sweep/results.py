"""What came of a run, and the tidy table of all runs."""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import numpy as np

from adamw_jax.sweep.grid import Row, is_number
from adamw_jax.version import __version__

FINISHED, DIVERGED, STOPPED, DROPPED, RUNNING = (
    "finished", "diverged", "stopped", "dropped", "running",
)  # fmt: skip
# The table's columns besides settings and metrics.
COLUMNS = (
    "run", "advance", "status", "lanes", "device", "seconds", "compile_seconds",
    "python_version", "jax_version", "jaxlib_version", "adamw_jax_version",
)  # fmt: skip


class Result(NamedTuple):
    """A run and its history.

    Attributes:
      run: its place in the grid.
      settings: its row of the grid.
      advance: int32[n], the numbers of the calls of `advance`, from 1.
      metrics: arrays [n, …] by name.
      status: "finished"; "diverged", at the last of the advances; "stopped" there by
        `until`; "dropped" there by halving; or "running", between two rungs.
      lanes: how many runs stood side by side on a device.
      device: its kind.
      seconds: the run's share of the wall time.
      compile_seconds: what compiling its program took; other runs share it.
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
        """A metric's values, float64[length, …]; NaN after the run's end, and where it diverged."""
        values = np.array(self.metrics[metric], np.float64)
        if self.status == DIVERGED:
            values[-1] = np.nan
        missing = np.full((length - len(values), *values.shape[1:]), np.nan)
        return np.concatenate([values, missing])

    def followed_by(self, later: "Result") -> "Result":
        """The two parts of a run as one."""
        metrics = {k: np.concatenate([v, later.metrics[k]]) for k, v in self.metrics.items()}
        return later._replace(
            advance=np.concatenate([self.advance, later.advance]),
            metrics=metrics,
            seconds=self.seconds + later.seconds,
            compile_seconds=max(self.compile_seconds, later.compile_seconds),
        )


def joined(parts: Iterable[Result]) -> list[Result]:
    """One result for each run, in the order of the grid, as far as its advances are known.

    A part before which one is missing does not count: its run is not there yet.
    """
    runs: dict[int, Result] = {}
    for part in sorted(parts, key=lambda part: (part.run, part.advance[0])):
        before = runs.get(part.run)
        if before is None and part.advance[0] == 1:
            runs[part.run] = part
        elif before is not None and part.advance[0] == before.advance[-1] + 1:
            runs[part.run] = before.followed_by(part)
    return list(runs.values())


def dependencies() -> dict[str, str]:
    """The versions of what decides a result."""
    return {
        "jax_version": jax.__version__,
        "jaxlib_version": version("jaxlib"),
        "adamw_jax_version": __version__,
    }


def versions() -> dict[str, str]:
    """The same, and of Python."""
    return {"python_version": platform.python_version(), **dependencies()}


def to_table(results: Sequence[Result]) -> Any:
    """The results as a tidy `pyarrow.Table`: a row for every advance of every run.

    Columns are `run`, the settings, `advance`, the metrics, `status`, `lanes`, `device`,
    `seconds` and `compile_seconds` (of the whole run) and the versions. Metrics that are
    arrays are nested lists of a fixed size, floats shorter than 32 bits become float32,
    and settings that are tuples JSON.

    Raises:
      ValueError: runs have different metrics.
    """
    import pyarrow as pa

    check_alike({name: value[0] for name, value in result.metrics.items()} for result in results)
    counts = [len(result.advance) for result in results]

    def repeated(values):
        return pa.array(values).take(pa.array(np.repeat(np.arange(len(values)), counts)))

    own = ("run", "status", "lanes", "device", "seconds", "compile_seconds")
    each = {name: repeated([getattr(result, name) for result in results]) for name in own}
    settings = {
        name: repeated(_column([result.settings[name] for result in results]))
        for name in results[0].settings
    }
    metrics = {
        name: _nested(pa, np.concatenate([result.metrics[name] for result in results]))
        for name in results[0].metrics
    }
    advance = pa.array(np.concatenate([result.advance for result in results]))
    constant = {name: repeated([text] * len(results)) for name, text in versions().items()}
    columns = {"run": each.pop("run"), **settings, "advance": advance, **metrics, **each}
    return pa.table({**columns, **constant})


def from_table(table: Any, rows: Sequence[Row]) -> list[Result]:
    """The results in a table, which holds every run's rows together and in order."""
    runs = table["run"].to_numpy()
    begins = np.flatnonzero(np.diff(runs, prepend=-1))
    settings = rows[0].keys()
    names = [n for n in table.column_names if n not in COLUMNS and n not in settings]
    metrics = {name: _array(table[name].combine_chunks()) for name in names}
    advance = table["advance"].to_numpy()
    first = table.take(begins).select([c for c in COLUMNS if c != "advance"]).to_pylist()
    return [
        Result(
            row["run"], rows[row["run"]], advance[a:b], {k: v[a:b] for k, v in metrics.items()},
            row["status"], row["lanes"], row["device"], row["seconds"], row["compile_seconds"],
        )
        for row, a, b in zip(first, begins, [*begins[1:], len(runs)], strict=True)
    ]  # fmt: skip


def check_alike(runs: Iterable[Mapping[str, Any]]) -> None:
    """Refuses runs whose metrics do not fit into one table.

    Args:
      runs: of each the metrics of an advance, arrays or their types.

    Raises:
      ValueError: naming the first metric that differs.
    """
    first: dict[str, Any] | None = None
    for metrics in runs:
        types = {name: (str(x.dtype), tuple(x.shape)) for name, x in metrics.items()}
        first = types if first is None else first
        for name in {**first, **types}:
            if first.get(name) != types.get(name):
                one, other = (
                    f"{of[name][0]}{list(of[name][1])}" if name in of else "not there"
                    for of in (first, types)
                )
                raise ValueError(
                    "all runs of a table have the same metrics, but with other static settings "
                    f"the metric {name!r} is {one} and {other}"
                )


def check_names(settings: Iterable[str], metrics: Iterable[str]) -> None:
    """Refuses names that would meet in one column.

    Raises:
      ValueError: naming the first.
    """
    settings = set(settings)
    for name in metrics:
        if name in settings:
            raise ValueError(f"{name!r} is both a setting and a metric; rename one")
    for name in (*settings, *metrics):
        if name in COLUMNS:
            raise ValueError(f"the name {name!r} is the table's own; rename the setting or metric")


def _column(values: list[Any]) -> list[Any]:
    """Values of one type: numbers, strings or bools as they are, all else as JSON."""
    if all(is_number(value) for value in values):
        return values if all(isinstance(v, int) for v in values) else list(map(float, values))
    kinds = {type(value) for value in values if value is not None}
    return values if kinds in ({str}, {bool}, set()) else [json.dumps(value) for value in values]


def _nested(pa: Any, values: np.ndarray) -> Any:
    if values.dtype.kind not in "biuf" or values.dtype == np.float16:
        values = values.astype(np.float32)  # bfloat16 and its like, which tables do not know
    column = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in reversed(values.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, size)
    return column


def _array(column: Any) -> np.ndarray:
    shape = []
    while hasattr(column.type, "list_size"):
        shape.append(column.type.list_size)
        column = column.flatten()
    return column.to_numpy(zero_copy_only=False).reshape(-1, *shape)

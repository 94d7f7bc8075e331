"""The tidy table of all runs, as Arrow and as Parquet."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from adamw_jax.sweep.files import damage, digest
from adamw_jax.sweep.folder import Folder
from adamw_jax.sweep.grid import Row, is_number
from adamw_jax.sweep.manifest import versions
from adamw_jax.sweep.results import Result

# The columns that are neither settings nor metrics.
COLUMNS = (
    "run", "advance", "status", "lanes", "device", "seconds", "compile_seconds",
    "python_version", "jax_version", "jaxlib_version", "adamw_jax_version",
)  # fmt: skip
# The metadata key under which a Parquet file says which sweep it belongs to.
ORIGIN = b"adamw_jax.sweep"


def to_table(results: Sequence[Result]) -> Any:
    """The results as a tidy `pyarrow.Table`: a row for every advance of every run.

    Columns are `run`, the settings, `advance`, the metrics, `status`, `lanes`, `device`,
    `seconds` and `compile_seconds` (of the whole run) and the versions. Metrics that are
    arrays are nested lists of a fixed size, floats shorter than 32 bits become float32,
    and settings that are tuples become JSON.

    Raises:
      ValueError: the runs have different metrics.
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
    """The results in a table; the rows of each run must be together and in order."""
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


def encoded(results: Sequence[Result], origin: Mapping[str, Any]) -> bytes:
    """The content of a Parquet file with the table of the results and the sweep they belong to."""
    import pyarrow.parquet as pq

    buffer, table = io.BytesIO(), to_table(results)
    table = table.replace_schema_metadata({ORIGIN: json.dumps(origin)})
    pq.write_table(table, buffer, write_page_checksum=True)
    return buffer.getvalue()


def decoded(
    content: bytes, path: str, told: str | None, rows: Sequence[Row], sweep: str | None = None
) -> list[Result]:
    """The results in a Parquet file.

    Args:
      content: the file's content.
      path: its path or address, for messages.
      told: the digest that it must have; None if that is not known.
      rows: the grid.
      sweep: the name of the sweep, which the file must not deny; None for any.

    Raises:
      StoreError: the file is damaged.
    """
    with damage(path, "its runs are done again"):
        if told not in (None, digest(content)):
            raise ValueError("it is not what was written")
        file = _file(content)
        if sweep not in (None, _origin(file).get("sweep", sweep)):
            raise ValueError("it is another sweep's")
        return from_table(file.read(), rows)


def read_origin(folder: Folder, name: str) -> dict[str, Any]:
    """Reads which sweep a Parquet file belongs to, and its layouts; empty if it does not say.

    Raises:
      StoreError: the file is damaged.
    """
    content = folder.read(name)
    with damage(folder.path(name), "its runs are done again"):
        return _origin(_file(content))


def _origin(file: Any) -> dict[str, Any]:
    metadata = file.schema_arrow.metadata or {}
    return json.loads(metadata.get(ORIGIN, b"{}"))


def _file(content: bytes) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)


def check_alike(runs: Iterable[Mapping[str, Any]]) -> None:
    """Checks that the metrics of all runs fit into one table.

    Args:
      runs: for each run, the metrics of an advance, as arrays or their types, by name.

    Raises:
      ValueError: a metric differs; the message names the first one.
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
    """Checks that settings, metrics and the table's own columns have different names.

    Raises:
      ValueError: a name is used twice; the message names the first one.
    """
    settings = set(settings)
    for name in metrics:
        if name in settings:
            raise ValueError(f"{name!r} is both a setting and a metric; rename one")
    for name in (*settings, *metrics):
        if name in COLUMNS:
            raise ValueError(f"the name {name!r} is the table's own; rename the setting or metric")


def _column(values: list[Any]) -> list[Any]:
    """Values of one type: numbers, strings and bools unchanged, everything else as JSON."""
    if all(is_number(value) for value in values):
        return values if all(isinstance(v, int) for v in values) else list(map(float, values))
    types = {type(value) for value in values if value is not None}
    return values if types in ({str}, {bool}, set()) else [json.dumps(value) for value in values]


def _nested(pa: Any, values: np.ndarray) -> Any:
    if values.dtype.kind not in "biuf" or values.dtype == np.float16:
        values = values.astype(np.float32)  # bfloat16 and the like, which tables cannot hold
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

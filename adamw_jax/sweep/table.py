"""The tidy table of all runs, as an Arrow table."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from adamw_jax.sweep.grid import Row, is_number
from adamw_jax.sweep.manifest import versions
from adamw_jax.sweep.results import Block, Result, Results

# The columns that are neither settings nor metrics.
COLUMNS = (
    "run", "advance", "status", "lanes", "device", "seconds", "compile_seconds",
    "python_version", "jax_version", "jaxlib_version", "adamw_jax_version",
)  # fmt: skip


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

    if isinstance(results, Results):
        blocks = list(results.blocks())
        check_alike({name: x[0] for name, x in block.metrics.items()} for block in blocks)
    else:
        check_alike({name: x[0] for name, x in result.metrics.items()} for result in results)
        blocks = [Block.of(results)]
    settings = setting_columns([row for block in blocks for row in block.rows])
    ends = np.cumsum([len(block.run) for block in blocks])
    tables = [
        block_table(block, settings, np.arange(end - len(block.run), end))
        for block, end in zip(blocks, ends, strict=True)
    ]
    return pa.concat_tables(tables).combine_chunks()


def setting_columns(rows: Sequence[Row]) -> dict[str, Any]:
    """The settings of all rows as Arrow arrays, by name."""
    import pyarrow as pa

    return {name: pa.array(_column([row[name] for row in rows])) for name in rows[0]}


def setting_keys(columns: Mapping[str, Any], names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The settings of each row, as a table has them, in the order of some names."""
    return list(zip(*(columns[name].to_pylist() for name in names), strict=True))


def block_table(block: Block, settings: Mapping[str, Any], places: np.ndarray) -> Any:
    """The table of a block.

    Args:
      block: the results.
      settings: as from `setting_columns`.
      places: int[n], where in them the settings of each run are.
    """
    import pyarrow as pa

    which = np.repeat(np.arange(len(block.run)), block.counts)
    places = pa.array(places[which])

    def repeated(values):
        return pa.array(values).take(pa.array(which))

    columns = {
        "run": repeated(block.run.astype(np.int64)),
        **{name: column.take(places) for name, column in settings.items()},
        "advance": pa.array(block.advance),
        **{name: _nested(pa, values) for name, values in block.metrics.items()},
        "status": repeated(block.status),
        "lanes": repeated(block.lanes.astype(np.int64)),
        "device": repeated(block.device),
        "seconds": repeated(block.seconds),
        "compile_seconds": repeated(block.compile_seconds),
    }
    constant = {name: pa.repeat(text, len(which)) for name, text in versions().items()}
    return pa.table({**columns, **constant})


def from_table(table: Any, rows: Sequence[Row]) -> Block:
    """The results in a table; the rows of each run must be together and in order."""
    runs = table["run"].to_numpy()
    begins = np.flatnonzero(np.diff(runs, prepend=-1))
    settings = rows[0].keys()
    names = [n for n in table.column_names if n not in COLUMNS and n not in settings]
    each = table.select(["status", "lanes", "device", "seconds", "compile_seconds"]).take(begins)
    status, lanes, device, seconds, compile_seconds = (column.to_numpy() for column in each.columns)
    return Block(
        [rows[run] for run in runs[begins]],
        runs[begins].astype(np.int32),
        np.diff(begins, append=len(runs)).astype(np.int32),
        table["advance"].to_numpy(),
        {name: _array(table[name].combine_chunks()) for name in names},
        status.astype(object),
        lanes.astype(np.int32),
        device.astype(object),
        seconds,
        compile_seconds,
    )


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

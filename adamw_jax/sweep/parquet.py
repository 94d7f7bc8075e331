"""Parquet files with the tables of sweeps, each of which says which sweep it belongs to."""

import functools
import io
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from adamw_jax.sweep.files import damage, digest
from adamw_jax.sweep.folder import Folder
from adamw_jax.sweep.grid import Row
from adamw_jax.sweep.results import Block, Results
from adamw_jax.sweep.table import from_table, setting_keys

# The metadata key under which a Parquet file says which sweep it belongs to.
ORIGIN = b"adamw_jax.sweep"


def encoded(tables: Iterable[Any], origin: Mapping[str, Any]) -> bytes:
    """The content of a Parquet file with tables, each of which becomes a row group.

    Args:
      tables: at least one, as from `block_table`.
      origin: the sweep that they belong to.
    """
    import pyarrow.parquet as pq

    buffer, writer = io.BytesIO(), None
    for table in tables:
        table = table.replace_schema_metadata({ORIGIN: json.dumps(origin)})
        writer = writer or pq.ParquetWriter(buffer, table.schema, write_page_checksum=True)
        writer.write_table(table, row_group_size=len(table))
    if writer is None:
        raise ValueError("there are no results")
    writer.close()
    return buffer.getvalue()


def decoded(
    content: bytes, path: str, told: str | None, rows: Sequence[Row], sweep: str | None = None
) -> Block:
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


def results(content: bytes, path: str, told: str | None, rows: Sequence[Row]) -> Results:
    """The results in a Parquet file, whose row groups are decoded when they are asked for.

    Args:
      content: the file's content.
      path: its path or address, for messages.
      told: the digest that it must have; None if that is not known.
      rows: the grid.

    Raises:
      StoreError: the file is damaged.
    """
    damaged = functools.partial(damage, path, "its runs are done again")
    with damaged():
        if told not in (None, digest(content)):
            raise ValueError("it is not what was written")
        file = _file(content)
        groups = [file.read_row_group(i, ["run"])["run"] for i in range(file.num_row_groups)]
        runs = [np.unique(group.to_numpy()) for group in groups]
        if any(a[-1] >= b[0] for a, b in itertools.pairwise(runs)):
            # Older versions wrote groups that end in the midst of a run.
            whole = from_table(file.read(), rows)
            return Results([whole].__getitem__, [whole.run])

    def load(group: int) -> Block:
        with damaged():
            return from_table(file.read_row_group(group), rows)

    return Results(load, runs)


def keys_of(
    content: bytes, path: str, told: str | None, names: Sequence[str]
) -> list[tuple[Any, ...]]:
    """The settings of each run in a Parquet file that holds all runs of a sweep.

    Args:
      content: the file's content.
      path: its path or address, for messages.
      told: the digest that it must have; None if that is not known.
      names: of the settings.

    Raises:
      StoreError: the file is damaged.
    """
    with damage(path, "its runs are done again"):
        if told not in (None, digest(content)):
            raise ValueError("it is not what was written")
        found = _file(content).read(["run", *names])
        first = np.unique(found["run"].to_numpy(), return_index=True)[1]
        rows = found.take(first)
        return setting_keys({name: rows[name] for name in names}, names)


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

"""Finished sweeps in a cache directory, found by their grids."""

import json
from collections.abc import Sequence
from pathlib import Path

from adamw_jax.sweep.grid import Row, normalized
from adamw_jax.sweep.results import Result
from adamw_jax.sweep.store import Store, description


def kept(cache: str | Path, grid: Sequence[Row]) -> list[Result] | None:
    """Reads the results of a finished sweep of a grid, whatever it trained.

    Unlike `sweep`, this neither traces nor compiles anything: program, data, options and
    versions may have been other ones.

    Args:
      cache: the directory that was given to `sweep` as `cache`.
      grid: the rows of settings.

    Returns:
      A result for each row, of the newest such sweep; None where there is none.

    Raises:
      StoreError: the results are damaged.
    """
    rows = normalized(grid)
    asked = description(rows)["grid"]
    tables = sorted(Path(cache).glob("*/results.parquet"), key=lambda path: path.stat().st_mtime)
    for table in reversed(tables):
        manifest = json.loads((table.parent / "sweep.json").read_text())
        if manifest["grid"] == asked:
            return Store(table.parent, rows, manifest).read()
    return None

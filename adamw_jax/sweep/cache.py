"""A cache: a directory in which every sweep has a subdirectory of its own."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adamw_jax.sweep import manifest, table
from adamw_jax.sweep.grid import Row, normalized
from adamw_jax.sweep.results import Result


def kept(
    cache: str | Path, grid: Sequence[Row], identity: Mapping[str, Any] | None = None
) -> list[Result] | None:
    """Reads the results of a finished sweep of a grid, whatever it trained.

    Unlike `sweep`, this needs no program, and traces and compiles nothing: the sweep may have
    had any functions, data, options and versions.

    Args:
      cache: the directory that was given to `sweep` as `cache`.
      grid: the rows of settings.
      identity: the `identity` that was given to `sweep`; None if any will do.

    Returns:
      A result for each row, from the newest such sweep; None if there is none.

    Raises:
      StoreError: the results are damaged.
    """
    rows = normalized(grid)
    asked = manifest.describe_grid(rows)
    tables = sorted(Path(cache).glob("*/results.parquet"), key=lambda path: path.stat().st_mtime)
    for path in reversed(tables):
        try:
            found = manifest.read(path.with_name("sweep.json"))
        except (FileNotFoundError, manifest.ManifestError) as error:
            warnings.warn(f"{path} is left out: {error}", stacklevel=2)
            continue
        described = found.description
        if described["grid"] == asked and identity in (None, described["identity"]):
            return table.read(path, found.table, rows)
    return None

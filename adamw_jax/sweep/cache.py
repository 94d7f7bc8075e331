"""A cache: a directory in which every sweep has a subdirectory of its own."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adamw_jax.sweep import manifest, parquet
from adamw_jax.sweep.claim import TABLE
from adamw_jax.sweep.folder import opened
from adamw_jax.sweep.grid import Row, normalized
from adamw_jax.sweep.results import Results


def kept(
    cache: str | Path, grid: Sequence[Row], identity: Mapping[str, Any] | None = None
) -> Results | None:
    """Reads the results of a finished sweep of a grid, whatever it trained.

    Unlike `sweep`, this needs no program, and traces and compiles nothing: the sweep may have
    had any functions, data, options and versions.

    Args:
      cache: the directory or address that was given to `sweep` as `cache`.
      grid: the rows of settings.
      identity: the `identity` that was given to `sweep`; None if any will do.

    Returns:
      A result for each row, from the newest such sweep; None if there is none.

    Raises:
      StoreError: the results are damaged, or the object store cannot be read.
    """
    rows = normalized(grid)
    asked = manifest.describe_grid(rows)
    for folder in reversed(opened(cache).holding(TABLE)):
        try:
            found = manifest.read(folder)
        except (FileNotFoundError, manifest.ManifestError) as error:
            warnings.warn(f"{folder.path(TABLE)} is left out: {error}", stacklevel=2)
            continue
        described = found.description
        if described["grid"] == asked and identity in (None, described["identity"]):
            return parquet.results(folder.read(TABLE), folder.path(TABLE), found.table, rows)
    return None

"""A table of an optimizer's state: how many bytes each part takes, before any is allocated."""

import math
from collections import defaultdict
from typing import NamedTuple

import jax
import optax

from adamw_jax.combine import check_transformations
from adamw_jax.reports.tables import printed


class MemoryRow(NamedTuple):
    """One part of a state: a tree like the parameters, or a single array.

    Attributes:
      part: where it is in the state, as an expression.
      dtypes: the dtypes of its arrays, the one with the most bytes first.
      size: how many numbers it holds.
      bytes: how many bytes they take.
    """

    part: str
    dtypes: tuple[str, ...]
    size: int
    bytes: int


class MemoryReport(NamedTuple):
    """What `memory_report` found; prints as a table.

    Attributes:
      rows: the parts of the state, in order.
      parameters: how many numbers the parameters hold.
    """

    rows: tuple[MemoryRow, ...]
    parameters: int

    @property
    def bytes(self) -> int:
        """How many bytes the state takes."""
        return sum(row.bytes for row in self.rows)

    def __str__(self) -> str:
        def cells(name, dtypes, size, taken):
            each = taken / self.parameters if self.parameters else math.nan
            return name, ", ".join(dtypes), f"{size:,}", f"{taken:,}", f"{each:.3f}"

        head = "part of the state", "dtypes", "numbers", "bytes", "bytes per parameter"
        total = cells("all", (), sum(row.size for row in self.rows), self.bytes)
        return printed(head, [*(cells(*row) for row in self.rows), total])


def memory_report(optimizer: optax.GradientTransformation, params: optax.Params) -> MemoryReport:
    """Says how many bytes each part of an optimizer's state takes; nothing is allocated.

    Args:
      optimizer: any Optax transformation.
      params: the parameters, or a tree with their shapes and dtypes (`jax.eval_shape`).

    Returns:
      A report, to be printed.

    Raises:
      ValueError: the optimizer is not a gradient transformation.
    """
    check_transformations("memory_report", [optimizer])
    shapes, state = jax.eval_shape(lambda tree: (tree, optimizer.init(tree)), params)
    paths = {path for path, _ in jax.tree_util.tree_leaves_with_path(shapes)}
    parts: dict[str, list[jax.ShapeDtypeStruct]] = defaultdict(list)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        # A leaf belongs to a tree like the parameters if its path ends in that of a parameter.
        length = next((i for i in range(len(path)) if path[i:] in paths), len(path))
        parts[f"state{jax.tree_util.keystr(path[:length])}"].append(leaf)
    rows = tuple(_row(part, leaves) for part, leaves in parts.items())
    return MemoryReport(rows, sum(leaf.size for leaf in jax.tree.leaves(shapes)))


def _row(part: str, leaves: list[jax.ShapeDtypeStruct]) -> MemoryRow:
    taken: dict[str, int] = defaultdict(int)
    for leaf in leaves:
        taken[str(leaf.dtype)] += leaf.size * leaf.dtype.itemsize
    dtypes = tuple(sorted(taken, key=lambda name: -taken[name]))
    return MemoryRow(part, dtypes, sum(leaf.size for leaf in leaves), sum(taken.values()))

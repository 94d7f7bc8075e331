"""A report on scales and angles as data, and as a table."""

import math
from typing import NamedTuple

from adamw_jax.reports.invariance import JOINTLY
from adamw_jax.reports.tables import printed

ANGLE = (
    "Where the loss does not depend on the scale, a step turns the array by the angle, in radians, "
    "once it has settled: in as many steps, what is missing in ‖w‖² falls to 1/e"
)
JOINT = "jointly: with the arrays beside it, as one vector, if they decay alike"


class RotationRow(NamedTuple):
    """One parameter of a `RotationReport`.

    Attributes:
      path: the names from the root, joined by slashes.
      shape: the parameter's shape.
      scale_invariant: "alone", where the loss does not depend on the array's scale;
        "jointly", where it does not on that of all arrays of one module that have an effect;
        "no"; or "no effect", where it does not depend on the array at all.
      decay_per_step: d, the fraction that a step takes away; NaN where there is no fixed one.
      angle: between the array before a step and after it, in radians, in equilibrium; NaN
        where the array is not scale-invariant, does not decay towards zero, or is updated in
        proportion to its norm, as by LAMB.
      settles_in: the number of steps in which a deviation of ‖w‖² from its equilibrium falls
        to 1/e; NaN as `angle`.
    """

    path: str
    shape: tuple[int, ...]
    scale_invariant: str
    decay_per_step: float
    angle: float
    settles_in: float


class RotationReport(NamedTuple):
    """What `rotation_report` found; prints as a table.

    Attributes:
      rows: one row for each parameter, in the order of the tree.
    """

    rows: tuple[RotationRow, ...]

    def __str__(self) -> str:
        head = "parameter", "shape", "scale-invariant", "λ per step", "angle per step", "settles in"
        notes = [ANGLE] * any(not math.isnan(row.angle) for row in self.rows)
        notes += [JOINT] * any(row.scale_invariant == JOINTLY for row in self.rows)
        return "\n".join([printed(head, map(_cells, self.rows)), *notes])


def _cells(row: RotationRow) -> tuple[str, ...]:
    shape = "×".join(map(str, row.shape)) or "number"
    decay = "?" if math.isnan(row.decay_per_step) else f"{row.decay_per_step:.3g}"
    turns = ("", "")
    if not math.isnan(row.angle):
        turns = f"{row.angle:.2g}", f"{float(f'{row.settles_in:.2g}'):,.0f} steps"
    return row.path or "(the root)", shape, row.scale_invariant, decay, *turns

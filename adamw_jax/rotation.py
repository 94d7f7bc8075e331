"""Where weight decay sets how fast weights turn: normalised weights, found and predicted.

A loss that does not change when w is scaled leaves the decay nothing to regularise: only the
direction of w matters, and decay sets how fast it turns. With the update u and the decay d of a
step,

    w ← (1 − d) w − u,

the gradient is orthogonal to w, so that noise lengthens w and decay shortens it. If ∑u has the
mean square S T E‖u‖² over T steps, where S is 1 for updates without memory, E‖w‖² settles where

    2 d E‖w‖² = S E‖u‖²,    and there a step turns w by    ‖u‖/‖w‖ = √(2 d / S),

however large the network, the gradients and w are, if d is small beside 1 and beside what the
optimizer forgets in a step. With `momentum(b1)`, u has the autocorrelations b1ᵏ, and
S = (1 + b1)/(1 − b1): the √(2ηλ (1 − b1)/(1 + b1)) of AdamW in Rotational Equilibrium
(arXiv 2305.17212). For others, S is measured. The gradient of w grows as 1/‖w‖; where updates
grow as its p-th power, a deviation of ‖w‖² from its equilibrium falls by 2 d (1 + p) per step.
"""

import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax import trees
from adamw_jax.combine import check_transformations
from adamw_jax.invariance import ALONE, JOINTLY, scale_invariance
from adamw_jax.measured_decay import measured_decay
from adamw_jax.parameters import parameters
from adamw_jax.probes import Probe, remembers, taken_away
from adamw_jax.responses import Response, noise_responses
from adamw_jax.tables import printed

HELD = 1000  # steps, in which L2 fills a momentum
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


def rotation_report(
    optimizer: optax.GradientTransformation,
    params: optax.Params,
    loss: Callable[[Any], jax.Array],
    *,
    step: int = 0,
) -> RotationReport:
    """Finds the arrays whose scale does not matter, and predicts how fast they will turn.

    They are found by measurement: the loss's gradient halves where the array doubles. That
    takes about four evaluations of the loss for each array, and one for each module. An
    array of zeros, as biases are at first, is replaced by random numbers of size 0.1: a
    kernel before a `LayerNorm` is scale-invariant only as long as its bias is zero. The angle
    and the time follow from the decay, and from how the optimizer's updates follow noise;
    both are measured, too. Signal in the gradients turns an array faster, and a schedule has
    to be slower than the array settles.

    Args:
      optimizer: any Optax transformation.
      params: the parameters, real numbers.
      loss: takes the parameters and returns a number, always the same for the same
        parameters: on one batch, and with fixed dropout if any.
      step: ≥ 0, the number of updates before the one whose decay counts.

    Returns:
      A report, to be printed.

    Raises:
      ValueError: the parameters are shapes without values or not real, the loss is not a
        finite number, or step is out of range.
    """
    check_transformations("rotation_report", [optimizer])
    trees.check_floating(params, arrays_only=True)
    leaves = jax.tree.leaves(params)
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
        raise ValueError(
            "rotation_report evaluates the loss, so it needs the parameters' values; these are "
            "shapes. decay_report takes shapes"
        )
    if any(map(jnp.iscomplexobj, leaves)):
        raise ValueError("rotation_report takes real parameters; some of these are complex")
    if not (isinstance(step, numbers.Integral) and 0 <= step < 2**31):
        raise ValueError(f"step must be a whole number in [0, 2³¹), got {step!r}")
    if not leaves:
        return RotationReport(())
    found = [parameter for parameter in parameters(params) if parameter.is_there]
    modules: dict[str, list[int]] = {}
    for i, parameter in enumerate(found):
        modules.setdefault(parameter.path.rpartition("/")[0], []).append(i)
    shapes = jax.eval_shape(lambda tree: tree, params)
    invariant = scale_invariance(loss, params, modules.values())
    settling = [how in (ALONE, JOINTLY) for how in invariant]
    # Whatever else there is, is needed for groups and masks alone.
    small = [
        shape if settles else jax.ShapeDtypeStruct([1] * len(shape.shape), shape.dtype)
        for shape, settles in zip(jax.tree.leaves(shapes), settling, strict=True)
    ]
    responses = noise_responses(optimizer, jax.tree.structure(shapes).unflatten(small))
    decays = _decays(optimizer, shapes, step)
    paths = (parameter.path for parameter in found)
    rows = map(_row, paths, map(jnp.shape, leaves), invariant, decays, responses)
    return RotationReport(tuple(rows))


def _decays(optimizer, shapes, step):
    """What a step takes away after many at the same place, so that momentum is full of it."""
    alone = jax.tree.map(lambda p: jax.ShapeDtypeStruct([1] * len(p.shape), p.dtype), shapes)
    if not remembers(optimizer, alone):
        found = measured_decay(optimizer, shapes, np.array([step], np.int32))
        present = [decay for decay in found if decay is not None]
        return [
            math.nan if d.towards not in ("zero", "") else float(d.fractions[0]) for d in present
        ]
    at = np.array([max(step, HELD)], np.int32)
    held = taken_away(optimizer, alone, at, [Probe(1, 1), Probe(2, 2)], history=True)
    once, twice = np.array([taken for taken in held if taken is not None])[..., 0].T
    return np.where(np.isclose(2 * once, twice, rtol=1e-2, atol=0), once, math.nan).tolist()


def _row(path: str, shape: Any, invariant: str, decay: float, response: Response) -> RotationRow:
    settles = invariant in (ALONE, JOINTLY) and decay > 0 and not response.follows_weights
    if not settles:
        return RotationRow(path, shape, invariant, decay, math.nan, math.nan)
    angle = math.sqrt(2 * decay / response.persistence)
    return RotationRow(
        path, shape, invariant, decay, angle, 1 / (2 * decay * (1 + response.degree))
    )


def _cells(row: RotationRow) -> tuple[str, ...]:
    shape = "×".join(map(str, row.shape)) or "number"
    decay = "?" if math.isnan(row.decay_per_step) else f"{row.decay_per_step:.3g}"
    turns = ("", "")
    if not math.isnan(row.angle):
        turns = f"{row.angle:.2g}", f"{float(f'{row.settles_in:.2g}'):,.0f} steps"
    return row.path or "(the root)", shape, row.scale_invariant, decay, *turns

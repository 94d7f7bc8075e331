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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax import trees
from adamw_jax.combine import check_transformations
from adamw_jax.parameters import parameters
from adamw_jax.reports.invariance import ALONE, JOINTLY, scale_invariance
from adamw_jax.reports.measured_decay import measured_decay
from adamw_jax.reports.probes import Probe, remembers, single_numbers, taken_away
from adamw_jax.reports.responses import Response, noise_responses, small
from adamw_jax.reports.rotation_table import RotationReport, RotationRow

HELD = 1000  # steps, in which L2 fills a momentum


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
    both are measured, too. That gradients are noise is an assumption, and a schedule has to be
    slower than the array settles: docs/weight-decay.md has measurements from real networks.

    Args:
      optimizer: any Optax transformation.
      params: the parameters, real numbers.
      loss: takes the parameters and returns a number, always the same for the same
        parameters: on one batch, with fixed dropout if any, and with `BatchNorm` as in
        training.
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
    leaf_shapes, structure = jax.tree.flatten(shapes)
    alone = jax.tree.leaves(single_numbers(shapes))
    # Where nothing settles, arrays are needed for groups and masks alone.
    enough = [
        small(shape) if how in (ALONE, JOINTLY) else single
        for how, shape, single in zip(invariant, leaf_shapes, alone, strict=True)
    ]
    responses = _in_small(
        lambda tree: noise_responses(optimizer, tree), structure.unflatten(enough), shapes
    )
    decays = _decays(optimizer, shapes, step)
    paths = (parameter.path for parameter in found)
    rows = map(_row, paths, map(jnp.shape, leaves), invariant, decays, responses)
    return RotationReport(tuple(rows))


def _decays(optimizer, shapes, step):
    """What a step takes away after many at the same place, so that momentum is full of it."""
    alone = single_numbers(shapes)
    if not remembers(optimizer, alone):
        found = measured_decay(optimizer, shapes, np.array([step], np.int32))
        to_zero = (d for d in found if d is not None)
        return [float(d.fractions[0]) if d.towards in ("zero", "") else math.nan for d in to_zero]
    at, probes = np.array([max(step, HELD)], np.int32), [Probe(1, 1), Probe(2, 2)]
    held = _in_small(lambda tree: taken_away(optimizer, tree, at, probes, True), alone, shapes)
    once, twice = np.array([taken for taken in held if taken is not None])[..., 0].T
    return np.where(np.isclose(2 * once, twice, rtol=1e-2, atol=0), once, math.nan).tolist()


def _in_small(measured, tree, shapes):
    """What is measured with small arrays, or with whole ones if the optimizer has such itself."""
    try:
        return measured(tree)
    except (TypeError, ValueError):
        return measured(shapes)


def _row(path: str, shape: Any, invariant: str, decay: float, response: Response) -> RotationRow:
    settles = invariant in (ALONE, JOINTLY) and decay > 0 and not response.follows_weights
    if not settles:
        return RotationRow(path, shape, invariant, decay, math.nan, math.nan)
    angle = math.sqrt(2 * decay / response.persistence)
    return RotationRow(
        path, shape, invariant, decay, angle, 1 / (2 * decay * (1 + response.degree))
    )

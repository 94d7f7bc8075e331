"""How a transformation remembers: one array per parameter, and one recurrence."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

from adamw_jax import numerics
from adamw_jax.core import Description, GradientTransformation, jitted


def remembering(
    state_type: Callable[[optax.Updates], Any],
    recurrence: Callable[[Any], Callable[[Any, Any], jax.Array]],
    operand: Any,
    dtype: Callable[[Any], Any],
    description: Description,
    output: str = "new",
) -> GradientTransformation:
    """A transformation that remembers one array per parameter, and puts it out.

    Args:
      state_type: named tuple with one field.
      recurrence: module-level `operand -> (gradient, old) -> new`, on arrays.
      operand: the checked hyperparameter.
      dtype: gives the dtype of the memory for a parameter.
      description: the call that made the transformation.
      output: "new", "previous" (before this gradient), or "ahead" (as if it came twice).
    """

    def init(params):
        return state_type(numerics.zeros(params, dtype))

    def update(updates, state, params=None, **extra_args):
        del params, extra_args
        updates, memory = _remember(recurrence, output, operand, updates, *state)
        return updates, state_type(memory)

    return GradientTransformation(init, update, description)


@functools.partial(jitted, static_argnums=(0, 1))
def _remember(recurrence, output, operand, updates, old):
    step = recurrence(operand)
    new = numerics.map_leaves(step, updates, old)
    match output:
        case "new":
            out = new
        case "ahead":
            out = numerics.map_leaves(step, updates, new)
        case _:
            out = numerics.map_leaves(lambda g, m: m, updates, old)
    return numerics.cast_like(out, updates), numerics.cast_like(new, old)

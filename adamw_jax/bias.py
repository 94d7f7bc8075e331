"""Bias correction of moving averages that start at zero."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax import numerics
from adamw_jax.core import GradientTransformation, describe, jitted
from adamw_jax.hyperparameters import decay_rate


class BiasCorrectionState(NamedTuple):
    """State of `bias_correction`.

    Attributes:
      count: the number of updates so far, int32 scalar; it saturates.
    """

    # Optax's name, though tuples have a method of that name.
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]


def bias_correction(b: jax.typing.ArrayLike, *, ahead: int = 0) -> GradientTransformation:
    """Divides by 1 − bᵗ, the sum of the weights of a moving average after t steps.

    After `momentum(b)` this gives the weighted mean of the gradients so far (Adam §3,
    arXiv 1412.6980). The factor is computed as −expm1(t log b): in float32, `1 - b**t`
    leaves Adam's first step wrong by 6.8e-4 for b = 0.99999, and this form by 2e-7.

    Each correction counts the steps for itself, so Adam's state holds two counts.

    Args:
      b: decay rate in [0, 1) of the average to be corrected, a number or 0-d array.
      ahead: how many steps ahead of t to correct for; Nesterov's look-ahead wants 1.

    Returns:
      A transformation with state `BiasCorrectionState`.

    Raises:
      ValueError: b is outside [0, 1), or ahead is not an integer ≥ 0.
    """
    operand = decay_rate("b", b)
    if not isinstance(ahead, int | np.integer) or ahead < 0:
        raise ValueError(f"ahead must be an integer in [0, ∞), got {ahead!r}")

    def init(params):
        numerics.check_floating(params)
        return BiasCorrectionState(jnp.zeros([], jnp.int32))

    def update(updates, state, params=None, **extra_args):
        del params, extra_args
        return _bias_correction(operand, ahead, updates, state)

    return GradientTransformation(init, update, describe(bias_correction, b, ahead=ahead))


@jitted
def _bias_correction(b, ahead, updates, state):
    count = jnp.asarray(optax.safe_increment(state.count))
    # Added as floats: the count may stand at the largest integer.
    t, ahead, log_b = map(numerics.scalar, (count, ahead, b.log))

    @functools.cache
    def sum_of_weights(dtype):
        real = numerics.real_dtype(dtype)
        weights = -jnp.expm1((t(real) + ahead(real)) * log_b(real))
        return numerics.scalar(weights)(dtype)

    def correct(x):
        return x / sum_of_weights(x.dtype)

    corrected = numerics.map_leaves(correct, updates)
    return numerics.cast_like(corrected, updates), BiasCorrectionState(count)

"""Bias correction of moving averages that start at zero."""

import jax
import numpy as np

from adamw_jax import numerics
from adamw_jax.core import GradientTransformation, describe
from adamw_jax.hyperparameters import decay_rate
from adamw_jax.piece import piece


def bias_correction(b: jax.typing.ArrayLike, *, ahead: int = 0) -> GradientTransformation:
    """Divides by 1 − bᵗ, the sum of the weights of a moving average after t steps.

    After `momentum(b)` this gives the weighted mean of the gradients so far (Adam §3,
    arXiv 1412.6980). All corrections in a composition share one count of the steps.

    Args:
      b: decay rate in [0, 1) of the average to be corrected, a number or 0-d array.
      ahead: how many steps ahead of t to correct for; Nesterov's look-ahead needs 1.

    Returns:
      A transformation with state `StepsState`.

    Raises:
      ValueError: b is outside [0, 1), or ahead is not an integer ≥ 0.
    """
    whole = isinstance(ahead, int | np.integer) and not isinstance(ahead, bool)
    if not (whole and 0 <= ahead < 2**31):
        raise ValueError(f"ahead must be an integer in [0, 2³¹), got {ahead!r}")
    description = describe(bias_correction, b, ahead=ahead)
    # None is static under jit: the usual zero costs no addition.
    return piece(description, _correct, (decay_rate("b", b), ahead or None), counts=True)


def _correct(b, ahead, t):
    weights = numerics.sum_of_weights(b, t if ahead is None else t + ahead)
    return lambda x: x / weights.astype(x.dtype)

"""Checks hyperparameters and prepares them as operands of the jitted arithmetic.

Python and NumPy numbers are checked against their range, and constants are computed
from them in float64, when an optimizer is built. A `jax.Array` is never looked into:
under a trace its value is not there, and on a device reading it would wait for
everything queued before it. Only its shape is checked.
"""

import dataclasses
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decay:
    """The decay rate β of a moving average, as operands.

    Attributes:
      complement: 1 − β, float64 on the host or in the dtype of an array β.
      log: log β, likewise; −∞ where β = 0.
      is_long: whether β ≥ 1/2, static; None where β is an array.
    """

    complement: jax.typing.ArrayLike
    log: jax.typing.ArrayLike
    is_long: bool | None = dataclasses.field(metadata={"static": True})


def decay_rate(name: str, value: jax.typing.ArrayLike) -> Decay:
    """Checks that β is in [0, 1) and prepares it."""
    value = _number(name, value, "[0, 1)", lambda x: 0 <= x < 1)
    if isinstance(value, float):
        return Decay(1 - value, math.log(value) if value else -math.inf, value >= 0.5)
    # In a β rounded to float32, log1p(−(1 − β)) still has all its digits; log β has not.
    complement = 1 - value
    return Decay(complement, jnp.log1p(-complement), None)


def non_negative(name: str, value: jax.typing.ArrayLike) -> float | jax.Array:
    """Checks that a hyperparameter is in [0, ∞)."""
    return at_least(0, name, value)


def at_least(lowest: float, name: str, value: jax.typing.ArrayLike) -> float | jax.Array:
    """Checks that a hyperparameter is in [lowest, ∞)."""
    return _number(name, value, f"[{lowest}, ∞)", lambda x: lowest <= x < math.inf)


def share(name: str, value: jax.typing.ArrayLike) -> float | jax.Array:
    """Checks that a hyperparameter is in [0, 1]."""
    return _number(name, value, "[0, 1]", lambda x: 0 <= x <= 1)


def count(name: str, value: int | jax.Array) -> int | jax.Array:
    """Checks that a hyperparameter is a whole number in [1, 2³¹)."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.integer):
        return value
    allowed = "[1, 2³¹), a whole one"
    number = _number(name, value, allowed, lambda x: 1 <= x < 2**31 and x == int(x))
    # optax.inject_hyperparams makes floats of integers.
    return jnp.round(number).astype(int) if isinstance(number, jax.Array) else int(number)


def non_negative_or_schedule(name: str, value: optax.ScalarOrSchedule) -> Any:
    """The same for a hyperparameter that may be a schedule, which passes unchecked."""
    if callable(value):
        return value
    return _number(name, value, "[0, ∞), or a schedule", lambda x: 0 <= x < math.inf)


def floating_dtype(name: str, value: jax.typing.DTypeLike | None) -> np.dtype | None:
    """Checks that a dtype is floating-point or complex; None passes."""
    if value is None:
        return None
    try:
        dtype = jax.dtypes.canonicalize_dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(f"{name} must be a floating-point or complex dtype, got {value!r}")
    return dtype


def _number(name: str, value: Any, allowed: str, in_range: Any) -> float | jax.Array:
    if isinstance(value, jax.Array):
        if value.shape or not jnp.issubdtype(value.dtype, jnp.number):
            raise ValueError(
                f"{name} must be a 0-d array of numbers, got {value.dtype}{list(value.shape)}; "
                "for many values at once, map over them with jax.vmap"
            )
        # optax.inject_hyperparams makes them complex beside complex parameters.
        value = value.real
        return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(float)
    is_number = isinstance(value, numbers.Real) or (
        isinstance(value, np.ndarray | np.generic)
        and value.shape == ()
        and (jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer))
    )
    try:
        number = float(value) if is_number else math.nan
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if not in_range(number):
        raise ValueError(f"{name} must be a number in {allowed}, got {value!r}")
    return number

"""Checks hyperparameters and prepares them as operands of the jitted arithmetic.

When an optimizer is built, Python and NumPy numbers are checked against their range, and
constants are computed from them in float64. The value of a `jax.Array` is never read: a
tracer has none, and reading one on a device would wait for everything queued before it.
Only its shape and dtype are checked.

Every check takes the name under which the caller passed the argument, for the message of
its `ValueError`.
"""

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable
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
      complement: 1 − β, as a float64 on the host or, where β is an array, in its dtype.
      log: log β, in the same form; −∞ where β = 0.
      is_long: whether β ≥ 1/2 (static); None where β is an array.
    """

    complement: Any
    log: Any
    is_long: bool | None = dataclasses.field(metadata={"static": True})


def decay_rate(name: str, value: jax.typing.ArrayLike) -> Decay:
    """Checks that a decay rate β is in [0, 1) and prepares it."""
    value = _number(name, value, "[0, 1)", lambda x: 0 <= x < 1)
    if isinstance(value, float):
        return Decay(1 - value, math.log(value) if value else -math.inf, value >= 0.5)
    # For a β rounded to float32, log1p(−(1 − β)) keeps all digits; log β loses some. The
    # minimum keeps its derivative finite at β = 0; nothing uses the logarithm below β = 1/4.
    complement = 1 - value
    return Decay(complement, jnp.log1p(-jnp.minimum(complement, 0.75)), None)


def decay_rate_or_schedule(name: str, value: jax.typing.ArrayLike | optax.Schedule) -> Any:
    """Checks a decay rate β in [0, 1), or a schedule (step → β), and prepares it.

    Returns:
      A `Decay`, or a schedule of such.
    """
    if not callable(value):
        return decay_rate(name, value)
    return lambda step: decay_rate(f"what the schedule of {name} returns", value(step))


def non_negative(name: str, value: jax.typing.ArrayLike) -> float | jax.Array:
    """Checks that a hyperparameter is in [0, ∞)."""
    return at_least(0, name, value)


def at_least(lowest: float, name: str, value: jax.typing.ArrayLike) -> float | jax.Array:
    """Checks that a hyperparameter is in [lowest, ∞)."""
    return _number(name, value, f"[{lowest}, ∞)", lambda x: lowest <= x < math.inf)


def positive(name: str, value: jax.typing.ArrayLike) -> float | jax.Array:
    """Checks that a number is in (0, ∞)."""
    return _number(name, value, "(0, ∞)", lambda x: 0 < x < math.inf)


def fraction(name: str, value: jax.typing.ArrayLike) -> float | jax.Array:
    """Checks that a hyperparameter is in [0, 1]."""
    return _number(name, value, "[0, 1]", lambda x: 0 <= x <= 1)


def inner_fraction(name: str, value: jax.typing.ArrayLike) -> float | jax.Array:
    """Checks that a hyperparameter is in (0, 1)."""
    return _number(name, value, "(0, 1)", lambda x: 0 < x < 1)


def positive_integer(name: str, value: int | jax.Array) -> int | jax.Array:
    """Checks that a hyperparameter is a whole number in [1, 2³¹)."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.integer):
        return value
    allowed = "[1, 2³¹) and whole"
    number = _number(name, value, allowed, lambda x: 1 <= x < 2**31 and x == int(x))
    # optax.inject_hyperparams makes floats of integers.
    return jnp.round(number).astype(int) if isinstance(number, jax.Array) else int(number)


def seed(name: str, value: jax.typing.ArrayLike) -> np.uint32 | jax.Array:
    """Checks that a seed of random bits is a whole number in [0, 2³²)."""
    allowed = "[0, 2³²) and whole"
    number = _number(name, value, allowed, lambda x: 0 <= x < 2**32 and x == int(x))
    if not isinstance(number, jax.Array):
        return np.uint32(number)
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.integer):
        return value.astype(jnp.uint32)  # a float would lose digits
    # optax.inject_hyperparams makes floats of integers.
    return jnp.round(number).astype(jnp.uint32)


def non_negative_or_schedule(name: str, value: optax.ScalarOrSchedule) -> Any:
    """Checks that a hyperparameter is a number in [0, ∞) or a schedule (step → number).

    Returns:
      The number, or a schedule that applies the same check to what the given one returns.
    """
    if not callable(value):
        return _number(name, value, "[0, ∞), or a schedule", lambda x: 0 <= x < math.inf)

    def checked(step):
        number = value(step)
        if isinstance(number, jax.Array) and jnp.iscomplexobj(number):
            raise ValueError(f"the schedule of {name} must return real numbers, got {number.dtype}")
        return non_negative(f"what the schedule of {name} returns", number)

    # It prints as the given one does, but has no link to it: Equinox uses inspect, which would
    # follow the link.
    functools.update_wrapper(checked, value)
    del vars(checked)["__wrapped__"]
    return checked


def flag(name: str, value: bool) -> bool:
    """Checks that a hyperparameter is True or False: the string "false" would count as true."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise ValueError(f"{name} must be True or False, got {value!r}")


def floating_dtype(name: str, value: jax.typing.DTypeLike | None) -> np.dtype | None:
    """Checks that a dtype is floating-point or complex; None passes."""
    if value is None:
        return None
    try:
        dtype = jax.dtypes.canonicalize_dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(
            f"{name} must be a floating-point or complex dtype or an encoding, got {value!r}"
        )
    return dtype


def _number(
    name: str, value: Any, allowed: str, in_range: Callable[[float], bool]
) -> float | jax.Array:
    """Checks a number and returns it as a float; of an array, only shape and dtype are checked."""
    if isinstance(value, jax.Array):
        if value.shape or not jnp.issubdtype(value.dtype, jnp.number):
            raise ValueError(
                f"{name} must be a 0-d array of numbers, got {value.dtype}{list(value.shape)}; "
                "for many values at once, map over them with jax.vmap"
            )
        # optax.inject_hyperparams makes hyperparameters complex where parameters are.
        value = value.real
        return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(float)
    number = as_float(value)
    if not in_range(number):
        raise ValueError(f"{name} must be a number in {allowed}, got {value!r}")
    # It becomes an operand in JAX's default precision, float32 unless x64 is enabled, where
    # a larger number would be infinite.
    dtype = jax.dtypes.canonicalize_dtype(float)
    if abs(number) > float(jnp.finfo(dtype).max):
        raise ValueError(f"{name} must be finite in {dtype}, got {value!r}")
    return number


def as_float(value: Any) -> float:
    """A Python or NumPy number as a float; for anything else NaN, which is in no range."""
    is_number = isinstance(value, numbers.Real) or (
        isinstance(value, np.ndarray | np.generic) and value.shape == () and is_real(value.dtype)
    )
    try:
        return float(value) if is_number else math.nan
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def is_real(dtype: np.dtype) -> bool:
    """Whether a dtype holds real numbers: floating-point or integer."""
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)

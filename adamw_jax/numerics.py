"""The precision in which arithmetic is done, and averages that keep their digits.

Arithmetic is done in the *working precision* of a leaf, float32 for anything narrower and
the leaf's own dtype otherwise, and the result is rounded once to the dtype of the leaf.
Hyperparameters are cast to the working precision, so that an array learning rate does not
turn bfloat16 updates into float32 ones.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax.hyperparameters import Decay


def dtype_of(x: Any) -> np.dtype | None:
    """The dtype of an array or number, and None for anything else (a function)."""
    try:
        return jnp.result_type(x)
    except TypeError:
        return None


@functools.cache
def _widened(dtype: np.dtype) -> np.dtype:
    narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return np.dtype(np.float32) if narrow else dtype


def is_narrow(x: Any) -> bool:
    """Whether an array, which may be abstract, is floating-point and narrower than float32."""
    return _widened(x.dtype) != x.dtype


def working_dtype(x: Any) -> np.dtype:
    """float32 for floating-point leaves that are narrower, otherwise the leaf's own dtype."""
    return _widened(jnp.result_type(x))


def real_dtype(x: Any) -> np.dtype:
    """The dtype of `abs(x)` in working precision."""
    return jnp.finfo(working_dtype(x)).dtype


def cast(x: Any, dtype: np.dtype) -> Any:
    """An array or number, which may be abstract, in another dtype."""
    # To a strong type, since a weakly typed state would be traced again at the second call.
    if isinstance(x, jax.ShapeDtypeStruct):
        return x.update(dtype=dtype)
    same = getattr(x, "dtype", None) == dtype and not getattr(x, "weak_type", False)
    return x if same else jax.lax.convert_element_type(x, dtype)


def average(decay: Decay) -> Callable[[Any, Any], jax.Array]:
    """One step of a moving average, (old, new) → old + (1 − β)(new − old).

    The step is taken from the nearer end. Where β ≥ 1/2 that is the old value: in the
    textbook's β v + (1 − β) g² the float32 factors do not sum to one, so that with
    β = 0.99999 it settles 0.1 % away from the mean of noisy squares; this form is off by
    1.6e-5. (For a constant, both stop 0.5 % short, where a step is less than half a unit in
    the last place.) Otherwise it is the new value, so that β = 0 returns that bit for bit.

    An infinite average stays infinite, where ∞ − ∞ would make it NaN. The difference is that
    of the halves, which have the same digits and do not overflow.
    """
    from_old = 2 * decay.complement.real
    from_new = 2 * (1 - decay.complement.real)

    def step(old, new):
        if jnp.iscomplexobj(new):  # by parts: a complex product with ∞ makes the other part NaN
            return jax.lax.complex(step(old.real, new.real), step(old.imag, new.imag))
        half = 0.5 * new - 0.5 * old
        if decay.is_long:
            stepped = old + from_old * half
        elif decay.is_long is None:
            stepped = jnp.where(from_old <= 1, old + from_old * half, new - from_new * half)
        else:
            stepped = new - from_new * half
        if not decay.is_long:
            stepped = jax.lax.select(jax.lax.is_finite(new), stepped, new)
        return jax.lax.select(jax.lax.is_finite(old), stepped, old)

    return step


def sum_of_weights(decay: Decay, t: jax.Array) -> jax.Array:
    """1 − βᵗ, what the weights of a moving average sum to after t steps; real.

    It is computed as −expm1(t log β), because 1 − βᵗ loses digits where β is near 1: in
    float32 that makes Adam's first step wrong by 6.8e-4 for β = 0.99999, and this form by
    2e-7. Below 1/2 no digits are lost, and 1 − βᵗ is used: it has a derivative at β = 0,
    where the logarithm has none.
    """
    t, rate, log = t.real, 1 - decay.complement.real, decay.log.real
    if decay.is_long is None:
        return jnp.where(rate < 0.5, 1 - rate**t, -jnp.expm1(t * log))
    return -jnp.expm1(t * log) if decay.is_long else 1 - rate**t

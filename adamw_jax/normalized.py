"""Gradients that are normalised before they are averaged, the pieces of ADOPT (arXiv 2411.02853).

Adam divides the average of the gradients by a second moment that contains the gradient. ADOPT
divides each gradient by the second moment of those before it, and averages what results:

    normalized = parallel(chain(), lagged_second_moment(b2), merge=floored_rms_ratio(eps))
    direction = chain(normalized, growing_clip(), momentum(b1))
"""

import jax
import jax.numpy as jnp

from adamw_jax import numerics
from adamw_jax.combine import Merge
from adamw_jax.core import GradientTransformation, describe
from adamw_jax.encodings import Encoding, dtype_or_encoding, zeros_in
from adamw_jax.hyperparameters import decay_rate, non_negative
from adamw_jax.moments import SecondMomentState, square
from adamw_jax.piece import piece


def lagged_second_moment(
    b2: jax.typing.ArrayLike, *, accumulator_dtype: jax.typing.DTypeLike | Encoding | None = None
) -> GradientTransformation:
    """Averages the squares of the gradients before this one, from the first on.

    It returns v and then updates it: v ← v + (1 − b2)(|g|² − v), at the first step v ← |g|². The
    first update is therefore 0, which says that there is no v yet. Source: arXiv 2411.02853.

    Args:
      b2: decay rate in [0, 1), a number or 0-d array.
      accumulator_dtype: as in `second_moment`.

    Returns:
      A transformation with state `(StepsState, SecondMomentState)`. The updates keep their dtype,
      as in `second_moment`.

    Raises:
      ValueError: as `second_moment`.
    """
    kept = dtype_or_encoding("accumulator_dtype", accumulator_dtype)
    return piece(
        describe(lagged_second_moment, b2, accumulator_dtype=kept),
        _lagged,
        (decay_rate("b2", b2),),
        state=SecondMomentState,
        start=zeros_in(kept, signed=False),
        encoding=kept if isinstance(kept, Encoding) else None,
        counts=True,
    )


def _lagged(b2, t):
    average = numerics.average(b2)
    return lambda g, v: (v, jnp.where(t.real > 1, average(v, square(g)), square(g)))


def growing_clip(power: jax.typing.ArrayLike = 0.25) -> GradientTransformation:
    """Bounds the updates, less and less: |u| ≤ (t − 1)^power, so that the first is zero.

    Source: ADOPT with clipping (arXiv 2411.02853, Algorithm 2), where steps are counted from 0.

    Args:
      power: ≥ 0, a number or 0-d array.

    Returns:
      A transformation with state `StepsState`. Complex numbers keep their direction.

    Raises:
      ValueError: power is negative.
    """
    given = (non_negative("power", power),)
    return piece(describe(growing_clip, power), _clip, given, counts=True)


def _clip(power, t):
    limit = (t.real - 1) ** power.real

    def clip(u):
        if not jnp.iscomplexobj(u):
            return jnp.clip(u, -limit, limit)
        size = jnp.abs(u)
        share = jnp.where(size > limit, limit / jnp.where(size > 0, size, 1), 1)
        return u * share.astype(u.dtype)

    return clip


def floored_rms_ratio(eps: jax.typing.ArrayLike) -> Merge:
    """Divides by the root of a second moment, but not by less than eps: g / max(√v, eps).

    Source: arXiv 2411.02853. `rms_ratio` adds eps to the root.

    Args:
      eps: ≥ 0, a number or 0-d array.

    Returns:
      A function of the arrays g and v (real or complex g, real v ≥ 0).

    Raises:
      ValueError: eps is negative.
    """
    return Merge(describe(floored_rms_ratio, eps), _floored, (non_negative("eps", eps),))


def _floored(eps):
    return lambda g, v: g / jnp.maximum(jnp.sqrt(v.real), eps.real).astype(g.dtype)

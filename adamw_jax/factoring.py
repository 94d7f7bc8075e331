"""The pieces of Adafactor (arXiv 1804.04235): second moments in factors, steps relative to θ.

square = second_moment(rising_decay(0.8), accumulator_dtype=factored())
adafactor = chain(
    parallel(chain(), parallel(square, merge=rank_one(1e-30)), merge=rms_ratio(0.0)),
    scale_by_parameter_rms(),
)
"""

import jax
import jax.numpy as jnp

from adamw_jax.combine import Merge
from adamw_jax.core import GradientTransformation, describe
from adamw_jax.encodings import factored
from adamw_jax.hyperparameters import non_negative
from adamw_jax.piece import piece


def rank_one(eps: jax.typing.ArrayLike = 0.0, *, min_axis: int = 128) -> Merge:
    """The matrix of rank one with the same means of rows and columns: v + eps → r c / mean(r).

    It stands after a second moment that is kept as `factored()`, of which it leaves just that; no
    number of the current gradient is seen by itself then. Source: arXiv 1804.04235, Algorithm 1.

    Args:
      eps: ≥ 0, a number or 0-d array, added to v; the paper adds it to every square.
      min_axis: as in `factored`, and the same number.

    Returns:
      A function of one array, real and ≥ 0.

    Raises:
      ValueError: as `factored`, or eps is negative.
    """
    operands = non_negative("eps", eps), factored(min_axis=min_axis)
    return Merge(describe(rank_one, eps, min_axis=min_axis), _rank_one, operands)


def _rank_one(eps, storage):
    def merge(v):
        # Where a row and a column are both as small as eps, their product underflows, and Adafactor
        # would divide zero by zero: units that are silent in two layers are enough.
        least = jnp.minimum(eps.real, jnp.finfo(v.real.dtype).tiny)
        return jnp.maximum(storage.projected(v.real + eps.real), least).astype(v.dtype)

    return merge


def scale_by_parameter_rms(floor: jax.typing.ArrayLike = 1e-3) -> GradientTransformation:
    """Makes steps relative to the size of a parameter: u ← max(floor, RMS(θ)) u.

    RMS(θ) = √mean|θ|² over the leaf. Source: Adafactor (arXiv 1804.04235, Algorithm 4).

    Args:
      floor: ≥ 0, a number or 0-d array, so that a parameter that is zero can leave zero.

    Returns:
      A transformation with state `optax.EmptyState`. Its update needs `params`.

    Raises:
      ValueError: floor is negative, or the parameters are missing.
    """
    return piece(
        describe(scale_by_parameter_rms, floor),
        _scale_by_size,
        (non_negative("floor", floor),),
        params_for="the scale of the parameters",
    )


def _scale_by_size(floor):
    def step(u, p):
        size = jnp.sqrt(jnp.mean(jnp.square(jnp.abs(p)))) if p.size else floor.real
        return jnp.maximum(size, floor.real).astype(u.dtype) * u

    return step

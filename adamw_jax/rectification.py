"""RAdam's rectification of a young second moment (arXiv 1908.03265)."""

import jax
import jax.numpy as jnp

from adamw_jax.core import GradientTransformation, describe
from adamw_jax.hyperparameters import at_least, decay_rate
from adamw_jax.piece import piece


def rectification(
    b2: jax.typing.ArrayLike, threshold: jax.typing.ArrayLike = 5.0
) -> GradientTransformation:
    """Enlarges a corrected second moment while it is made of few gradients: v̂ ← v̂ / rₜ².

    It stands between the bias correction of a second moment and `rms_ratio`, whose step it
    multiplies by rₜ (arXiv 1908.03265, Algorithm 2). With ρ∞ = 2/(1 − b2) − 1 and
    ρₜ = ρ∞ − 2t b2ᵗ/(1 − b2ᵗ), the number of gradients that v̂ is worth,

        rₜ² = (ρₜ − 4)(ρₜ − 2) ρ∞ / ((ρ∞ − 4)(ρ∞ − 2) ρₜ).

    As long as ρₜ ≤ threshold, for about the first five steps, v̂ becomes 1, and the step is
    that of momentum. The paper has no eps; here `rms_ratio` adds it to √v̂ / rₜ, or to 1 in
    the first steps. Optax adds it to √v̂ and PyTorch to the uncorrected √v, and neither adds
    it in the first steps.

    Args:
      b2: decay rate in [0, 1) of the second moment, a number or 0-d array.
      threshold: ≥ 4, a number or 0-d array. It is 4 in the paper, 5 in its authors' code,
        PyTorch and Optax.

    Returns:
      A transformation with state `StepsState`.

    Raises:
      ValueError: b2 is outside [0, 1), or threshold is below 4.
    """
    hyperparameters = decay_rate("b2", b2), at_least(4, "threshold", threshold)
    return piece(describe(rectification, b2, threshold), _rectify, hyperparameters, counts=True)


def _rectify(b2, threshold, t):
    c, x, threshold, t = b2.complement.real, -b2.log.real, threshold.real, t.real
    rho_inf = (2 - c) / c
    rho = _effective_length(t, x, rho_inf)
    square = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
    # An array threshold may be below 4, since its value is never read; there rₜ² is not positive.
    is_known = (rho > threshold) & (rho > 4)
    return lambda v: jnp.where(is_known, v / square.astype(v.dtype), jnp.ones_like(v))


def _effective_length(t, x, rho_inf):
    """ρₜ = ρ∞ − 2t/(eᵗˣ − 1), with x = −log b2.

    Early on this is a small difference of large numbers: for b2 = 0.9999 not one digit of
    ρ₆ ≈ 6 is right in float32. There the equal t − (2/x)(L(tx) − L(x)), with
    L(y) = (y/2) coth(y/2) − 1, is right in all digits.
    """
    late = rho_inf - 2 * t / jnp.expm1(t * x)
    early = t - 2 / x * (_coth_excess(t * x) - _coth_excess(x))
    return jnp.where(t * x < 1, early, late)


def _coth_excess(y):
    """(y/2) coth(y/2) − 1 for 0 ≤ y < 1, by Lambert's continued fraction."""
    square = y * y / 4
    denominator = 13.0
    for odd in (11, 9, 7, 5, 3):
        denominator = odd + square / denominator
    return square / denominator

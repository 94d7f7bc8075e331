"""One temperature for all logits, the simplest calibration of a classifier (arXiv 1706.04599).

A network that overfits becomes too sure of itself, and its cross-entropy rises while its accuracy
stays. Dividing all logits by a number that is fitted on validation images mends just that: it
changes no prediction. A difference in loss that remains is one in what the network knows.
"""

import math

import jax
import jax.numpy as jnp

LARGEST = 32.0  # temperatures from 1/32 to 32 are considered
HALVINGS = 20  # which find log T to 7e-6


def temperature(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The temperature T with the least mean cross-entropy of logits / T, within [1/32, 32].

    The loss is convex in 1/T, so that its slope has one zero, which bisection finds.

    Args:
      logits: float[n, classes].
      labels: int[n].

    Returns:
      A float scalar, the least of those that fit equally well; NaN if a logit is not finite, or
      if there are no images.
    """
    # From the right class's logit on, so that where all are right no term of the slope is positive.
    margins = logits - jnp.take_along_axis(logits, labels[:, None], -1)

    def slope(log_t: jax.Array) -> jax.Array:
        """The derivative of the loss by 1/T."""
        return (jax.nn.softmax(margins * jnp.exp(-log_t)) * margins).sum(-1).mean()

    def halve(_, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        too_sure = slope(middle) > 0
        return jnp.where(too_sure, middle, low), jnp.where(too_sure, high, middle)

    end = jnp.asarray(math.log(LARGEST), logits.dtype)
    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (-end, end))
    log_t = (low + high) / 2
    return jnp.where(jnp.isnan(slope(log_t)), jnp.nan, jnp.exp(log_t))

"""What `parallel` does with the results of its branches, leaf by leaf.

A merge of one array is a leafwise function: `parallel(tx, merge=sign())`.
"""

import jax
import jax.numpy as jnp

from adamw_jax import numerics
from adamw_jax.combine import Merge
from adamw_jax.core import describe
from adamw_jax.hyperparameters import decay_rate, non_negative


def rms_ratio(eps: jax.typing.ArrayLike, eps_root: jax.typing.ArrayLike = 0.0) -> Merge:
    """Divides a first moment by the root of a second: m / (√(v + eps_root) + eps).

    The step of Adam's Algorithm 1 (arXiv 1412.6980), where eps stands outside the root.

    Args:
      eps: ≥ 0, keeps the ratio finite where v = 0 and bounds the step of parameters
        whose gradients are smaller than eps.
      eps_root: ≥ 0, inside the root; if it is positive, the ratio can be differentiated at
        v = 0, which meta-learning through the optimizer needs.

    Returns:
      A function of the arrays m and v (real or complex m, real v ≥ 0).

    Raises:
      ValueError: eps or eps_root is negative.
    """
    root = non_negative("eps_root", eps_root)
    # For a plain zero, the usual case, None saves the addition, since it is static under jit.
    is_zero = isinstance(root, float) and root == 0
    operands = non_negative("eps", eps), None if is_zero else root
    return Merge(describe(rms_ratio, eps=eps, eps_root=eps_root), _rms_ratio, operands)


def _rms_ratio(eps, eps_root):
    def merge(m, v):
        v = v.real if eps_root is None else v.real + eps_root.real
        return m / (jnp.sqrt(v) + eps.real).astype(m.dtype)

    return merge


def nesterov_lookahead(b1: jax.typing.ArrayLike) -> Merge:
    """Nesterov's look-ahead b1 m + (1 − b1) g, of corrected moments as in NAdam.

    Source: Dozat, *Incorporating Nesterov momentum into Adam* (2016), Algorithm 2, with
    a constant b1. For moments that are not corrected it is `momentum(b1, nesterov=True)`.

    Args:
      b1: decay rate in [0, 1), a number or 0-d array.

    Returns:
      A function of the arrays m and g.

    Raises:
      ValueError: b1 is outside [0, 1).
    """
    return Merge(describe(nesterov_lookahead, b1), _nesterov_lookahead, (decay_rate("b1", b1),))


def _nesterov_lookahead(b1):
    average = numerics.average(b1)
    return lambda m, g: average(m, g)


def ratio(eps: jax.typing.ArrayLike) -> Merge:
    """Divides a first moment by a size: m / (u + eps), the step of AdaMax.

    Source: arXiv 1412.6980, §7.1, where eps = 0. `rms_ratio` takes the root of the second moment.

    Args:
      eps: ≥ 0, keeps the ratio finite where u = 0.

    Returns:
      A function of the arrays m and u (real or complex m, real u ≥ 0).

    Raises:
      ValueError: eps is negative.
    """
    return Merge(describe(ratio, eps), _ratio, (non_negative("eps", eps),))


def _ratio(eps):
    return lambda m, u: m / (u.real + eps.real).astype(m.dtype)


def difference() -> Merge:
    """The gradient's deviation from its mean, g − m, whose square AdaBelief averages.

    Source: arXiv 2010.07468, Algorithm 2. It takes the arrays g and m.
    """
    return Merge(describe(difference), _difference)


def _difference():
    return lambda g, m: g - m


def total() -> Merge:
    """The total of two branches, a + b, such as AdEMAMix's two averages (arXiv 2409.03137)."""
    return Merge(describe(total), _total)


def _total():
    return lambda a, b: a + b


def sign() -> Merge:
    """The sign of the update, u/|u| and 0 where u = 0: the step of Lion (arXiv 2302.06675)."""
    return Merge(describe(sign), _sign)


def _sign():
    return lambda u: jnp.sign(u)


def clip_by_rms(eps: jax.typing.ArrayLike) -> Merge:
    """Shortens the step of a leaf whose gradients outgrew their second moment.

    u ← u / max(1, RMS), with RMS = √mean(|g|² / max(v, eps²)) over the leaf: the update
    clipping of Adafactor (arXiv 1804.04235, §5) as StableAdamW uses it (arXiv 2304.13013,
    §3.5). Stacked layers are one leaf, and so are clipped together.
    `optax.clip_by_block_rms` clips by the RMS of u itself.

    Args:
      eps: ≥ 0, keeps the RMS finite where v = 0.

    Returns:
      A function of the arrays u, g and v (real v ≥ 0).

    Raises:
      ValueError: eps is negative.
    """
    return Merge(describe(clip_by_rms, eps), _clip_by_rms, (non_negative("eps", eps),))


def _clip_by_rms(eps):
    def merge(u, g, v):
        # Divided before squaring: g² may overflow where g/√v does not.
        v, positive = v.real, v.real > 0
        # The root has no derivative at zero, so it is not taken there.
        root = jnp.where(positive, jnp.sqrt(jnp.where(positive, v, 1)), 0)
        mean = jnp.mean(jnp.square(jnp.abs(g) / jnp.maximum(root, eps.real)))
        return u / jnp.sqrt(jnp.maximum(mean, 1)).astype(u.dtype)

    return merge


def cautious_step(eps: jax.typing.ArrayLike = 1e-3) -> Merge:
    """Omits the step where it disagrees with the gradient, and lengthens the rest to make up.

    u ← φ u / max(mean(φ), eps), with φ = 1 where u·g > 0 and 0 elsewhere. Source: Cautious
    Optimizers (arXiv 2411.16085, Algorithm 1), with the bound of the authors' code; the paper adds
    eps to the mean. The mean is over the leaf. (`cautious_weight_decay` is something else: it omits
    decay, and not the step.)

    Args:
      eps: ≥ 0, a number or 0-d array: the least share of agreeing numbers that is made up for.

    Returns:
      A function of the arrays u and g. Complex numbers agree where Re(u g*) > 0.

    Raises:
      ValueError: eps is negative.
    """
    return Merge(describe(cautious_step, eps), _cautious_step, (non_negative("eps", eps),))


def _cautious_step(eps):
    def merge(u, g):
        # The product of the signs, since that of small numbers would underflow to zero.
        agrees = (jnp.sign(u) * jnp.conj(jnp.sign(g))).real > 0
        share = jnp.maximum(jnp.mean(agrees, dtype=eps.real.dtype), eps.real).astype(u.dtype)
        return jnp.where(agrees, u / share, jnp.zeros_like(u))

    return merge

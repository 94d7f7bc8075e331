"""What `parallel` does with the results of its branches."""

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
      eps_root: ≥ 0, inside the root; with it the ratio can be differentiated at v = 0,
        as meta-learning through the optimizer needs.

    Returns:
      A function of the arrays m and v (real or complex m, real v ≥ 0).

    Raises:
      ValueError: eps or eps_root is negative.
    """
    root = non_negative("eps_root", eps_root)
    # A plain zero, the usual case, costs no addition: None is static under jit.
    is_zero = isinstance(root, float) and root == 0
    operands = non_negative("eps", eps), None if is_zero else root
    return Merge(_rms_ratio, operands, describe(rms_ratio, eps=eps, eps_root=eps_root))


def _rms_ratio(hyperparameters, m, v):
    eps, eps_root = hyperparameters
    v = v.real if eps_root is None else v.real + numerics.scalar(eps_root)(v.real)
    return m / (jnp.sqrt(v) + numerics.scalar(eps)(v)).astype(m.dtype)


def nesterov_lookahead(b1: jax.typing.ArrayLike) -> Merge:
    """Nesterov's look-ahead b1 m + (1 − b1) g, of corrected moments as in NAdam.

    Source: Dozat, *Incorporating Nesterov momentum into Adam* (2016), Algorithm 2, with
    a constant b1. Before the correction it is `momentum(b1, nesterov=True)`.

    Args:
      b1: decay rate in [0, 1), a number or 0-d array.

    Returns:
      A function of the arrays m and g.

    Raises:
      ValueError: b1 is outside [0, 1).
    """
    return Merge(_nesterov_lookahead, decay_rate("b1", b1), describe(nesterov_lookahead, b1))


def _nesterov_lookahead(b1, m, g):
    return numerics.average(b1)(m, g)

"""Gradient descent, step by step, up to AdamW: compositions of the pieces, no more.

Each optimizer reads like its equation; what a hyperparameter means is told once, where
its piece is: b1 and `nesterov` in `momentum` (`mu_dtype` is its `accumulator_dtype`),
b2 in `second_moment`, eps and eps_root in `rms_ratio`, `weight_decay` and `mask` in
`decoupled_weight_decay`, `learning_rate` in `scale_by_learning_rate`. Names, order and
defaults are Optax's, so that `optax.adamw(...)` may become `adamw(...)`. Half-precision
parameters get float32 moments here, and half-precision ones in Optax.
"""

from typing import Any

import jax
import optax

from adamw_jax.bias import bias_correction
from adamw_jax.combine import chain, parallel
from adamw_jax.core import GradientTransformation
from adamw_jax.decay import decoupled_weight_decay, l2_regularization
from adamw_jax.merges import nesterov_lookahead, rms_ratio
from adamw_jax.moments import momentum, second_moment
from adamw_jax.schedules import scale_by_learning_rate

Number = jax.typing.ArrayLike
NumberOrSchedule = optax.ScalarOrSchedule


def gd(learning_rate: NumberOrSchedule) -> GradientTransformation:
    """Gradient descent: θ ← θ − α g. With minibatch gradients, SGD."""
    return chain(scale_by_learning_rate(learning_rate))


def momentum_gd(
    learning_rate: NumberOrSchedule, b1: Number = 0.9, *, nesterov: bool = False
) -> GradientTransformation:
    """Gradient descent with momentum: m ← m + (1 − b1)(g − m); θ ← θ − α m."""
    return chain(momentum(b1, nesterov=nesterov), scale_by_learning_rate(learning_rate))


def uncorrected_adam(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
) -> GradientTransformation:
    """Adaptive scaling without bias correction: θ ← θ − α m / (√v + eps).

    What Adam §6.4 compares with: early on √v is too small, the more so the nearer b2 is
    to 1, and the first steps are too long.
    """
    first, second = momentum(b1, accumulator_dtype=mu_dtype), second_moment(b2)
    scaled = parallel(first, second, merge=rms_ratio(eps, eps_root))
    return chain(scaled, scale_by_learning_rate(learning_rate))


def adam(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Adam: θ ← θ − α m̂ / (√v̂ + eps). Source: arXiv 1412.6980, Algorithm 1.

    With `nesterov` it is NAdam, as in Optax.
    """
    scaled = _adaptive(b1, b2, eps, eps_root, mu_dtype, nesterov)
    return chain(scaled, scale_by_learning_rate(learning_rate))


def adam_l2(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    l2: NumberOrSchedule = 1e-4,
    mask: optax.MaskOrFn = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Adam with L2 in the gradient: g ← g + λ′θ, then Adam. `l2` is λ′.

    What `weight_decay` does in PyTorch's Adam. Source: arXiv 1711.05101, Algorithm 2,
    the variant that the paper improves on.
    """
    scaled = _adaptive(b1, b2, eps, eps_root, mu_dtype, nesterov)
    return chain(l2_regularization(l2, mask), scaled, scale_by_learning_rate(learning_rate))


def adamw(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    weight_decay: NumberOrSchedule = 1e-4,
    mask: optax.MaskOrFn = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """AdamW: θ ← θ − α (m̂ / (√v̂ + eps) + λθ). Source: arXiv 1711.05101, Algorithm 2.

    The decay is multiplied by the learning rate, as in Optax and PyTorch and unlike in
    the paper: each step takes α·weight_decay of a parameter away.
    """
    scaled = _adaptive(b1, b2, eps, eps_root, mu_dtype, nesterov)
    decay = decoupled_weight_decay(weight_decay, mask)
    return chain(scaled, decay, scale_by_learning_rate(learning_rate))


def _adaptive(b1, b2, eps, eps_root, mu_dtype, nesterov):
    """The direction of Adam, m̂ / (√v̂ + eps)."""
    average = momentum(b1, accumulator_dtype=mu_dtype)
    first = chain(average, bias_correction(b1))
    if nesterov:
        next_first = chain(average, bias_correction(b1, ahead=1))
        first = parallel(next_first, bias_correction(b1), merge=nesterov_lookahead(b1))
    second = chain(second_moment(b2), bias_correction(b2))
    return parallel(first, second, merge=rms_ratio(eps, eps_root))

"""From gradient descent step by step to AdamW: compositions of the pieces, and nothing else.

Each optimizer reads like its equation. Each hyperparameter is explained once, in the
docstring of its piece: b1 and `nesterov` in `momentum` (`mu_dtype` is its
`accumulator_dtype`), b2 in `second_moment` (`nu_dtype`, likewise), eps and eps_root in `rms_ratio`,
`weight_decay` and `mask` in `decoupled_weight_decay`, `learning_rate` in
`scale_by_learning_rate`. Names, order and defaults are Optax's, so that `optax.adamw(...)`
may become `adamw(...)`. For half-precision parameters the moments are float32 here, and
half-precision in Optax.

docs/weight-decay.md says what `weight_decay` and `decay_per_step` mean. The optimizers'
directions, without learning rate and decay, are in `directions`, the relatives of Adam in
`relatives`, and what came after AdamW in `second_generation`.
"""

from typing import Any

import optax

from adamw_jax.combine import chain, check_transformations, parallel
from adamw_jax.conventions import per_step_from_weight_decay
from adamw_jax.core import GradientTransformation
from adamw_jax.decay import check_undecayed, decoupled_weight_decay, l2_regularization
from adamw_jax.directions import Number, scale_by_adam
from adamw_jax.encodings import dtype_or_encoding
from adamw_jax.hyperparameters import non_negative_or_schedule
from adamw_jax.merges import rms_ratio
from adamw_jax.moments import heavy_ball, momentum, second_moment
from adamw_jax.schedules import cosine_warm_restarts, renormalized_decay, scale_by_learning_rate

NumberOrSchedule = optax.ScalarOrSchedule


def gd(learning_rate: NumberOrSchedule) -> GradientTransformation:
    """Gradient descent: θ ← θ − α g. With minibatch gradients, SGD. Source: Cauchy (1847)."""
    return chain(scale_by_learning_rate(learning_rate))


def momentum_gd(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    *,
    nesterov: bool = False,
    accumulator_dtype: Any = None,
) -> GradientTransformation:
    """Gradient descent with momentum: m ← m + (1 − b1)(g − m); θ ← θ − α m.

    Source: the first moment of arXiv 1412.6980, Algorithm 1. `heavy_ball_gd` takes steps
    1/(1 − b1) times as long.
    """
    average = momentum(b1, nesterov=nesterov, accumulator_dtype=accumulator_dtype)
    return chain(average, scale_by_learning_rate(learning_rate))


def heavy_ball_gd(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    *,
    nesterov: bool = False,
    accumulator_dtype: Any = None,
) -> GradientTransformation:
    """Gradient descent with heavy-ball momentum: m ← b1 m + g; θ ← θ − α m.

    This is the SGD of PyTorch and Optax. Source: Polyak (1964), and with `nesterov`
    Sutskever et al. (2013).
    """
    total = heavy_ball(b1, nesterov=nesterov, accumulator_dtype=accumulator_dtype)
    return chain(total, scale_by_learning_rate(learning_rate))


def sgdw(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    decay_per_step: NumberOrSchedule = 1e-4,
    mask: optax.MaskOrFn = None,
    *,
    schedule: NumberOrSchedule = 1.0,
    accumulator_dtype: Any = None,
) -> GradientTransformation:
    """SGDW: m ← b1 m + ηα g; θ ← θ − m − ηλθ. Source: arXiv 1711.05101, Algorithm 1.

    The gradient is multiplied by α and η before it enters the momentum, so that a falling
    schedule does not shorten the steps that the momentum already holds.
    """
    decay_per_step = non_negative_or_schedule("decay_per_step", decay_per_step)
    schedule = non_negative_or_schedule("schedule", schedule)
    scaled = scale_by_learning_rate(learning_rate, flip_sign=False)
    scheduled = scale_by_learning_rate(schedule, flip_sign=False)
    decay = decoupled_weight_decay(per_step_from_weight_decay(decay_per_step, schedule), mask)
    total = heavy_ball(b1, accumulator_dtype=accumulator_dtype)
    return chain(scaled, scheduled, total, decay, scale_by_learning_rate(1.0))


def uncorrected_adam(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    *,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """Adaptive scaling without bias correction: θ ← θ − α m / (√v + eps).

    Source: arXiv 1412.6980, §6.4, where Adam is compared with it. Early on √v is too
    small, the more so the nearer b2 is to 1, and the first steps are too long.
    """
    first = momentum(b1, accumulator_dtype=dtype_or_encoding("mu_dtype", mu_dtype))
    second = second_moment(b2, accumulator_dtype=dtype_or_encoding("nu_dtype", nu_dtype))
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
    nu_dtype: Any = None,
) -> GradientTransformation:
    """Adam: θ ← θ − α m̂ / (√v̂ + eps). Source: arXiv 1412.6980, Algorithm 1.

    With `nesterov` it is NAdam, as in Optax.
    """
    scaled = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype)
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
    nu_dtype: Any = None,
) -> GradientTransformation:
    """Adam with L2 in the gradient: g ← g + λ′θ; θ ← θ − α m̂ / (√v̂ + eps). `l2` is λ′.

    This is what `weight_decay` does in PyTorch's Adam. Source: arXiv 1711.05101, Algorithm
    2, the variant that the paper improves on.
    """
    scaled = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype)
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
    nu_dtype: Any = None,
) -> GradientTransformation:
    """AdamW: θ ← θ − α (m̂ / (√v̂ + eps) + λθ). Source: arXiv 1711.05101, Algorithm 2.

    In the paper's own convention it is `decayed_per_step(adam(α), decay_per_step, schedule)`.
    """
    scaled = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype)
    decay = decoupled_weight_decay(weight_decay, mask)
    return chain(scaled, decay, scale_by_learning_rate(learning_rate))


def decayed_per_step(
    optimizer: optax.GradientTransformation,
    decay_per_step: NumberOrSchedule,
    schedule: NumberOrSchedule = 1.0,
    mask: optax.MaskOrFn = None,
) -> GradientTransformation:
    """Decay in the convention of the AdamW paper, for any optimizer: θ ← θ + η (u − λθ).

    Source: arXiv 1711.05101, Algorithm 2. With `adam(α)` as the optimizer it is that
    algorithm, and u = −α m̂ / (√v̂ + eps). The schedule η multiplies both the step and the
    decay; the learning rate α, which belongs to the optimizer and is constant, multiplies
    only the step. λ is `decay_per_step`. `optax.MultiSteps` must wrap the whole, not the
    optimizer inside.

    Raises:
      ValueError: as the pieces, or the optimizer decays the parameters already.
    """
    check_transformations("decayed_per_step", [optimizer])
    check_undecayed(optimizer)
    non_negative_or_schedule("decay_per_step", decay_per_step)
    non_negative_or_schedule("schedule", schedule)
    # The step is turned back into a direction, decay is added, and the sign flipped again.
    direction = optimizer, scale_by_learning_rate(1.0)
    decay = decoupled_weight_decay(decay_per_step, mask)
    return chain(*direction, decay, scale_by_learning_rate(schedule))


def adamwr(
    learning_rate: NumberOrSchedule,
    first_cycle: int,
    cycle_mult: int = 1,
    normalized_decay: Number = 0.025,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    mask: optax.MaskOrFn = None,
    *,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """AdamW with warm restarts: θ ← θ − η (α m̂ / (√v̂ + eps) + λᵢθ).

    Source: arXiv 1711.05101, Algorithm 2 with App. B. The schedule η is
    `cosine_warm_restarts(first_cycle, cycle_mult)`, with cycles in steps, and λᵢ is the
    `renormalized_decay` of the cycle.
    """
    optimizer = adam(learning_rate, b1, b2, eps, eps_root, mu_dtype, nu_dtype=nu_dtype)
    decay_per_step = renormalized_decay(normalized_decay, first_cycle, cycle_mult)
    schedule = cosine_warm_restarts(first_cycle, cycle_mult)
    return decayed_per_step(optimizer, decay_per_step, schedule, mask)

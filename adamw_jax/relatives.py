"""The relatives of Adam: each replaces or adds a piece or two.

As in `optimizers`, the pieces' docstrings explain the hyperparameters; those of `adam` mean
the same here. docs/family.md has all of them in one table, with equations, sources, memory
and the names in Optax and PyTorch.
"""

from typing import Any

import optax

from adamw_jax.combine import chain, parallel
from adamw_jax.conventions import per_step_from_weight_decay
from adamw_jax.core import GradientTransformation
from adamw_jax.decay import cautious_weight_decay, decoupled_weight_decay, proximal_weight_decay
from adamw_jax.directions import (
    Number,
    mean_square,
    scale_by_adam,
    scale_by_adamax,
    scale_by_amsgrad,
    scale_by_belief,
    scale_by_lion,
    scale_by_radam,
)
from adamw_jax.encodings import dtype_or_encoding
from adamw_jax.hyperparameters import non_negative_or_schedule
from adamw_jax.merges import clip_by_rms, rms_ratio
from adamw_jax.moments import second_moment
from adamw_jax.optimizers import NumberOrSchedule, adam, adamw
from adamw_jax.schedules import scale_by_learning_rate


def rmsprop(
    learning_rate: NumberOrSchedule,
    b2: Number = 0.9,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    *,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """RMSprop: θ ← θ − α g / (√v + eps). Source: Tieleman & Hinton (2012), Lecture 6.5.

    eps stands outside the root, as in PyTorch, which calls b2 alpha. Optax, which calls it
    decay, puts eps inside by default; that is `eps_root` here.
    """
    square = second_moment(b2, accumulator_dtype=dtype_or_encoding("nu_dtype", nu_dtype))
    scaled = parallel(chain(), square, merge=rms_ratio(eps, eps_root))
    return chain(scaled, scale_by_learning_rate(learning_rate))


def nadam(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    *,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """NAdam: θ ← θ − α (b1 m̂ₜ₊₁ + (1 − b1) ĝ) / (√v̂ + eps). Source: Dozat (2016).

    m̂ₜ₊₁ = m/(1 − b1ᵗ⁺¹) is the mean corrected one step ahead, ĝ = g/(1 − b1ᵗ). b1 is
    constant, as in Optax; PyTorch warms it up (its `momentum_decay`).
    """
    return adam(learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov=True, nu_dtype=nu_dtype)


def nadamw(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    weight_decay: NumberOrSchedule = 1e-4,
    mask: optax.MaskOrFn = None,
    *,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """NAdam with decoupled decay: θ ← θ − α (u + λθ), u as in `nadam`.

    Source: Dozat (2016) and arXiv 1711.05101.
    """
    others = {"weight_decay": weight_decay, "mask": mask, "nu_dtype": nu_dtype}
    return adamw(learning_rate, b1, b2, eps, eps_root, mu_dtype, **others, nesterov=True)


def amsgrad(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    *,
    max_before_correction: bool = False,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """AMSGrad: θ ← θ − α m̂ / (√max v̂ + eps). Source: arXiv 1904.09237, Algorithm 2.

    The maximum over the steps is taken of the corrected v̂, as in Optax; with
    `max_before_correction` it is taken of v and then corrected, as in PyTorch. (The paper corrects
    neither moment.)
    """
    others = {"max_before_correction": max_before_correction, "nu_dtype": nu_dtype}
    scaled = scale_by_amsgrad(b1, b2, eps, eps_root, mu_dtype, **others)
    return chain(scaled, scale_by_learning_rate(learning_rate))


def amsgradw(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    weight_decay: NumberOrSchedule = 1e-4,
    mask: optax.MaskOrFn = None,
    *,
    max_before_correction: bool = False,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """AMSGrad with decoupled decay: θ ← θ − α (m̂ / (√max v̂ + eps) + λθ).

    Source: arXiv 1904.09237 and 1711.05101.
    """
    others = {"max_before_correction": max_before_correction, "nu_dtype": nu_dtype}
    scaled = scale_by_amsgrad(b1, b2, eps, eps_root, mu_dtype, **others)
    decay = decoupled_weight_decay(weight_decay, mask)
    return chain(scaled, decay, scale_by_learning_rate(learning_rate))


def adamax(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    *,
    mu_dtype: Any = None,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """AdaMax: u ← max(b2 u, |g|); θ ← θ − α m̂ / (u + eps). Source: arXiv 1412.6980, §7.1.

    The paper's default is α = 0.002, and it has no eps; PyTorch and Optax take
    max(b2 u, |g| + eps).
    """
    scaled = scale_by_adamax(b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype)
    return chain(scaled, scale_by_learning_rate(learning_rate))


def adamaxw(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    weight_decay: NumberOrSchedule = 1e-4,
    mask: optax.MaskOrFn = None,
    *,
    mu_dtype: Any = None,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """AdaMax with decoupled decay: θ ← θ − α (m̂ / (u + eps) + λθ).

    Source: arXiv 1412.6980, §7.1 and 1711.05101.
    """
    scaled = scale_by_adamax(b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype)
    decay = decoupled_weight_decay(weight_decay, mask)
    return chain(scaled, decay, scale_by_learning_rate(learning_rate))


def radam(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    threshold: Number = 5.0,
    *,
    nesterov: bool = False,
    mu_dtype: Any = None,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """RAdam: θ ← θ − α rₜ m̂ / √v̂, at first θ ← θ − α m̂. Source: arXiv 1908.03265.

    `rectification` explains rₜ, the threshold, and how eps differs in PyTorch and Optax.
    """
    kept = {"mu_dtype": mu_dtype, "nu_dtype": nu_dtype}
    scaled = scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov, **kept)
    return chain(scaled, scale_by_learning_rate(learning_rate))


def adabelief(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-16,
    eps_root: Number = 1e-16,
    *,
    nesterov: bool = False,
    mu_dtype: Any = None,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """AdaBelief: s ← b2 s + (1 − b2)(g − m)² + eps_root; θ ← θ − α m̂ / (√ŝ + eps).

    Source: arXiv 2010.07468, Algorithm 2.
    """
    kept = {"mu_dtype": mu_dtype, "nu_dtype": nu_dtype}
    scaled = scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov, **kept)
    return chain(scaled, scale_by_learning_rate(learning_rate))


def lion(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.99,
    mu_dtype: Any = None,
    weight_decay: NumberOrSchedule = 1e-3,
    mask: optax.MaskOrFn = None,
) -> GradientTransformation:
    """Lion: θ ← θ − α (sign(b1 m + (1 − b1) g) + λθ); m ← b2 m + (1 − b2) g.

    Source: arXiv 2302.06675, Algorithm 2. b2 is the decay rate of the average m; b1 only
    mixes it with the gradient.
    """
    decay = decoupled_weight_decay(weight_decay, mask)
    return chain(scale_by_lion(b1, b2, mu_dtype), decay, scale_by_learning_rate(learning_rate))


def adam_prox(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    weight_decay: NumberOrSchedule = 1e-4,
    mask: optax.MaskOrFn = None,
    *,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """AdamProx: θ ← (θ − α m̂ / (√v̂ + eps)) / (1 + αλ). Source: arXiv 2202.00089.

    In the paper's own convention it is `chain(adam(…), proximal_weight_decay(…))`, where the
    former takes η·α and the latter η·λ.
    """
    weight_decay = non_negative_or_schedule("weight_decay", weight_decay)
    learning_rate = non_negative_or_schedule("learning_rate", learning_rate)
    step = adam(learning_rate, b1, b2, eps, eps_root, mu_dtype, nu_dtype=nu_dtype)
    decay_per_step = per_step_from_weight_decay(weight_decay, learning_rate)
    return chain(step, proximal_weight_decay(decay_per_step, mask))


def cautious_adamw(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    weight_decay: NumberOrSchedule = 1e-4,
    mask: optax.MaskOrFn = None,
    *,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """AdamW with cautious decay: θ ← θ − α (u + λ 1[u·θ ≥ 0] θ), u = m̂ / (√v̂ + eps).

    Source: arXiv 2510.12402, Algorithm 1, with Adam's step.
    """
    scaled = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nu_dtype=nu_dtype)
    decay = cautious_weight_decay(weight_decay, mask)
    return chain(scaled, decay, scale_by_learning_rate(learning_rate))


def stable_adamw(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    weight_decay: NumberOrSchedule = 1e-4,
    mask: optax.MaskOrFn = None,
    *,
    mu_dtype: Any = None,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """AdamW with update clipping: θ ← θ − α/max(1, RMS) (m̂ / (√v̂ + eps) + λθ).

    RMS = √mean(g² / max(v̂, eps²)) over a leaf, where stacked layers are one leaf; see
    `clip_by_rms`. Source: arXiv 2304.13013, Algorithm 2.
    """
    scaled = scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype)
    decayed = chain(scaled, decoupled_weight_decay(weight_decay, mask))
    clipped = parallel(decayed, chain(), mean_square(b2, nu_dtype), merge=clip_by_rms(eps))
    return chain(clipped, scale_by_learning_rate(learning_rate))

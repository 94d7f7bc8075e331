"""The second generation: what the field took up after AdamW, as compositions.

As in `relatives`, the pieces' docstrings explain the hyperparameters; those of `adam` mean the
same here. docs/family.md says what each does, and which implementation is the paper's;
docs/recipes.md has those that need no function of their own.
"""

from typing import Any

import optax

from adamw_jax.combine import chain, parallel
from adamw_jax.core import GradientTransformation
from adamw_jax.decay import decoupled_weight_decay
from adamw_jax.directions import Number, mean, mean_square, scale_by_adam
from adamw_jax.encodings import dtype_or_encoding, factored
from adamw_jax.factoring import rank_one, scale_by_parameter_rms
from adamw_jax.hyperparameters import decay_rate_or_schedule, non_negative_or_schedule
from adamw_jax.merges import cautious_step, clip_by_rms, rms_ratio, total
from adamw_jax.moments import momentum, second_moment
from adamw_jax.normalized import floored_rms_ratio, growing_clip, lagged_second_moment
from adamw_jax.optimizers import NumberOrSchedule
from adamw_jax.orthogonal import orthogonalize
from adamw_jax.schedule_free import schedule_free
from adamw_jax.schedules import rising_decay, scale_by_learning_rate


def schedule_free_adamw(
    learning_rate: NumberOrSchedule = 0.0025,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    weight_decay: NumberOrSchedule = 0.0,
    mask: optax.MaskOrFn = None,
    *,
    average_dtype: Any = None,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """Schedule-Free AdamW, whose parameters are y and whose result is x.

    z ← z − γ (g / (√v̂ + eps) + λy); x ← x + c (z − x); y = (1 − b1) z + b1 x.

    c = γ²/Σγ², and g is the gradient at y. `schedule_free_eval_params` gives x. Warm-up
    is a schedule, as `schedule_free` says. Source: arXiv 2405.15682, Algorithm 1.
    """
    kept = dtype_or_encoding("average_dtype", average_dtype)
    scaled = parallel(chain(), mean_square(b2, nu_dtype), merge=rms_ratio(eps))
    decay = decoupled_weight_decay(weight_decay, mask)
    return chain(scaled, decay, schedule_free(learning_rate, b1, accumulator_dtype=kept))


def ademamix(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.999,
    b3: Number | optax.Schedule = 0.9999,
    alpha: NumberOrSchedule = 5.0,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    weight_decay: NumberOrSchedule = 0.0,
    mask: optax.MaskOrFn = None,
    *,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """AdEMAMix: θ ← θ − η ((m̂₁ + α m₂) / (√v̂ + eps) + λθ). Source: arXiv 2409.03137, Algorithm 1.

    η is the learning rate. m₂ is a slower average, of decay rate b3, which is not corrected. The
    paper lets b3 and α grow, over the whole run: `b3=half_life_warmup(b1, 0.9999, T)` and
    `alpha=optax.linear_schedule(0.0, 5.0, T)`.
    """
    decay_rate_or_schedule("b3", b3)  # checked here, because momentum would call it b1
    non_negative_or_schedule("alpha", alpha)
    slow = momentum(b3, accumulator_dtype=dtype_or_encoding("mu_dtype", mu_dtype))
    weighted = chain(slow, scale_by_learning_rate(alpha, flip_sign=False))
    both = parallel(mean(b1, mu_dtype), weighted, merge=total())
    scaled = parallel(both, mean_square(b2, nu_dtype), merge=rms_ratio(eps, eps_root))
    decay = decoupled_weight_decay(weight_decay, mask)
    return chain(scaled, decay, scale_by_learning_rate(learning_rate))


def adopt(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.9,
    b2: Number = 0.9999,
    eps: Number = 1e-6,
    mu_dtype: Any = None,
    weight_decay: NumberOrSchedule = 0.0,
    mask: optax.MaskOrFn = None,
    *,
    nesterov: bool = False,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """ADOPT: m ← m + (1 − b1)(clip(g / max(√v, eps)) − m); θ ← θ − α (m + λθ).

    v is the second moment from before this gradient, and the clip ±(t − 1)^¼: the first step
    only makes v. Source: arXiv 2411.02853, Algorithm 2, with the clipping of its later versions.
    """
    kept = [dtype_or_encoding(*pair) for pair in (("mu_dtype", mu_dtype), ("nu_dtype", nu_dtype))]
    before = lagged_second_moment(b2, accumulator_dtype=kept[1])
    normalized = parallel(chain(), before, merge=floored_rms_ratio(eps))
    average = momentum(b1, nesterov=nesterov, accumulator_dtype=kept[0])
    decay = decoupled_weight_decay(weight_decay, mask)
    steps = scale_by_learning_rate(learning_rate)
    return chain(normalized, growing_clip(), average, decay, steps)


def c_adamw(
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
    """C-AdamW: θ ← θ − α (φ u / max(mean(φ), 10⁻³) + λθ), φ = 1[u·g > 0], u = m̂ / (√v̂ + eps).

    Source: arXiv 2411.16085, Algorithm 1. `cautious_adamw` is cautious in its decay, and this
    in its steps.
    """
    scaled = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nu_dtype=nu_dtype)
    agreeing = parallel(scaled, chain(), merge=cautious_step(1e-3))
    decay = decoupled_weight_decay(weight_decay, mask)
    return chain(agreeing, decay, scale_by_learning_rate(learning_rate))


def adafactor(
    learning_rate: NumberOrSchedule,
    power: Number = 0.8,
    eps: Number = 1e-30,
    floor: Number = 1e-3,
    weight_decay: NumberOrSchedule = 0.0,
    mask: optax.MaskOrFn = None,
    *,
    min_axis: int = 128,
) -> GradientTransformation:
    """Adafactor: θ ← θ − α (max(floor, RMS(θ)) u / max(1, RMS(u)) + λθ), u = g / √V.

    V is the rank-one approximation of v + eps, the second moment with b2 = 1 − t^(−power), of
    which only the means of rows and columns are kept. The paper's α is the schedule
    `lambda step: jnp.minimum(1e-2, (step + 1) ** -0.5)`; it has no decay. Source: arXiv
    1804.04235, Algorithms 4 and 5.
    """
    kept = factored(min_axis=min_axis)
    square = second_moment(rising_decay(power), accumulator_dtype=kept)
    second = parallel(square, merge=rank_one(eps, min_axis=min_axis))
    scaled = parallel(chain(), second, merge=rms_ratio(0.0))
    clipped = parallel(scaled, chain(), second, merge=clip_by_rms(0.0))
    decay = decoupled_weight_decay(weight_decay, mask)
    relative = scale_by_parameter_rms(floor)
    return chain(clipped, relative, decay, scale_by_learning_rate(learning_rate))


def muon(
    learning_rate: NumberOrSchedule,
    b1: Number = 0.95,
    eps: Number = 1e-7,
    mu_dtype: Any = None,
    weight_decay: NumberOrSchedule = 0.0,
    mask: optax.MaskOrFn = None,
    *,
    nesterov: bool = True,
    scale: str = "original",
) -> GradientTransformation:
    """Muon: m ← m + (1 − b1)(g − m); θ ← θ − α (s orthogonalize(m) + λθ), s by the shape of θ.

    With `nesterov`, m is that of momentum one step ahead. It is meant for hidden matrices; AdamW
    takes the rest: `partition({"*/head/*": adamw(3e-4), kind("weight"): muon(0.02), "*":
    adamw(3e-4)})`. `orthogonalize` explains eps, scale, and which axis is which. Source: Jordan et
    al. (2024); the scale "match_rms_adamw" is from arXiv 2502.16982.
    """
    kept = dtype_or_encoding("mu_dtype", mu_dtype)
    average = momentum(b1, nesterov=nesterov, accumulator_dtype=kept)
    orthogonal = parallel(average, merge=orthogonalize(eps, scale=scale))
    decay = decoupled_weight_decay(weight_decay, mask)
    return chain(orthogonal, decay, scale_by_learning_rate(learning_rate))

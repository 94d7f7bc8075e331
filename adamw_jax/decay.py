"""Weight decay. *Where it stands* is the whole difference between Adam+L2 and AdamW.

Before the adaptive scaling, λθ is part of the gradient and is divided by √v with it:
L2 regularization. After it, every parameter shrinks by the same fraction: decoupled decay
(AdamW, arXiv 1711.05101). The arithmetic is the same function, u ← u + λθ, and because it
adds, it always stands before the stage that flips the sign. That stage multiplies λ either
by the learning rate or by a schedule alone: see "Two conventions" in docs/weight-decay.md.

Cautious decay stands in the same place as decoupled decay. Proximal decay divides by 1 + λ instead
of multiplying by 1 − λ, so it needs the finished step and must stand last.
"""

from typing import Any

import jax.numpy as jnp
import optax

from adamw_jax import masks, trees
from adamw_jax.core import Description, GradientTransformation, describe
from adamw_jax.hyperparameters import as_float, non_negative_or_schedule
from adamw_jax.piece import piece


def decoupled_weight_decay(
    weight_decay: optax.ScalarOrSchedule, mask: optax.MaskOrFn = None
) -> GradientTransformation:
    """Adds a fraction of the parameters to the updates: u ← u + λθ, after the scaling.

    Args:
      weight_decay: λ ≥ 0, a number, a 0-d array or a schedule (step → number).
      mask: which parameters decay; all by default. Either a mask by rules (`decay_except`,
        `decay_only`), or a tree of booleans with the structure of the parameters or a
        prefix of it, or a function that makes such a tree from one like the parameters.
        The function is called with the parameters at `init` and with the updates
        afterwards; under `nnx.Optimizer` the former hold `Variable`s and the latter arrays.

    Returns:
      A transformation with state `StepsState` for a schedule, otherwise
      `optax.EmptyState`; with a mask, `optax.MaskedState` around it. Its update needs
      `params`.

    Raises:
      ValueError: λ is negative, infinite, NaN or not a number; the mask does not match the
        parameters (the message lists the paths that differ); the parameters are missing.
    """
    description = describe(decoupled_weight_decay, weight_decay, mask=mask)
    return _decaying(_add_decayed, "weight_decay", weight_decay, mask, description)


def l2_regularization(
    l2: optax.ScalarOrSchedule, mask: optax.MaskOrFn = None
) -> GradientTransformation:
    """Adds the gradient of (λ′/2)‖θ‖² to the gradients: g ← g + λ′θ, before the scaling.

    This is the same function as `decoupled_weight_decay`, under the name that it has where
    it stands first. For gradient descent the two are the same optimizer where λ′ = λ/α (AdamW,
    arXiv 1711.05101, Proposition 1); for Adam there is no such λ′ (Proposition 2).

    Args:
      l2: λ′ ≥ 0, a number, a 0-d array or a schedule (step → number).
      mask: see `decoupled_weight_decay`.

    Returns:
      A transformation, as `decoupled_weight_decay`.

    Raises:
      ValueError: as `decoupled_weight_decay`.
    """
    description = describe(l2_regularization, l2, mask=mask)
    return _decaying(_add_decayed, "l2", l2, mask, description)


def cautious_weight_decay(
    weight_decay: optax.ScalarOrSchedule, mask: optax.MaskOrFn = None
) -> GradientTransformation:
    """Decays only where the step moves towards zero anyway: u ← u + λ 1[u·θ ≥ 0] θ.

    Source: arXiv 2510.12402, Algorithm 1. It stands in the same place as
    `decoupled_weight_decay`, in either convention. (The *cautious optimizers* of arXiv
    2411.16085 are something else: they omit the step where it disagrees with the gradient.)

    Args:
      weight_decay: λ ≥ 0, a number, a 0-d array or a schedule (step → number).
      mask: see `decoupled_weight_decay`.

    Returns:
      A transformation, as `decoupled_weight_decay`. For complex numbers the condition is
      that the real part of u θ* is not negative.

    Raises:
      ValueError: as `decoupled_weight_decay`.
    """
    description = describe(cautious_weight_decay, weight_decay, mask=mask)
    return _decaying(_add_cautious, "weight_decay", weight_decay, mask, description)


def proximal_weight_decay(
    decay_per_step: optax.ScalarOrSchedule, mask: optax.MaskOrFn = None
) -> GradientTransformation:
    """Shrinks after the step instead of before: θ ← (θ + u) / (1 + λ), with u the finished step.

    This is the proximal step of (λ/2)‖θ‖²; decoupled decay agrees with it to first order in
    λ (AdamProx, arXiv 2202.00089). It never overshoots zero, however large λ is. It must
    stand last, after the stage that flips the sign.

    Args:
      decay_per_step: λ ≥ 0, a number, a 0-d array or a schedule (step → number): the
        learning rate times `weight_decay`, or the schedule times the paper's λ.
      mask: see `decoupled_weight_decay`.

    Returns:
      A transformation, as `decoupled_weight_decay`.

    Raises:
      ValueError: as `decoupled_weight_decay`.
    """
    description = describe(proximal_weight_decay, decay_per_step, mask=mask)
    return _decaying(_shrink, "decay_per_step", decay_per_step, mask, description)


def check_undecayed(part: Any) -> None:
    """Refuses an optimizer of this library that already decays the parameters.

    Args:
      part: the optimizer, or a part of its description.

    Raises:
      ValueError: it has decoupled decay, with a schedule or with a number other than zero.
    """
    decoupled = decoupled_weight_decay, cautious_weight_decay, proximal_weight_decay
    match getattr(part, "description", part):
        case Description(constructor, (rate, *_)) if constructor in decoupled:
            if callable(rate) or as_float(rate) > 0:
                raise ValueError(
                    f"the optimizer decays the parameters already, by {constructor.__name__}, "
                    "and more decay would be added to that: give it weight_decay=0.0"
                )
        case Description(_, args, kwargs):
            for inner in (*args, *kwargs.values()):
                check_undecayed(inner)
        case dict() as groups:
            for inner in groups.values():
                check_undecayed(inner)


def _decaying(arithmetic, name, value, mask, description):
    value = non_negative_or_schedule(name, value)
    stage = piece(description, arithmetic, (value,), params_for="weight decay")
    if mask is None:
        return stage
    # Each rule must match some parameter, though perhaps none that has an update.
    seen_later = mask.marks if isinstance(mask, masks.DecayMask) else mask
    first, later = (optax.masked(stage, masks.CheckedMask(m)) for m in (mask, seen_later))

    def update(updates, state, params=None, **extra_args):
        # A mask made from the updates has no entry for parameters without an update.
        params = trees.only_updated(params, updates)
        return later.update(updates, state, params, **extra_args)

    return GradientTransformation(first.init, update, description)


def _add_decayed(weight_decay):
    return lambda u, p: u + weight_decay * p


def _add_cautious(weight_decay):
    def add(u, p):
        # The product of the signs, since that of small numbers would underflow to zero.
        agree = (jnp.sign(u) * jnp.conj(jnp.sign(p))).real >= 0
        return jnp.where(agree, u + weight_decay * p, u)

    return add


def _shrink(decay_per_step):
    # Each factor by itself is at most 1, so that not even rounding passes zero.
    return lambda u, p: u / (1 + decay_per_step) - p * (decay_per_step / (1 + decay_per_step))

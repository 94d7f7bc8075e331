"""What a weight decay means: four ways to say how much of a weight a step takes away.

Without a gradient, a step of decoupled decay leaves θ ← (1 − λ)θ. This λ, the *decay per
step*, is the paper's (AdamW, arXiv 1711.05101, Algorithm 2, where the schedule multiplies
it). Others give it as

    weight_decay       λ / α, in PyTorch, Optax and Keras, which multiply by the rate α
    normalized decay   λ √(B T / b): λ times the root of the number of steps (App. B.1)
    timescale          1 / (λ steps_per_epoch), the epochs in which decay alone takes
                       a weight to 1/e (Wang & Aitchison, arXiv 2405.13698)

All functions take numbers, NumPy and JAX arrays, which broadcast, and give the same kind.
"""

import math
from typing import Any

import numpy as np

from adamw_jax.core import describe
from adamw_jax.schedules import Schedule


def per_step_from_weight_decay(weight_decay: Any, learning_rate: Any) -> Any:
    """λ = α · weight_decay, what PyTorch's and Optax's AdamW takes away in a step.

    Args:
      weight_decay: as `adamw` takes it; ≥ 0.
      learning_rate: α; ≥ 0. Either may be a schedule (step → number); then so is λ.
    """
    if callable(weight_decay) or callable(learning_rate):
        description = describe(per_step_from_weight_decay, weight_decay, learning_rate)
        return Schedule(lambda t: _at(weight_decay, t) * _at(learning_rate, t), description)
    return learning_rate * weight_decay


def weight_decay_from_per_step(decay_per_step: Any, learning_rate: Any) -> Any:
    """weight_decay = λ / α, what `adamw` wants for a decay per step of λ.

    Args:
      decay_per_step: λ ≥ 0.
      learning_rate: α > 0, the rate at which λ is meant, without its schedule: a number.
    """
    return decay_per_step / learning_rate


def per_step_from_normalized(
    normalized_decay: Any, batch_size: Any, examples: Any, epochs: Any
) -> Any:
    """λ = λ_norm √(b / (B T)) (AdamW, arXiv 1711.05101, App. B.1).

    b / (B T) is one over the number of steps, so that a run four times as long gets half
    the decay per step. The paper found its optimum at λ_norm from 0.025 to 0.05 on several
    data sets.

    Args:
      normalized_decay: λ_norm ≥ 0.
      batch_size: b, examples in a batch.
      examples: B, examples in an epoch.
      epochs: T, in the run, or in the cycle where there are warm restarts.
    """
    # Divided one after the other: the product may be too large for an int32 array.
    return normalized_decay * (batch_size / examples / epochs) ** 0.5


def normalized_from_per_step(
    decay_per_step: Any, batch_size: Any, examples: Any, epochs: Any
) -> Any:
    """λ_norm = λ √(B T / b), the inverse of `per_step_from_normalized`."""
    return decay_per_step * (examples / batch_size * epochs) ** 0.5


def per_step_from_timescale(timescale: Any, steps_per_epoch: Any) -> Any:
    """λ = 1 / (τ steps_per_epoch), the inverse of `timescale_from_per_step`."""
    return _reciprocal(timescale * steps_per_epoch)


def timescale_from_per_step(decay_per_step: Any, steps_per_epoch: Any) -> Any:
    """τ = 1 / (λ steps_per_epoch), in epochs; infinite where nothing decays.

    Far below one epoch the weights forget most of the data, far above the run's length the
    decay does nothing (arXiv 2405.13698).

    Args:
      decay_per_step: λ ≥ 0.
      steps_per_epoch: batches in an epoch; 1 for a timescale in steps.
    """
    return _reciprocal(decay_per_step * steps_per_epoch)


def _reciprocal(x: Any) -> Any:
    if type(x) in (int, float) and not x:
        return math.inf
    with np.errstate(divide="ignore"):
        return 1 / x


def _at(value: Any, step: Any) -> Any:
    return value(step) if callable(value) else value

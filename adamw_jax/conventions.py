"""Conversions between the numbers that say how strong a weight decay is.

Without a gradient, a step of decoupled decay leaves θ ← (1 − λ)θ. This λ is the *decay per
step*. The other numbers are

    weight_decay       λ / α, where α is the learning rate
    normalized decay   λ √(B T / b): λ times the root of the number of steps
                       (AdamW, arXiv 1711.05101, App. B.1)
    timescale          1 / (λ steps_per_epoch): the epochs in which decay alone takes a
                       weight to 1/e (Wang & Aitchison, arXiv 2405.13698)

docs/weight-decay.md says who uses which, and how a change of α affects them.

All functions take real numbers, NumPy arrays and JAX arrays, which broadcast. Given numbers
and NumPy arrays, they return numbers and NumPy arrays, computed in float64; given JAX
arrays, they return JAX arrays, in float32 or wider. Integers are converted to
floating-point numbers. An argument that is not a real number, or is out of range, raises a
`ValueError`; the values of a JAX array are never read, so its range is not checked.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax import numerics
from adamw_jax.core import describe
from adamw_jax.hyperparameters import as_float, is_real
from adamw_jax.schedules import Schedule


def per_step_from_weight_decay(weight_decay: Any, learning_rate: Any) -> Any:
    """λ = α · weight_decay, the decay per step of PyTorch's and Optax's AdamW.

    Args:
      weight_decay: as `adamw` takes it, in [0, ∞).
      learning_rate: α, in [0, ∞). If either is a schedule (step → number), so is λ.
    """
    decay = _scheduled("weight_decay", weight_decay)
    rate = _scheduled("learning_rate", learning_rate)
    if not callable(weight_decay) and not callable(learning_rate):
        return decay(0) * rate(0)
    description = describe(per_step_from_weight_decay, weight_decay, learning_rate)
    return Schedule(lambda step: decay(step) * rate(step), description)


def weight_decay_from_per_step(decay_per_step: Any, learning_rate: Any) -> Any:
    """weight_decay = λ / α, what `adamw` takes for a decay per step of λ.

    Args:
      decay_per_step: λ, in [0, ∞).
      learning_rate: α, in (0, ∞), the rate at which the decay per step is to be λ; a number, not
        a schedule.
    """
    decay_per_step = _non_negative("decay_per_step", decay_per_step)
    return decay_per_step / _positive("learning_rate", learning_rate)


def per_step_from_normalized(
    normalized_decay: Any, batch_size: Any, examples: Any, epochs: Any
) -> Any:
    """λ = λ_norm √(b / (B T)) (AdamW, arXiv 1711.05101, App. B.1).

    b / (B T) is one over the number of steps, so that a run four times as long gets half
    the decay per step. The paper found its optimum at λ_norm from 0.025 to 0.05 on several
    data sets.

    Args:
      normalized_decay: λ_norm, in [0, ∞).
      batch_size: b, examples in a batch, in (0, ∞).
      examples: B, examples in an epoch, in (0, ∞).
      epochs: T, in (0, ∞), in the run, or in the cycle where there are warm restarts.
    """
    normalized_decay = _non_negative("normalized_decay", normalized_decay)
    return normalized_decay / _steps(batch_size, examples, epochs) ** 0.5


def normalized_from_per_step(
    decay_per_step: Any, batch_size: Any, examples: Any, epochs: Any
) -> Any:
    """λ_norm = λ √(B T / b), the inverse of `per_step_from_normalized`."""
    decay_per_step = _non_negative("decay_per_step", decay_per_step)
    return decay_per_step * _steps(batch_size, examples, epochs) ** 0.5


def per_step_from_timescale(timescale: Any, steps_per_epoch: Any) -> Any:
    """λ = 1 / (τ steps_per_epoch), the inverse of `timescale_from_per_step`."""
    timescale = _real("timescale", timescale, "(0, ∞]", lambda x: x > 0)
    return _reciprocal(timescale * _positive("steps_per_epoch", steps_per_epoch))


def timescale_from_per_step(decay_per_step: Any, steps_per_epoch: Any) -> Any:
    """τ = 1 / (λ steps_per_epoch), in epochs; infinite where nothing decays.

    Far below one epoch the weights forget most of the data; far above the run's length the
    decay does nothing (arXiv 2405.13698).

    Args:
      decay_per_step: λ, in [0, ∞).
      steps_per_epoch: batches in an epoch, in (0, ∞); 1 for a timescale in steps.
    """
    decay_per_step = _non_negative("decay_per_step", decay_per_step)
    return _reciprocal(decay_per_step * _positive("steps_per_epoch", steps_per_epoch))


def _steps(batch_size: Any, examples: Any, epochs: Any) -> Any:
    """B T / b, the number of steps in a run."""
    examples, epochs = _positive("examples", examples), _positive("epochs", epochs)
    return examples / _positive("batch_size", batch_size) * epochs


def _reciprocal(x: Any) -> Any:
    if isinstance(x, float) and not x:
        return math.inf
    with np.errstate(divide="ignore"):
        return 1 / x


def _scheduled(name: str, value: Any) -> Callable[[Any], Any]:
    """A function from the step to a checked number; constant where the value is a number."""
    if callable(value):
        return lambda step: _non_negative(f"what the schedule of {name} returns", value(step))
    number = _non_negative(name, value)
    return lambda step: number


def _non_negative(name: str, value: Any) -> Any:
    return _real(name, value, "[0, ∞)", lambda x: (x >= 0) & (x < math.inf))


def _positive(name: str, value: Any) -> Any:
    return _real(name, value, "(0, ∞)", lambda x: (x > 0) & (x < math.inf))


def _real(name: str, value: Any, allowed: str, in_range: Callable[[Any], Any]) -> Any:
    """Checks a number or array, and returns it as a float or floating-point array."""
    if isinstance(value, jax.Array) and is_real(value.dtype):
        # Widened, since float16 ends at 65,504, and a run may have more steps than that.
        wide = value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(float)
        return wide.astype(numerics.working_dtype(wide))
    is_array = isinstance(value, np.ndarray) and value.shape and is_real(value.dtype)
    real = value.astype(np.float64) if is_array else as_float(value)
    if not np.all(in_range(real)):
        raise ValueError(
            f"{name} must be a number or an array of numbers in {allowed}, got {value!r}"
        )
    return real

"""Hyperparameters that change with the step, and the learning rate, which mostly does.

The first update sees `schedule(0)`, as in Optax.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamw_jax import numerics
from adamw_jax.core import Description, GradientTransformation, describe, jitted
from adamw_jax.hyperparameters import non_negative_or_schedule


class ScheduleState(NamedTuple):
    """State of a stage whose hyperparameter is a schedule.

    Attributes:
      count: the number of updates so far, int32 scalar; it saturates.
    """

    # Optax's name, though tuples have a method of that name.
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]


def scheduled_stage(
    arithmetic: Callable[..., optax.Updates],
    value: float | jax.Array | optax.Schedule,
    description: Description,
    *,
    needs_params: bool = False,
) -> GradientTransformation:
    """A stage with one hyperparameter, a number or a schedule, and no other memory.

    Its state is `ScheduleState` under a schedule, `optax.EmptyState` otherwise. The
    schedule itself is called outside the jitted arithmetic, which it would otherwise
    have to be compiled into, anew for each optimizer.

    Args:
      arithmetic: jitted `(value, updates, params) -> updates`.
      value: the hyperparameter, checked.
      description: the call that made the stage.
      needs_params: whether `arithmetic` gets the parameters, or None.
    """

    def init(params):
        numerics.check_floating(params)
        return ScheduleState(jnp.zeros([], jnp.int32)) if callable(value) else optax.EmptyState()

    def update(updates, state, params=None, **extra_args):
        del extra_args
        params = numerics.only_updated(params, updates) if needs_params else None
        if not callable(value):
            return arithmetic(value, updates, params), state
        return arithmetic(value(state.count), updates, params), _advance(state)

    return GradientTransformation(init, update, description)


@jitted
def _advance(state: ScheduleState) -> ScheduleState:
    return ScheduleState(jnp.asarray(optax.safe_increment(state.count)))


def scale_by_learning_rate(
    learning_rate: optax.ScalarOrSchedule, *, flip_sign: bool = True
) -> GradientTransformation:
    """Turns a direction into a step downhill: u ← −α u.

    Args:
      learning_rate: α ≥ 0, a number, a 0-d array or a schedule (step → number).
      flip_sign: whether to multiply by −α, the default, or by α.

    Returns:
      A transformation with state `ScheduleState` under a schedule, else
      `optax.EmptyState`.

    Raises:
      ValueError: the learning rate is negative, infinite, NaN or no number.
    """
    value = non_negative_or_schedule("learning_rate", learning_rate)
    description = describe(scale_by_learning_rate, learning_rate, flip_sign=flip_sign)
    scale = functools.partial(_scale, flip_sign=flip_sign)
    return scheduled_stage(scale, value, description)


@functools.partial(jitted, static_argnames="flip_sign")
def _scale(factor, updates, params, *, flip_sign):
    del params
    cast = numerics.scalar(factor)
    # Negated after the cast: a schedule may give an unsigned integer.
    rate = functools.cache(lambda dtype: -cast(dtype) if flip_sign else cast(dtype))
    scaled = numerics.map_leaves(lambda u: rate(u.dtype) * u, updates)
    return numerics.cast_like(scaled, updates)

"""Averaging in the place of a schedule (arXiv 2405.15682).

    chain(scale_by_adam(b1=0.0), schedule_free(α))     in the place of scale_by_learning_rate(α)

Gradients are taken at y, between an iterate z that moves and its average x, which is the result:

    z ← z − γ u;  x ← x + c (z − x);  y ← (1 − b1) z + b1 x,  with c = γ² / Σγ² over the steps.

The parameters of a training loop are y. Only e = x − y is remembered: it starts at zero, and
z = y − e b1/(1 − b1), so that these three lines are the same as

    y ← y − c b1/(1 − b1) e − (1 − b1 + b1 c) γ u;  e ← (1 − c)(e + (1 − b1) γ u).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamw_jax.circuit import Machine, key_of_call
from adamw_jax.core import GradientTransformation, describe, jitted
from adamw_jax.encodings import Encoding, Quantized, dtype_or_encoding, zeros_in
from adamw_jax.hyperparameters import decay_rate, non_negative_or_schedule
from adamw_jax.piece import check_state, piece


class AverageWeightState(NamedTuple):
    """The sum of the weights of an average of iterates.

    Attributes:
      weight_sum: Σγ² over the learning rates so far, a scalar in JAX's default precision.
    """

    weight_sum: jax.Array


class ScheduleFreeState(NamedTuple):
    """State of `schedule_free`.

    Attributes:
      to_average: x − y, shaped like the parameters, as `accumulator_dtype` says.
    """

    to_average: optax.Updates


def schedule_free(
    learning_rate: optax.ScalarOrSchedule,
    b1: jax.typing.ArrayLike = 0.9,
    *,
    accumulator_dtype: jax.typing.DTypeLike | Encoding | None = None,
) -> GradientTransformation:
    """Steps along a direction and averages the iterates: Schedule-Free learning.

    It stands last, in the place of `scale_by_learning_rate`, after a direction without momentum,
    and takes the place of both momentum and schedule. Decay before it acts at y. Source: arXiv
    2405.15682, Algorithm 1. The average is what is evaluated:

        averaged = schedule_free_eval_params(optimizer_state, params)

    A whole optimizer of constant learning rate is wrapped as
    `chain(optimizer, scale_by_learning_rate(1.0), schedule_free(1.0))`.

    Args:
      learning_rate: γ ≥ 0, a number, a 0-d array or a schedule (step → number), which should
        only warm up: `optax.linear_schedule(γ / T, γ, T - 1)` is the paper's γ min(1, t/T).
      b1: in [0, 1), a number or 0-d array: how near to the average the gradients are taken.
      accumulator_dtype: dtype in which x − y is kept, or an encoding, as in `momentum`.

    Returns:
      A transformation with state `(AverageWeightState, ScheduleFreeState)`, for a schedule with a
      `StepsState` before them.

    Raises:
      ValueError: the learning rate is negative, infinite, NaN or not a number, b1 is outside
        [0, 1), or accumulator_dtype is neither a dtype nor an encoding.
    """
    rate = non_negative_or_schedule("learning_rate", learning_rate)
    kept = dtype_or_encoding("accumulator_dtype", accumulator_dtype)
    description = describe(schedule_free, learning_rate, b1, accumulator_dtype=kept)
    return piece(
        description,
        _interpolate,
        (rate, decay_rate("b1", b1)),
        state=ScheduleFreeState,
        start=zeros_in(kept),
        encoding=kept if isinstance(kept, Encoding) else None,
        reads=_weights(rate, describe(schedule_free, learning_rate)),
    )


def schedule_free_eval_params(state: optax.OptState, params: optax.Params) -> optax.Params:
    """The averaged parameters x of an optimizer that ends in `schedule_free`.

    Args:
      state: the optimizer's state.
      params: the parameters of the training loop, y.

    Returns:
      A tree like the parameters, with their dtypes.

    Raises:
      ValueError: the state is not that of one such optimizer.
    """
    found = optax.tree.get_all_with_path(state, "to_average")
    if len(found) != 1:
        raise ValueError(
            f"the state has {len(found)} averages where one is needed: pass the state of one "
            "optimizer that ends in schedule_free"
        )
    ((_, offset),) = found
    offset = offset.decode() if isinstance(offset, Quantized) else offset
    return optax.apply_updates(params, offset)


def _interpolate(learning_rate, b1, share):
    c, complement = share.real, b1.complement.real
    pull = c * (1 - complement) / complement
    along = complement + (1 - complement) * c

    def step(u, e):
        moved = learning_rate * u
        new = -pull.astype(u.dtype) * e - along.astype(u.dtype) * moved
        return new, (1 - c).astype(u.dtype) * (e + complement.astype(u.dtype) * moved)

    return step


def _weights(rate: Any, description: Any) -> Machine:
    """The machine that puts out c, the weight of the new iterate in the average."""

    def update(inputs, state, params, extra_args):
        del params, extra_args
        check_state(state, AverageWeightState)
        return _share(state, rate(*inputs) if callable(rate) else rate)

    def init(params):
        del params
        return AverageWeightState(jnp.zeros([], float))

    return Machine(key_of_call(description, _share, (rate,)), init, update)


@jitted
def _share(state: AverageWeightState, rate: jax.Array) -> tuple[jax.Array, AverageWeightState]:
    square = jnp.square(jnp.asarray(rate, state.weight_sum.dtype))
    total = state.weight_sum + square
    moves = total > 0
    share = jnp.where(moves, square / jnp.where(moves, total, 1), 0)
    return share, AverageWeightState(total)

"""Schedules, and the learning rate, which usually follows one.

The first update sees `schedule(0)`, as in Optax, whose schedules work here. What Optax
lacks, endless warm restarts, is below.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from adamw_jax.core import Description, GradientTransformation, Readable, describe
from adamw_jax.hyperparameters import (
    flag,
    fraction,
    inner_fraction,
    non_negative,
    non_negative_or_schedule,
    positive_integer,
)
from adamw_jax.piece import piece


def scale_by_learning_rate(
    learning_rate: optax.ScalarOrSchedule, *, flip_sign: bool = True
) -> GradientTransformation:
    """Turns a direction into a step downhill: u ← −α u.

    Args:
      learning_rate: α ≥ 0, a number, a 0-d array or a schedule (step → number).
      flip_sign: whether to multiply by −α, the default, or by α.

    Returns:
      A transformation with state `StepsState` for a schedule, otherwise `optax.EmptyState`.

    Raises:
      ValueError: the learning rate is negative, infinite, NaN or not a number.
    """
    value = non_negative_or_schedule("learning_rate", learning_rate)
    description = describe(scale_by_learning_rate, learning_rate, flip_sign=flip_sign)
    arithmetic = _scale_down if flag("flip_sign", flip_sign) else _scale
    return piece(description, arithmetic, (value,))


def _scale(factor):
    return lambda u: factor * u


def _scale_down(factor):
    rate = -factor
    return lambda u: rate * u


class Schedule(Readable):
    """A schedule that prints as the call that made it.

    Attributes:
      function: step → number.
    """

    def __init__(
        self, function: Callable[[jax.typing.ArrayLike], jax.Array], description: Description
    ):
        self.function, self.description = function, description

    def __call__(self, step: jax.typing.ArrayLike) -> jax.Array:
        """The value for update number `step`, counted from 0."""
        return self.function(step)


def cosine_warm_restarts(
    first_cycle: int | jax.Array, cycle_mult: int = 1, floor: jax.typing.ArrayLike = 0.0
) -> optax.Schedule:
    """Cosine annealing with warm restarts: η = ½ + ½ cos(π T_cur / T_i), from 1 to the floor.

    Source: SGDR (arXiv 1608.03983, eq. 5); AdamW (arXiv 1711.05101, App. B.2). T_cur
    counts the steps since the restart. With cycles of 4 steps, the updates see
    1, 0.85, 0.5, 0.15, 1, 0.85, …: the first update after a restart sees 1, and the last
    before one sees T_cur = T_i − 1, so that no update sees 0. Unlike `optax.sgdr_schedule`,
    which needs every cycle written out, it never ends.

    Args:
      first_cycle: T_0 ≥ 1, the number of steps in the first cycle, an integer or 0-d array.
        The papers count in epochs: multiply by the number of steps in an epoch.
      cycle_mult: T_mult ≥ 1, an integer: each cycle is that many times as long as the last.
      floor: η_min in [0, 1], to which η falls: η = η_min + (1 − η_min)(½ + ½ cos …).

    Returns:
      A schedule, step → η in JAX's default precision. Multiply it by the learning rate, or
      pass it to `decayed_per_step`.

    Raises:
      ValueError: first_cycle or cycle_mult is not an integer ≥ 1, or floor is out of range.
    """
    description = describe(cosine_warm_restarts, first_cycle, cycle_mult, floor=floor)
    cycle, floor = _cycles(first_cycle, cycle_mult), fraction("floor", floor)

    def schedule(step):
        since_restart, length = cycle(step)
        return floor + (1 - floor) * (0.5 + 0.5 * jnp.cos(jnp.pi * since_restart / length))

    return Schedule(schedule, description)


def renormalized_decay(
    normalized_decay: jax.typing.ArrayLike, first_cycle: int | jax.Array, cycle_mult: int = 1
) -> optax.Schedule:
    """AdamWR's decay per step, renormalized in each cycle: λ = λ_norm √(b / (B T_i)).

    Source: AdamW (arXiv 1711.05101, App. B.2). B T_i / b is the number of steps in the
    cycle, so λ is λ_norm divided by its root.

    Args:
      normalized_decay: λ_norm ≥ 0, a number or 0-d array.
      first_cycle: as in `cosine_warm_restarts`.
      cycle_mult: as in `cosine_warm_restarts`.

    Returns:
      A schedule, step → λ in JAX's default precision, constant within a cycle.

    Raises:
      ValueError: as `cosine_warm_restarts`, or normalized_decay is negative.
    """
    description = describe(renormalized_decay, normalized_decay, first_cycle, cycle_mult)
    normalized = non_negative("normalized_decay", normalized_decay)
    cycle = _cycles(first_cycle, cycle_mult)
    return Schedule(lambda step: normalized / jnp.sqrt(cycle(step)[1]), description)


def half_life_warmup(
    first: jax.typing.ArrayLike, last: jax.typing.ArrayLike, steps: int | jax.Array
) -> optax.Schedule:
    """A decay rate whose half-life grows linearly, as AdEMAMix's b3: from `first` to `last`.

    ln b = 1 / ((1 − s) / ln first + s / ln last), with s = step/steps up to 1. Source: AdEMAMix
    (arXiv 2409.03137). A linear rise of b itself would reach long half-lives only at the very end.

    Args:
      first: the rate at step 0, in (0, 1), a number or 0-d array; b1 in the paper.
      last: the rate from step `steps` on, in (0, 1), a number or 0-d array.
      steps: ≥ 1, an integer or 0-d array.

    Returns:
      A schedule, step → decay rate in JAX's default precision, for `momentum`.

    Raises:
      ValueError: a rate is outside (0, 1), or steps is not an integer ≥ 1.
    """
    description = describe(half_life_warmup, first, last, steps)
    logs = [jnp.log(inner_fraction(name, b)) for name, b in (("first", first), ("last", last))]
    length = positive_integer("steps", steps)

    def schedule(step):
        share = jnp.minimum(jnp.asarray(step, float) / length, 1)
        return jnp.exp(1 / ((1 - share) / logs[0] + share / logs[1]))

    return Schedule(schedule, description)


def rising_decay(power: jax.typing.ArrayLike = 0.8) -> optax.Schedule:
    """Adafactor's decay rate of the second moment: b2 = 1 − t^(−power), for t = 1, 2, ….

    It is 0 at the first step, so that no bias correction is needed, and with power = 1 the moment
    would be the plain mean of all squares. Source: arXiv 1804.04235, §7.2.

    Args:
      power: ≥ 0, a number or 0-d array.

    Returns:
      A schedule, step → decay rate in JAX's default precision, for `second_moment`.

    Raises:
      ValueError: power is negative.
    """
    checked = non_negative("power", power)
    return Schedule(
        lambda step: 1 - (jnp.asarray(step, float) + 1) ** -checked, describe(rising_decay, power)
    )


def _cycles(first_cycle, cycle_mult):
    """A function from the step to the number of steps since the restart and the cycle's length."""
    first, mult = (
        positive_integer("first_cycle", first_cycle),
        positive_integer("cycle_mult", cycle_mult),
    )
    if not isinstance(mult, int):
        raise ValueError(
            "cycle_mult must be a plain integer: under optax.inject_hyperparams, "
            "name it among the static_args"
        )
    # Cycle n starts at c_n T_0, c_n = 1 + m + … + mⁿ⁻¹, and is mⁿ T_0 long. All integers:
    # with a logarithm of the step, restarts would be off by one.
    sums, powers = [0], [1]
    while mult > 1 and sums[-1] + powers[-1] < 2**31:
        sums.append(sums[-1] + powers[-1])
        powers.append(powers[-1] * mult)

    def cycle(step):
        step = jnp.asarray(step, int)
        starts, lengths = jnp.asarray(sums, int), jnp.asarray(powers, float)
        if mult == 1:
            return (step % first).astype(float), jnp.asarray(first, float)
        index = jnp.searchsorted(starts, step // first, side="right") - 1
        since_restart = (step - starts[index] * first).astype(float)
        return since_restart, lengths[index] * jnp.asarray(first, float)

    return cycle

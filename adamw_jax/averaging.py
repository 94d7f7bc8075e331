"""Averages of the parameters themselves, for evaluation."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamw_jax import numerics
from adamw_jax.core import GradientTransformation, describe, jitted
from adamw_jax.hyperparameters import decay_rate


class TemporalAverageState(NamedTuple):
    """State of `temporal_average`.

    Attributes:
      count: the number of updates so far, int32 scalar; it saturates.
      average: the corrected average of the parameters, in their shapes and in working
        precision; before the first update the parameters themselves.
    """

    # Optax's name, though tuples have a method of that name.
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]
    average: optax.Params


def temporal_average(b2: jax.typing.ArrayLike) -> GradientTransformation:
    """Averages the parameters over the steps; the updates pass as they are.

    θ̄ ← b2 θ̄ + (1 − b2) θ; θ̂ = θ̄ / (1 − b2ᵗ), from θ̄ = 0. Source: arXiv 1412.6980, §7.2.
    What is kept is the corrected average, which steps by
    θ̂ ← θ̂ + (1 − b2)/(1 − b2ᵗ) (θ − θ̂), so that it can be used as it stands:

        averaged = optax.tree.get(optimizer_state, "average")

    Stands last, where the updates are what will be added to the parameters:
    `chain(adam(1e-3), temporal_average(0.999))`.

    Args:
      b2: decay rate in [0, 1), a number or 0-d array; about 1/(1 − b2) steps are averaged.

    Returns:
      A transformation with state `TemporalAverageState`. Its update needs `params`. (The
      average of PyTorch's `get_ema_multi_avg_fn` starts at the first parameters instead,
      and remembers them.)

    Raises:
      ValueError: b2 is outside [0, 1), a parameter is not floating-point or complex (at
        `init`), or the parameters are missing.
    """
    operand = decay_rate("b2", b2)

    def init(params):
        numerics.check_floating(params, arrays_only=True)
        # Copies: the parameters' own buffers may be donated.
        average = jax.tree.map(lambda p: jnp.array(p, numerics.working_dtype(p)), params)
        return TemporalAverageState(jnp.zeros([], jnp.int32), average)

    def update(updates, state, params=None, **extra_args):
        del extra_args
        params = numerics.only_updated(params, updates, "temporal averaging")
        return updates, _temporal_average(operand, updates, state, params)

    return GradientTransformation(init, update, describe(temporal_average, b2))


@jitted
def _temporal_average(b2, updates, state, params):
    count = jnp.asarray(optax.safe_increment(state.count))
    t, c, log_b2 = map(numerics.scalar, (count, b2.complement, b2.log))

    @functools.cache
    def weight(dtype):
        real = numerics.real_dtype(dtype)
        return numerics.scalar(c(real) / -jnp.expm1(t(real) * log_b2(real)))(dtype)

    def step(u, p, average):
        del u
        return average + weight(average.dtype) * (p - average)

    params = jax.tree.map(_rounded, optax.apply_updates(params, updates))
    average = numerics.map_leaves(step, updates, params, state.average)
    return TemporalAverageState(count, numerics.cast_like(average, state.average))


def _rounded(p):
    """As the parameter will be: XLA leaves out a rounding that is undone right after."""
    info = jnp.finfo(p.dtype)
    if jnp.iscomplexobj(p) or info.bits >= 32:
        return p
    return jax.lax.reduce_precision(p, info.nexp, info.nmant)

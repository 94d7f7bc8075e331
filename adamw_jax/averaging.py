"""Averages of the parameters themselves, for evaluation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamw_jax import numerics, trees
from adamw_jax.circuit import Machine, single
from adamw_jax.core import GradientTransformation, describe, jitted
from adamw_jax.hyperparameters import decay_rate
from adamw_jax.piece import piece


class TemporalAverageState(NamedTuple):
    """State of `temporal_average`.

    Attributes:
      average: the corrected average of the parameters, with their shapes and in working
        precision; before the first update, the parameters themselves.
    """

    average: optax.Params


def temporal_average(b2: jax.typing.ArrayLike) -> GradientTransformation:
    """Averages the parameters over the steps and passes the updates on unchanged.

    θ̄ ← b2 θ̄ + (1 − b2) θ; θ̂ = θ̄ / (1 − b2ᵗ), from θ̄ = 0. Source: arXiv 1412.6980, §7.2.
    The state holds the corrected average itself, which is updated by
    θ̂ ← θ̂ + (1 − b2)/(1 − b2ᵗ) (θ − θ̂), so that it can be used directly:

        averaged = optax.tree.get(optimizer_state, "average")

    This piece must stand last, where the updates are what will be added to the parameters:
    `chain(adam(1e-3), temporal_average(0.999))`.

    Args:
      b2: decay rate in [0, 1), a number or 0-d array; about 1/(1 − b2) steps are averaged.

    Returns:
      A transformation with state `(StepsState, TemporalAverageState)`. Its update needs
      `params`. (The average of PyTorch's `get_ema_multi_avg_fn` starts at the first
      parameters instead, and remembers them.)

    Raises:
      ValueError: b2 is outside [0, 1), a parameter is not floating-point or complex (at
        `init`), or the parameters are missing.
    """
    description = describe(temporal_average, b2)
    averaged = piece(
        description,
        _corrected_average,
        (decay_rate("b2", b2),),
        state=TemporalAverageState,
        start=_copies,
        counts=True,
    )

    def wiring(circuit, source):
        # A side branch: the updates themselves pass unchanged.
        circuit.add(averaged, circuit.place(_NEXT_PARAMS, source))
        return source

    return single(wiring, description)


def _corrected_average(b2, t):
    weight = b2.complement.real / numerics.sum_of_weights(b2, t)

    def step(p, average):
        average = average + weight.astype(average.dtype) * (p - average)
        return average, average

    return step


def _copies(params):
    # Copies, because the parameters' own buffers may be donated.
    trees.check_floating(params, arrays_only=True)
    return jax.tree.map(lambda p: jnp.array(p, numerics.working_dtype(p)), params)


def _next_params(inputs, state, params, extra_args):
    del extra_args
    (updates,) = inputs
    trees.check_floating(updates, what="update")
    return _applied(trees.only_updated(params, updates, "temporal averaging"), updates), state


_NEXT_PARAMS = Machine(
    "next params", lambda params: None, _next_params, has_state=False, made_by=optax.apply_updates
)


@jitted
def _applied(params, updates):
    return jax.tree.map(_rounded, optax.apply_updates(params, updates))


def _rounded(p):
    """Rounds as the parameter will be: XLA drops a cast down that a cast up follows at once."""
    info = jnp.finfo(p.dtype)
    if jnp.iscomplexobj(p) or info.bits >= 32:
        return p
    return jax.lax.reduce_precision(p, info.nexp, info.nmant)

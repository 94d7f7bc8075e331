"""The ways of keeping moments and parameters that are compared."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import adamw_jax as aj
from experiments.training.loop import Hyperparameters

Optimizer = aj.GradientTransformation
BASE = "float32"


class Way(NamedTuple):
    """A way of keeping moments and parameters.

    Attributes:
      moments: makes the storage of the first and of the second moment from a seed.
      params: the dtype of the parameters.
      wrapper: what keeps the parameters' digits, made from an optimizer and a seed.
    """

    moments: Callable[[Any], tuple[Any, Any]] = lambda seed: (None, None)
    params: Any = jnp.float32
    wrapper: Callable[[Optimizer, Any], Optimizer] = lambda optimizer, seed: optimizer


def _alike(encoding: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, Any]]:
    return lambda seed: (encoding(seed), encoding(seed))


# The optimizer keeps bfloat16 parameters' moments in float32.
WAYS = {
    BASE: Way(),
    "moments in bfloat16, to nearest": Way(lambda seed: ("bfloat16", "bfloat16")),
    "moments in bfloat16, the second at random": Way(
        lambda seed: ("bfloat16", aj.stochastic_rounding(seed))
    ),
    "moments in 8 bits": Way(_alike(aj.blockwise_quantization)),
    "parameters in bfloat16, to nearest": Way(params=jnp.bfloat16),
    "parameters in bfloat16, at random": Way(
        params=jnp.bfloat16, wrapper=aj.with_stochastic_rounding
    ),
    "parameters in bfloat16, and remainders": Way(
        params=jnp.bfloat16, wrapper=lambda optimizer, seed: aj.with_master_weights(optimizer)
    ),
    "the same, moments in 8 bits": Way(
        _alike(aj.blockwise_quantization),
        jnp.bfloat16,
        lambda optimizer, seed: aj.with_master_weights(optimizer),
    ),
}


def optimizer(way: Way, steps: int, h: Hyperparameters) -> Optimizer:
    """AdamW with a cosine that falls to zero, which keeps what it keeps in a given way.

    Args:
      way: how.
      steps: the length of the cosine.
      h: `learning_rate`, `weight_decay`, and `bits`, the seed of the random bits.
    """
    mu, nu = way.moments(h["bits"])
    rate = optax.cosine_decay_schedule(h["learning_rate"], steps)
    adamw = aj.adamw(rate, mu_dtype=mu, nu_dtype=nu, weight_decay=h["weight_decay"])
    return way.wrapper(adamw, h["bits"])


def kept_in(dtype: Any, make: Callable[..., nnx.Module], *, rngs: nnx.Rngs) -> nnx.Module:
    """A network whose parameters are in another dtype; it computes in that of its inputs."""
    network = make(rngs=rngs)
    params = nnx.state(network, nnx.Param)
    nnx.update(network, jax.tree.map(lambda p: p.astype(dtype), params))
    return network


def bytes_each(
    way: Way, make: Callable[..., nnx.Module], h: Hyperparameters
) -> tuple[float, float]:
    """The bytes that a parameter and its part of the optimizer's state take, on average."""
    module = nnx.eval_shape(lambda: kept_in(way.params, make, rngs=nnx.Rngs(0)))
    params = nnx.as_pure(nnx.state(module, nnx.Param))
    state = jax.eval_shape(optimizer(way, 1, h).init, params)
    numbers = sum(x.size for x in jax.tree.leaves(params))
    of_params, of_state = (
        sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) / numbers
        for tree in (params, state)
    )
    return of_params, of_state

"""What every training shares: the state of a run, minibatches and gradient steps.

Numeric hyperparameters are data: the optimizer is built from them inside the compiled program,
so that one compilation serves every learning rate, weight decay and seed, and `vmap` maps over
them.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from adamw_jax import GradientTransformation
from experiments.harness.settings import SettingsError

Hyperparameters = Mapping[str, float | jax.Array]
Optimizer = Callable[[Hyperparameters], GradientTransformation]


class State(NamedTuple):
    """A run between two advances.

    Attributes:
      hyperparameters: what the optimizer is built from.
      key: the random key for the rest of the run.
      params: the network's parameters.
      opt_state: the optimizer's state.
      drawn: what the run drew for itself before it began, if anything; it never changes.
    """

    hyperparameters: Hyperparameters
    key: jax.Array
    params: Any
    opt_state: optax.OptState
    drawn: Any = None


def initial_state(
    optimizer: Optimizer,
    network: Callable[..., nnx.Module],
    hyperparameters: Hyperparameters,
    key: jax.Array,
) -> State:
    """Draws the initial weights of a network, which is made from `rngs=`."""
    key, init_key = jax.random.split(key)
    params = nnx.as_pure(nnx.state(network(rngs=nnx.Rngs(init_key)), nnx.Param))
    return State(hyperparameters, key, params, optimizer(hyperparameters).init(params))


def graph_of(network: Callable[..., nnx.Module]) -> Any:
    """The network without its parameters, for `nnx.merge`; nothing is computed."""
    return nnx.graphdef(nnx.eval_shape(lambda: network(rngs=nnx.Rngs(0))))


def descend(
    optimizer: Optimizer,
    loss: Callable[[Any, Any], jax.Array],
    state: State,
    batches: Any = None,
    steps: int | None = None,
) -> tuple[State, jax.Array]:
    """Takes one optimizer step for each batch.

    Args:
      optimizer: builds the optimizer from the state's hyperparameters.
      loss: maps parameters and one batch to a float scalar.
      state: the run before the first step.
      batches: a pytree whose leaves have the steps as their first axis; None if every step is on
        the same data.
      steps: how many steps to take; needed only without `batches`.

    Returns:
      The run after the last step, and each step's loss before it, float[steps].
    """
    tx = optimizer(state.hyperparameters)

    def step(carry, batch):
        params, opt_state = carry
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    carry = state.params, state.opt_state
    (params, opt_state), losses = jax.lax.scan(step, carry, batches, steps)
    return state._replace(params=params, opt_state=opt_state), losses


def minibatches(key: jax.Array, n: int, batch_size: int) -> jax.Array:
    """Shuffles n examples into batches of indices, int32[⌊n / batch_size⌋, batch_size].

    Which examples are left over differs from key to key.
    """
    return permutation(key, n)[: n - n % batch_size].reshape(-1, batch_size)


def permutation(key: jax.Array, n: int) -> jax.Array:
    """A random order of 0, …, n − 1, int32[n].

    `jax.random.permutation` sorts pairs, which takes a CPU several times as long as sorting
    integers that hold random bits above and the index below. Where the random bits tie, the
    first of two sorts keeps the order of the indices, and the second that of the first sort.
    """
    low = jnp.uint32((1 << (n - 1).bit_length()) - 1)
    index, order = jnp.arange(n, dtype=jnp.uint32), jnp.arange(n)
    for each in jax.random.split(key):
        high = jax.random.bits(each, (n,)) & ~low
        order = order[jnp.sort(high | index) & low]
    return order


def steps_per_epoch(images: int, batch_size: int) -> int:
    """How many whole batches the training images make.

    Raises:
      SettingsError: there is not even one.
    """
    if batch_size > images:
        raise SettingsError(f"batch_size = {batch_size} is more than the {images} training images")
    return images // batch_size

"""Training as a pair of pure functions, `start` and `advance`.

Numeric hyperparameters are data: the optimizer is built from them inside the compiled
program, so that one compilation serves every learning rate, weight decay and seed, and
`vmap` maps over them.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from adamw_jax import GradientTransformation
from adamw_jax.sweep import Run
from experiments.harness.data import Split

Array = jax.Array | np.ndarray
Hyperparameters = Mapping[str, float | jax.Array]


class State(NamedTuple):
    """A run between two epochs.

    Attributes:
      hyperparameters: what the optimizer is built from.
      key: randomness for the epochs to come.
      params: the network's parameters.
      opt_state: the optimizer's state.
    """

    hyperparameters: Hyperparameters
    key: jax.Array
    params: Any
    opt_state: optax.OptState


class Metrics(NamedTuple):
    """Measured after some epochs, float32 scalars; NaN for an empty split.

    Attributes:
      train_loss: mean cross-entropy of the last epoch's minibatches, each before its step.
      validation_loss: mean cross-entropy.
      validation_accuracy: share in [0, 1].
      test_loss: mean cross-entropy.
      test_accuracy: share in [0, 1].
      weight_norm: ‖θ‖₂ over all parameters.
    """

    train_loss: Array
    validation_loss: Array
    validation_accuracy: Array
    test_loss: Array
    test_accuracy: Array
    weight_norm: Array


def classifier(
    optimizer: Callable[[Hyperparameters], GradientTransformation],
    network: Callable[..., nnx.Module],
    batch_size: int,
    epochs: int,
    evaluations: int | None = None,
) -> Run:
    """Training of a classifier on minibatches, shuffled anew for every epoch.

    An epoch is ⌊n / batch_size⌋ steps; the images left over differ from epoch to epoch.

    Args:
      optimizer: builds the optimizer from the hyperparameters.
      network: makes the network from `rngs=`; it maps images to logits.
      batch_size: images in a step, at most those of the training split.
      epochs: how many.
      evaluations: how often the network is evaluated, a divisor of `epochs`; by default
        after every epoch. `advance` is what lies between two of them.
    """
    graph = nnx.graphdef(nnx.eval_shape(lambda: network(rngs=nnx.Rngs(0))))
    between, rest = divmod(epochs, evaluations or epochs)
    if rest:
        raise ValueError(f"{evaluations} evaluations do not divide {epochs} epochs")

    def start(hyperparameters, key, data):
        del data
        key, init_key = jax.random.split(key)
        params = nnx.as_pure(nnx.state(network(rngs=nnx.Rngs(init_key)), nnx.Param))
        return State(hyperparameters, key, params, optimizer(hyperparameters).init(params))

    def loss(params, images, labels):
        logits = nnx.merge(graph, params)(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def epoch(state, train):
        tx = optimizer(state.hyperparameters)
        key, order_key = jax.random.split(state.key)
        n = len(train.labels)
        order = permutation(order_key, n)[: n - n % batch_size]

        def step(carry, batch):
            params, opt_state = carry
            value, grads = jax.value_and_grad(loss)(
                params, train.images[batch], train.labels[batch]
            )
            updates, opt_state = tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

        (params, opt_state), losses = jax.lax.scan(
            step, (state.params, state.opt_state), order.reshape(-1, batch_size)
        )
        return State(state.hyperparameters, key, params, opt_state), losses.mean()

    def advance(state, data):
        state, losses = jax.lax.scan(
            lambda state, _: epoch(state, data.train), state, length=between
        )
        trained = nnx.merge(graph, state.params)
        metrics = Metrics(
            losses[-1],
            *_evaluate(trained, data.validation),
            *_evaluate(trained, data.test),
            optax.tree.norm(state.params),
        )
        return state, metrics

    return Run(start, advance, evaluations or epochs)


def permutation(key: jax.Array, n: int) -> jax.Array:
    """A random order of 0, …, n − 1, int32[n].

    `jax.random.permutation` sorts pairs, which takes a CPU several times as long as
    sorting integers that hold the random bits above and the index below. Where random
    bits tie, the first of two sorts keeps the order and the second that of the first.
    """
    low = jnp.uint32((1 << (n - 1).bit_length()) - 1)
    index, order = jnp.arange(n, dtype=jnp.uint32), jnp.arange(n)
    for each in jax.random.split(key):
        high = jax.random.bits(each, (n,)) & ~low
        order = order[jnp.sort(high | index) & low]
    return order


def _evaluate(network: Callable[[jax.Array], jax.Array], split: Split):
    logits = network(split.images)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, split.labels).mean()
    return loss, (jnp.argmax(logits, -1) == split.labels).mean()

"""Training of an image classifier on minibatches."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from adamw_jax.sweep import Run
from experiments.harness.data import Data, Split
from experiments.training.loop import (
    Hyperparameters,
    Optimizer,
    State,
    descend,
    graph_of,
    initial_state,
    minibatches,
)

Array = jax.Array | np.ndarray


class Metrics(NamedTuple):
    """Measured after some epochs, float32 scalars; NaN for an empty split.

    Attributes:
      train_loss: mean cross-entropy of the last epoch's minibatches, each before its step.
      validation_loss: mean cross-entropy.
      validation_accuracy: fraction in [0, 1].
      test_loss: mean cross-entropy.
      test_accuracy: fraction in [0, 1].
      weight_norm: ‖θ‖₂ over all parameters.
    """

    train_loss: Array
    validation_loss: Array
    validation_accuracy: Array
    test_loss: Array
    test_accuracy: Array
    weight_norm: Array


def classifier_run(
    optimizer: Optimizer,
    network: Callable[..., nnx.Module],
    batch_size: int,
    epochs: int,
    evaluations: int | None = None,
) -> Run:
    """The run that trains a classifier on minibatches, shuffled anew for every epoch.

    Its data is a `Data`, its metrics are `Metrics`. An epoch is ⌊n / batch_size⌋ steps; the
    images left over differ from epoch to epoch.

    Args:
      optimizer: builds the optimizer from the hyperparameters.
      network: makes the network from `rngs=`; it maps images to logits.
      batch_size: images in a step, at most as many as the training split has.
      epochs: passes over the training images.
      evaluations: how often the network is evaluated, a divisor of `epochs`; by default after
        every epoch. An advance is the epochs between two evaluations.

    Raises:
      ValueError: `evaluations` does not divide `epochs`.
    """
    graph = graph_of(network)
    between, rest = divmod(epochs, evaluations or epochs)
    if rest:
        raise ValueError(f"{evaluations} evaluations do not divide {epochs} epochs")

    def start(hyperparameters: Hyperparameters, key: jax.Array, data: Data) -> State:
        del data
        return initial_state(optimizer, network, hyperparameters, key)

    def epoch(state: State, train: Split) -> tuple[State, jax.Array]:
        def loss(params, batch):
            logits = nnx.merge(graph, params)(train.images[batch])
            return cross_entropy(logits, train.labels[batch])

        key, order_key = jax.random.split(state.key)
        batches = minibatches(order_key, len(train.labels), batch_size)
        state, losses = descend(optimizer, loss, state._replace(key=key), batches)
        return state, losses.mean()

    def advance(state: State, data: Data) -> tuple[State, Metrics]:
        state, losses = jax.lax.scan(
            lambda state, _: epoch(state, data.train), state, length=between
        )
        trained = nnx.merge(graph, state.params)
        validation, test = (evaluate(trained, split) for split in (data.validation, data.test))
        return state, Metrics(losses[-1], *validation, *test, optax.tree.norm(state.params))

    return Run(start, advance, evaluations or epochs)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of logits float[n, classes] against labels int[n], a scalar."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def evaluate(
    network: Callable[[jax.Array], jax.Array], split: Split
) -> tuple[jax.Array, jax.Array]:
    """The mean cross-entropy, and the fraction of images that are classified correctly."""
    logits = network(split.images)
    return cross_entropy(logits, split.labels), (jnp.argmax(logits, -1) == split.labels).mean()

"""Training of an image classifier on minibatches."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from adamw_jax.sweep import Run
from experiments.harness.data import Data
from experiments.training.calibration import temperature
from experiments.training.loop import (
    Hyperparameters,
    Optimizer,
    State,
    descend,
    graph_of,
    initial_state,
    minibatches,
)
from experiments.training.sample import Sample, draw

Array = jax.Array | np.ndarray


class Metrics(NamedTuple):
    """Measured after some epochs, float32 scalars; NaN for an empty split.

    Attributes:
      train_loss: mean cross-entropy of the last epoch's minibatches, each before its step.
      validation_loss: mean cross-entropy.
      validation_calibrated_loss: the same, with the logits divided by `temperature`.
      validation_accuracy: fraction in [0, 1].
      test_loss: mean cross-entropy.
      test_calibrated_loss: the same, with the logits divided by `temperature`.
      test_accuracy: fraction in [0, 1].
      temperature: the one with the least loss on the validation images; NaN if there are none.
      weight_norm: ‖θ‖₂ over all parameters.
    """

    train_loss: Array
    validation_loss: Array
    validation_calibrated_loss: Array
    validation_accuracy: Array
    test_loss: Array
    test_calibrated_loss: Array
    test_accuracy: Array
    temperature: Array
    weight_norm: Array


def classifier_run(
    optimizer: Optimizer,
    network: Callable[..., nnx.Module],
    size: Sample,
    batch_size: int,
    epochs: int,
    evaluations: int | None = None,
) -> Run:
    """The run that trains a classifier on minibatches, shuffled anew for every epoch.

    Its data is a `Data`, of which each run draws its own images; its metrics are `Metrics`. An
    epoch is ⌊n / batch_size⌋ steps; the images left over differ from epoch to epoch. Validation
    and test labels are right even where training labels are wrong.

    Args:
      optimizer: builds the optimizer from the hyperparameters.
      network: makes the network from `rngs=`; it maps images to logits.
      size: how many images a run draws.
      batch_size: images in a step, at most as many as there are to train on.
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
        key, draw_key = jax.random.split(key)
        state = initial_state(optimizer, network, hyperparameters, key)
        return state._replace(drawn=draw(size, draw_key, data.train.labels))

    def epoch(state: State, images: jax.Array) -> tuple[State, jax.Array]:
        def loss(params, batch):
            logits = nnx.merge(graph, params)(images[state.drawn.train[batch]])
            return cross_entropy(logits, state.drawn.labels[batch])

        key, order_key = jax.random.split(state.key)
        batches = minibatches(order_key, size.train, batch_size)
        state, losses = descend(optimizer, loss, state._replace(key=key), batches)
        return state, losses.mean()

    def advance(state: State, data: Data) -> tuple[State, Metrics]:
        state, losses = jax.lax.scan(
            lambda state, _: epoch(state, data.train.images), state, length=between
        )
        trained, held_out = nnx.merge(graph, state.params), state.drawn.validation
        logits, labels = trained(data.train.images[held_out]), data.train.labels[held_out]
        fitted = temperature(logits, labels)
        validation = scores(logits, labels, fitted)
        test = scores(trained(data.test.images), data.test.labels, fitted)
        norm = optax.tree.norm(state.params)
        return state, Metrics(losses[-1], *validation, *test, fitted, norm)

    return Run(start, advance, evaluations or epochs)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of logits float[n, classes] against labels int[n], a scalar."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Fraction of logits float[n, classes] that are largest at the label int[n], a scalar."""
    return (jnp.argmax(logits, -1) == labels).mean()


def scores(
    logits: jax.Array, labels: jax.Array, fitted: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The loss, the loss of the logits divided by the temperature `fitted`, and the accuracy."""
    calibrated = cross_entropy(logits / fitted, labels)
    return cross_entropy(logits, labels), calibrated, accuracy(logits, labels)

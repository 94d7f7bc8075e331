"""Training as a pair of pure functions, `start` and `advance`.

Numeric hyperparameters are data: the optimizer is built from them inside the compiled
program, so that one compilation serves every learning rate, weight decay and seed, and
`vmap` maps over them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from adamw_jax import GradientTransformation
from experiments.data import Data, Split
from experiments.models import MLP

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
    """Measured after an epoch, float32 scalars; NaN for an empty split.

    Attributes:
      train_loss: mean cross-entropy of the epoch's minibatches, each before its step.
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


class Run(NamedTuple):
    """The pair.

    Attributes:
      start: `(hyperparameters, key, data) -> State`.
      advance: `(state, data) -> (State, Metrics)`, one epoch.
    """

    start: Callable[[Hyperparameters, jax.Array, Data], State]
    advance: Callable[[State, Data], tuple[State, Metrics]]


def classifier(
    optimizer: Callable[[Hyperparameters], GradientTransformation],
    widths: Sequence[int],
    batch_size: int,
) -> Run:
    """Training of an MLP classifier on minibatches, shuffled anew for every epoch.

    An epoch is ⌊n / batch_size⌋ steps; the images left over differ from epoch to epoch.

    Args:
      optimizer: builds the optimizer from the hyperparameters.
      widths: sizes of the layers, input and output included.
      batch_size: images in a step, at most those of the training split.
    """
    graph = nnx.graphdef(nnx.eval_shape(lambda: MLP(widths, rngs=nnx.Rngs(0))))

    def start(hyperparameters, key, data):
        del data
        key, init_key = jax.random.split(key)
        params = nnx.as_pure(nnx.state(MLP(widths, rngs=nnx.Rngs(init_key)), nnx.Param))
        return State(hyperparameters, key, params, optimizer(hyperparameters).init(params))

    def loss(params, images, labels):
        logits = nnx.merge(graph, params)(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def advance(state, data):
        tx = optimizer(state.hyperparameters)
        key, order_key = jax.random.split(state.key)
        n = len(data.train.labels)
        order = jax.random.permutation(order_key, n)[: n - n % batch_size]

        def step(carry, batch):
            params, opt_state = carry
            images, labels = data.train.images[batch], data.train.labels[batch]
            value, grads = jax.value_and_grad(loss)(params, images, labels)
            updates, opt_state = tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

        (params, opt_state), losses = jax.lax.scan(
            step, (state.params, state.opt_state), order.reshape(-1, batch_size)
        )
        network = nnx.merge(graph, params)
        metrics = Metrics(
            losses.mean(),
            *_evaluate(network, data.validation),
            *_evaluate(network, data.test),
            optax.tree.norm(params),
        )
        return State(state.hyperparameters, key, params, opt_state), metrics

    return Run(start, advance)


def _evaluate(network: Callable[[jax.Array], jax.Array], split: Split):
    logits = network(split.images)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, split.labels).mean()
    return loss, (jnp.argmax(logits, -1) == split.labels).mean()

"""Training of a small network on modular addition: a + b mod p, from some of the pairs (a, b)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from adamw_jax import GradientTransformation, adamw
from adamw_jax.sweep import Run
from experiments.training.classifier import cross_entropy
from experiments.training.loop import (
    Hyperparameters,
    Optimizer,
    State,
    descend,
    graph_of,
    initial_state,
)


class Split(NamedTuple):
    """Pairs and their sums.

    Attributes:
      pairs: int32[n, 2], each in [0, p).
      sums: int32[n], modulo p.
    """

    pairs: jax.Array
    sums: jax.Array


class Pairs(NamedTuple):
    """All p² pairs, split into training and test pairs."""

    train: Split
    test: Split


class Metrics(NamedTuple):
    """Measured after an advance, float32 scalars.

    Attributes:
      train_loss: mean cross-entropy of the training pairs.
      train_accuracy: fraction in [0, 1].
      test_loss: mean cross-entropy of the test pairs.
      test_accuracy: fraction in [0, 1].
      weight_norm: ‖θ‖₂ over all parameters.
    """

    train_loss: jax.Array
    train_accuracy: jax.Array
    test_loss: jax.Array
    test_accuracy: jax.Array
    weight_norm: jax.Array


class Adder(nnx.Module):
    """Logits of a + b mod p: embeddings of both, a hidden layer of ReLU, and p outputs.

    Args:
      p: the modulus.
      embedding: size of a number's embedding.
      hidden: width of the hidden layer.
      rngs: the source of the initial weights (LeCun normal, embeddings of variance
        1 / embedding; biases are 0).
    """

    def __init__(self, p: int, embedding: int, hidden: int, *, rngs: nnx.Rngs):
        self.numbers = nnx.Embed(p, embedding, rngs=rngs)
        self.first = nnx.Linear(embedding, hidden, rngs=rngs)
        self.second = nnx.Linear(embedding, hidden, use_bias=False, rngs=rngs)
        self.logits = nnx.Linear(hidden, p, rngs=rngs)

    def __call__(self, pairs: jax.Array) -> jax.Array:
        """Maps int[n, 2] to float[n, p]."""
        # The hidden layer takes the concatenated embeddings of a and b. It is computed in two
        # halves, each once per number instead of once per pair. One-hot rows select from the
        # tables, because the gradient of indexing, a scatter, is slow on a CPU.
        table = self.numbers.embedding[...]
        a, b = jnp.moveaxis(jax.nn.one_hot(pairs, len(table)), -2, 0)
        return self.logits(nnx.relu(a @ self.first(table) + b @ self.second(table)))


def modular_addition(p: int, fraction: float, seed: int) -> Pairs:
    """All pairs of numbers below p, split at random.

    Args:
      p: the modulus.
      fraction: the fraction of the pairs to train on, in (0, 1).
      seed: the seed of the split.
    """
    pairs = np.stack(np.divmod(np.arange(p * p), p), 1).astype(np.int32)
    order = np.random.default_rng(seed).permutation(p * p)
    count = round(fraction * p * p)

    def split(rows):
        return Split(jnp.asarray(pairs[rows]), jnp.asarray(pairs[rows].sum(1) % p))

    return Pairs(split(order[:count]), split(order[count:]))


def decayed(hyperparameters: Hyperparameters) -> GradientTransformation:
    """AdamW with b2 = 0.98, as in arXiv 2201.02177, App. A.1.2."""
    rate, decay = hyperparameters["learning_rate"], hyperparameters["weight_decay"]
    return adamw(rate, b2=0.98, weight_decay=decay)


def addition_run(
    optimizer: Optimizer, p: int, embedding: int, hidden: int, steps: int, evaluations: int
) -> Run:
    """The run that trains an `Adder`, in each step on all training pairs.

    Its data is `Pairs`, its metrics are `Metrics`.

    Args:
      optimizer: builds the optimizer from the hyperparameters, for example `decayed`.
      p: the modulus.
      embedding: as in `Adder`.
      hidden: as in `Adder`.
      steps: optimizer steps in the whole run.
      evaluations: how often the network is evaluated, a divisor of `steps`. An advance is the
        steps between two evaluations.

    Raises:
      ValueError: `evaluations` does not divide `steps`.
    """
    between, rest = divmod(steps, evaluations)
    if rest:
        raise ValueError(f"{evaluations} evaluations do not divide {steps} steps")
    network = functools.partial(Adder, p, embedding, hidden)
    graph = graph_of(network)

    def start(hyperparameters: Hyperparameters, key: jax.Array, data: Pairs) -> State:
        del data
        return initial_state(optimizer, network, hyperparameters, key)

    def measure(params, split):
        logits = nnx.merge(graph, params)(split.pairs)
        return cross_entropy(logits, split.sums), (jnp.argmax(logits, -1) == split.sums).mean()

    def advance(state: State, data: Pairs) -> tuple[State, Metrics]:
        def loss(params, batch):
            del batch
            return measure(params, data.train)[0]

        state, _ = descend(optimizer, loss, state, steps=between)
        train, test = (measure(state.params, split) for split in data)
        return state, Metrics(*train, *test, optax.tree.norm(state.params))

    return Run(start, advance, evaluations)

"""Training of a small network on modular addition: a + b mod p, from some of the pairs (a, b)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from adamw_jax import GradientTransformation, adamw
from adamw_jax.sweep import Run, training
from experiments.training.classifier import accuracy, cross_entropy
from experiments.training.loop import Hyperparameters, Optimizer


class Split(NamedTuple):
    """Pairs and their sums.

    Attributes:
      pairs: int32[n, 2], each in [0, p).
      sums: int32[n], modulo p.
    """

    pairs: jax.Array
    sums: jax.Array


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


def modular_addition(p: int, fraction: float, seed: int) -> dict[str, Split]:
    """All pairs of numbers below p, split at random into "train" and "test".

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

    return {"train": split(order[:count]), "test": split(order[count:])}


def decayed(hyperparameters: Hyperparameters) -> GradientTransformation:
    """AdamW with b2 = 0.98, as in arXiv 2201.02177, App. A.1.2."""
    rate, decay = hyperparameters["learning_rate"], hyperparameters["weight_decay"]
    return adamw(rate, b2=0.98, weight_decay=decay)


def addition_run(
    optimizer: Optimizer, p: int, embedding: int, hidden: int, steps: int, evaluations: int
) -> Run:
    """The run that trains an `Adder`, in each step on all training pairs.

    Its data are the pairs of `modular_addition`, its metrics are `train_loss`, before the last
    step, and those of `measured`.

    Args:
      optimizer: builds the optimizer from the hyperparameters, for example `decayed`.
      p: the modulus.
      embedding: as in `Adder`.
      hidden: as in `Adder`.
      steps: optimizer steps in the whole run.
      evaluations: how often the network is evaluated, a divisor of `steps`.

    Raises:
      ValueError: `evaluations` does not divide `steps`.
    """
    return training(
        functools.partial(Adder, p, embedding, hidden),
        lambda model, pairs: cross_entropy(model(pairs.pairs), pairs.sums),
        optimizer,
        epochs=steps,
        batch_size=None,
        evaluate=measured,
        evaluations=evaluations,
    )


def measured(model: Adder, data: dict[str, Split]) -> dict[str, jax.Array]:
    """The scores of a model.

    Returns:
      Float32 scalars: `train_accuracy` and `test_accuracy`, fractions in [0, 1]; `test_loss`, the
      mean cross-entropy of the test pairs; and `weight_norm`, ‖θ‖₂ over all parameters.
    """
    logits = {name: model(split.pairs) for name, split in data.items()}
    return {
        "test_loss": cross_entropy(logits["test"], data["test"].sums),
        "weight_norm": optax.tree.norm(nnx.state(model, nnx.Param)),
    } | {f"{name}_accuracy": accuracy(logits[name], split.sums) for name, split in data.items()}

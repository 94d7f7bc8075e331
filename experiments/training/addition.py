"""Training of a small network on modular addition, where weight decay decides what it learns.

The task of Power et al. (arXiv 2201.02177): from some of the pairs (a, b), learn a + b mod p
for all of them. A network soon knows the given pairs by heart, and the others much later, all
at once, or never.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from adamw_jax import GradientTransformation, adamw
from adamw_jax.sweep import Run
from experiments.training.classifier import Hyperparameters, State


class Split(NamedTuple):
    """Pairs and their sums.

    Attributes:
      pairs: int32[n, 2], each in [0, p).
      sums: int32[n], modulo p.
    """

    pairs: jax.Array
    sums: jax.Array


class Pairs(NamedTuple):
    """All p² pairs, in two parts."""

    train: Split
    test: Split


class Metrics(NamedTuple):
    """Measured after an advance, float32 scalars.

    Attributes:
      train_loss: mean cross-entropy of the training pairs.
      train_accuracy: share in [0, 1].
      test_loss: mean cross-entropy of the other pairs.
      test_accuracy: share in [0, 1].
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
        # The layer on the joined embeddings of a and b, in two halves, each of which is
        # computed once for a number and not once for a pair. One-hot rows pick from the
        # tables, because the gradient of indexing, a scatter, is slow on a CPU.
        table = self.numbers.embedding[...]
        a, b = jnp.moveaxis(jax.nn.one_hot(pairs, len(table)), -2, 0)
        return self.logits(nnx.relu(a @ self.first(table) + b @ self.second(table)))


def modular_addition(p: int, share: float, seed: int) -> Pairs:
    """All pairs of numbers below p, parted at random.

    Args:
      p: the modulus.
      share: of the pairs that are trained on, in (0, 1).
      seed: of the parting.
    """
    pairs = np.stack(np.divmod(np.arange(p * p), p), 1).astype(np.int32)
    order = np.random.default_rng(seed).permutation(p * p)
    count = round(share * p * p)

    def split(rows):
        return Split(jnp.asarray(pairs[rows]), jnp.asarray(pairs[rows].sum(1) % p))

    return Pairs(split(order[:count]), split(order[count:]))


def decayed(hyperparameters: Hyperparameters) -> GradientTransformation:
    """AdamW with b2 = 0.98, as in arXiv 2201.02177, App. A.1.2."""
    rate, decay = hyperparameters["learning_rate"], hyperparameters["weight_decay"]
    return adamw(rate, b2=0.98, weight_decay=decay)


def addition(
    optimizer: Callable[[Hyperparameters], GradientTransformation],
    p: int,
    embedding: int,
    hidden: int,
    steps: int,
    evaluations: int,
) -> Run:
    """Training on all given pairs at once; the data is `Pairs`, the metrics `Metrics`.

    Args:
      optimizer: builds the optimizer from the hyperparameters, for example `decayed`.
      p: the modulus.
      embedding: as in `Adder`.
      hidden: as in `Adder`.
      steps: how many.
      evaluations: how often the network is evaluated, a divisor of `steps`. An advance is
        what lies between two of them.
    """
    between, rest = divmod(steps, evaluations)
    if rest:
        raise ValueError(f"{evaluations} evaluations do not divide {steps} steps")
    graph = nnx.graphdef(nnx.eval_shape(lambda: Adder(p, embedding, hidden, rngs=nnx.Rngs(0))))

    def start(hyperparameters: Hyperparameters, key: jax.Array, data: Any) -> State:
        del data
        key, init_key = jax.random.split(key)
        adder = Adder(p, embedding, hidden, rngs=nnx.Rngs(init_key))
        params = nnx.as_pure(nnx.state(adder, nnx.Param))
        return State(hyperparameters, key, params, optimizer(hyperparameters).init(params))

    def loss(params, split):
        logits = nnx.merge(graph, params)(split.pairs)
        mean = optax.softmax_cross_entropy_with_integer_labels(logits, split.sums).mean()
        return mean, (jnp.argmax(logits, -1) == split.sums).mean()

    def advance(state: State, data: Pairs) -> tuple[State, Metrics]:
        tx = optimizer(state.hyperparameters)

        def step(carry, _):
            params, opt_state = carry
            grads, _ = jax.grad(loss, has_aux=True)(params, data.train)
            updates, opt_state = tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        carry = state.params, state.opt_state
        (params, opt_state), _ = jax.lax.scan(step, carry, length=between)
        metrics = Metrics(
            *loss(params, data.train), *loss(params, data.test), optax.tree.norm(params)
        )
        return state._replace(params=params, opt_state=opt_state), metrics

    return Run(start, advance, evaluations)

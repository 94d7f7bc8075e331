"""The examples that a run trains on, and their minibatches."""

from typing import Any

import jax
import jax.numpy as jnp


class Rows:
    """Some rows of an array, of which only those are copied that are asked for.

    A run that trains on a selection of the data returns this from `draw`: there is one copy of
    the data for all runs, and each run has its own indices.

    Attributes:
      array: [n, …].
      index: int32[rows], the numbers of the rows.
    """

    def __init__(self, array: jax.Array, index: jax.Array):
        self.array, self.index = array, index

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the rows, (rows, …)."""
        return (len(self.index), *self.array.shape[1:])

    def __getitem__(self, rows: Any) -> jax.Array:
        return self.array[self.index[rows]]


def taken(examples: Any, rows: Any) -> Any:
    """Some of the examples, by their numbers or as a slice."""
    return jax.tree.map(lambda x: x[rows], examples)


def count(examples: Any) -> int:
    """How many examples there are.

    Raises:
      ValueError: their arrays do not say the same.
    """
    counts = sorted({x.shape[0] for x in jax.tree.leaves(examples)})
    if len(counts) != 1:
        listed = " and ".join(map(str, counts)) or "none"
        raise ValueError(f"the arrays of the examples must be equally long; they have {listed}")
    return counts[0]


def minibatches(key: jax.Array, n: int, batch_size: int) -> jax.Array:
    """Shuffles n examples into batches of their numbers, int32[⌊n / batch_size⌋, batch_size].

    Which examples are left over differs from key to key.

    Raises:
      ValueError: there is not even one batch.
    """
    if batch_size > n:
        raise ValueError(f"batch_size = {batch_size} is more than the {n} examples")
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

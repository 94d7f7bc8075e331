"""A second moment as the means of its rows and columns: n + m numbers instead of n·m."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from adamw_jax import trees
from adamw_jax.core import Description, describe, jitted
from adamw_jax.encodings.encoding import Encoding
from adamw_jax.hyperparameters import positive_integer


class Factored(NamedTuple):
    """A second moment in factors: two trees like the parameters.

    Attributes:
      rows: the mean of each row, [..., n, 1] for matrices [..., n, m]. The moment of a parameter
        that is not factored stands here as it is.
      columns: the mean of each column, [..., 1, m]; 1 for a parameter that is not factored.
    """

    rows: Any
    columns: Any

    def decode(self) -> Any:
        """The moment, a tree like the parameters."""
        return jax.tree.map(_product, self.rows, self.columns)

    def encoded(self, moment: Any) -> "Factored":
        """Another moment, factored where this one is."""

        def leaf(x, columns):
            return _means(x) if _is_factored(columns) else (x, jnp.ones_like(columns))

        pairs = [jax.tree.map(lambda *xs, i=i: leaf(*xs)[i], moment, self.columns) for i in (0, 1)]
        return Factored(*pairs)


def factored(*, min_axis: int = 128) -> Encoding:
    """Keeps the means of the rows and columns of a second moment: v ≈ rows · columns / mean.

    That is the matrix of rank one with the same means, and nearest to v in the sense of
    arXiv 1804.04235, §3 (the generalised Kullback–Leibler divergence). The means of an average of
    squares are averages themselves, so that nothing is lost from step to step; what each step is
    computed from contains the whole square of its own gradient. For Adafactor, which factors that
    as well, `rank_one` stands after the second moment.

    The last two axes are factored; those before them count matrices. Both are computed in
    working precision.

    Args:
      min_axis: ≥ 2; a parameter with fewer numbers along one of the two axes, or with one axis,
        keeps its moment whole.

    Returns:
      An encoding for second moments. The state keeps them as `Factored`.

    Raises:
      ValueError: min_axis is not a whole number ≥ 2; or, at `init`, the moment may be negative.
    """
    if min_axis == 1:
        raise ValueError(
            "min_axis must be at least 2: a single row or column has nothing to factor"
        )
    return FactoredEncoding(None, int(positive_integer("min_axis", min_axis)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FactoredEncoding(Encoding):
    """See `factored`."""

    seed: Any
    min_axis: int = dataclasses.field(metadata={"static": True})

    @property
    def description(self) -> Description:
        """The call that made it."""
        return describe(factored, min_axis=self.min_axis)

    def start(self, moment, *, signed):
        """Means of zeros, and the zeros of other parameters themselves."""
        if signed:
            raise ValueError(
                f"{self!r} keeps second moments, which are not negative: it is for nu_dtype, or "
                "the accumulator_dtype of second_moment"
            )
        factors = [jax.tree.map(lambda x, i=i: self.factors(x)[i], moment) for i in range(2)]
        return Factored(*factors)

    def decode(self, kept):
        """The matrix of rank one."""
        return kept.decode()

    def encode(self, moment, kept, bits):
        """The means of rows and columns."""
        del bits
        leaves, structure = jax.tree.flatten(moment, is_leaf=trees.is_none)
        old = zip(*map(structure.flatten_up_to, kept), strict=True)
        made = [pair if x is None else self.factors(x) for x, pair in zip(leaves, old, strict=True)]
        return Factored(*(structure.unflatten([pair[i] for pair in made]) for i in range(2)))

    def factors(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The rows and columns of one array."""
        if x.ndim < 2 or min(x.shape[-2:]) < self.min_axis:
            return x, jnp.ones((1,) * x.ndim, x.dtype)
        return _means(x)

    def projected(self, x: jax.Array) -> jax.Array:
        """What is left of an array."""
        return _product(*self.factors(x))


@jitted
def _means(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.mean(x, axis=-1, keepdims=True), jnp.mean(x, axis=-2, keepdims=True)


@jitted
def _product(rows: jax.Array, columns: jax.Array) -> jax.Array:
    if not _is_factored(columns):
        return rows
    mean = jnp.mean(rows, axis=-2, keepdims=True)
    share = columns / jnp.where(mean > 0, mean, 1)
    # One square that overflows makes all means infinite, and the whole matrix stops.
    return jnp.where(jnp.isfinite(mean), rows * share, mean)


def _is_factored(columns: jax.Array) -> bool:
    # What is not has 1 there, and min_axis is at least 2.
    return columns.ndim > 1 and columns.shape[-1] > 1

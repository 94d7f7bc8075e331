"""bfloat16, rounded up or down at random, so that the mean over many roundings is exact."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from adamw_jax import trees
from adamw_jax.core import Description, describe
from adamw_jax.encodings.encoding import Encoding, check_real
from adamw_jax.hyperparameters import seed as checked_seed


def stochastic_rounding(seed: jax.typing.ArrayLike = 0) -> Encoding:
    """Keeps a moment in bfloat16, rounded to one of the two nearest numbers at random.

    The nearer the number, the likelier, so that the mean of many roundings is exact. An average
    moves by (1 − β) of its distance at each step: where that is less than half a unit in the last
    of bfloat16's 8 bits, rounding to nearest stops it (for β = 0.999, always), and this does
    not. The step itself is computed from the moment before it is rounded. Source: Gupta et al.
    (arXiv 1502.02551).

    The random bits follow from the seed, the number of the step, the path of the parameter and
    the name of the moment, so that a run can be repeated and resumed. Two runs side by side, as
    in `jax.vmap`, need different seeds to be independent.

    Args:
      seed: a whole number in [0, 2³²), a 0-d array or a tracer.

    Returns:
      An encoding. The state keeps the moment as bfloat16 arrays, and a `StepsState`. What is
      infinite or NaN stays so.

    Raises:
      ValueError: seed is out of range; or, at `init`, a moment is complex.
    """
    return StochasticRounding(checked_seed("seed", seed))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class StochasticRounding(Encoding):
    """See `stochastic_rounding`."""

    seed: Any

    @property
    def description(self) -> Description:
        """The call that made it."""
        return describe(stochastic_rounding, seed=self.seed)

    def start(self, moment, *, signed):
        """bfloat16 zeros."""
        del signed
        check_real(moment, self)
        return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=jnp.bfloat16), moment)

    def decode(self, kept):
        """The same; a piece widens what it gets."""
        return kept

    def encode(self, moment: Any, kept: Any, bits: Any) -> Any:
        """Each number rounded at random."""

        def leaf(path, new, old):
            return old if new is None else to_bfloat16(new, bits(path, new.shape))

        return jax.tree_util.tree_map_with_path(leaf, moment, kept, is_leaf=trees.is_none)


def to_bfloat16(x: jax.Array, bits: jax.Array) -> jax.Array:
    """Rounds to bfloat16, up or down as 16 random bits for each number say."""
    # A float32 whose last 16 bits are zero is a bfloat16. Adding random bits to these carries
    # into the bits above with a probability that is the distance from the number below, in
    # units of the last place.
    x = x.astype(jnp.float32)
    carried = jax.lax.bitcast_convert_type(x, jnp.uint32) + bits.astype(jnp.uint32)
    rounded = jax.lax.bitcast_convert_type(carried & jnp.uint32(0xFFFF0000), jnp.float32)
    return jax.lax.select(jax.lax.is_finite(x), rounded, x).astype(jnp.bfloat16)

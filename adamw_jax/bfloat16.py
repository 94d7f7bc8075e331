"""bfloat16 parameters that do not stagnate.

bfloat16 has 8 significant bits: a step of less than 1/512 of a parameter is rounded away by
`optax.apply_updates`, and AdamW's steps soon are. Either of these wrappers keeps them:

    with_master_weights(adamw(1e-3))       2 bytes a parameter: exactly the float32 weights
    with_stochastic_rounding(adamw(1e-3))  none: right on average, with the noise of bfloat16

Both let the optimizer inside compute as for float32 parameters: it sees weights and gradients in
float32, and so do its moments. The parameters that `optax.apply_updates` makes are then
chosen here. For that, the updates of bfloat16 parameters are float32, an exception to this
library's rule that updates have the parameters' dtype: they are differences of two bfloat16
numbers, which bfloat16 would round. Hence a wrapper is outermost, and `optax.apply_if_finite`
and the like, whose updates must keep their dtype, go inside.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamw_jax import trees
from adamw_jax.combine import check_transformations
from adamw_jax.core import GradientTransformation, describe, jitted
from adamw_jax.encodings.encoding import random_bits
from adamw_jax.encodings.rounding import to_bfloat16
from adamw_jax.hyperparameters import seed as checked_seed
from adamw_jax.numerics import dtype_of

ROUNDED = "rounding to the parameters"


class MasterWeightsState(NamedTuple):
    """State of `with_master_weights`.

    Attributes:
      remainder: what the float32 weight has beyond the parameter, in units of its own last place,
        int16 in the parameter's shape; `optax.MaskedNode()` for parameters of other dtypes.
      inner_state: the state of the optimizer inside.
    """

    remainder: Any
    inner_state: optax.OptState

    def weights(self, params: optax.Params) -> Any:
        """The float32 weights of parameters that belong to this state."""

        def leaf(p, remainder):
            return _joined(p, remainder) if is_bfloat16(p) else p

        return jax.tree.map(leaf, params, self.remainder)


class StochasticRoundingState(NamedTuple):
    """State of `with_stochastic_rounding`.

    Attributes:
      steps: the number of updates so far, an int32 scalar.
      inner_state: the state of the optimizer inside.
    """

    steps: jax.Array
    inner_state: optax.OptState


def with_master_weights(optimizer: optax.GradientTransformation) -> GradientTransformation:
    """Applies an optimizer to float32 weights, of which the parameters are the upper halves.

    A float32 weight is kept as the nearest bfloat16, the parameter, and a remainder of 16 bits, so
    that a run is that of float32 weights bit for bit, with gradients at the rounded ones. Master
    weights are from Micikevicius et al. (arXiv 1710.03740, §3.1), which keep both in full; two
    halves are from Split-SGD (arXiv 2005.04680).

    Args:
      optimizer: any Optax transformation that makes updates to be added.

    Returns:
      A transformation with state `MasterWeightsState`, which must be outermost; its updates are
      float32 for bfloat16 parameters. Parameters that are set from outside keep their value:
      the remainder is less than half a unit of their last place. Update needs `params`.

    Raises:
      ValueError: the optimizer is not a gradient transformation; or, at `init`, a parameter is
        neither bfloat16 nor at least as wide as float32; or the parameters are missing.
    """
    check_transformations("with_master_weights", [optimizer])
    inner: Any = optax.with_extra_args_support(optimizer)

    def init(params):
        _check_bfloat16(params)

        def zero(p):
            return jnp.zeros_like(p, dtype=jnp.int16) if is_bfloat16(p) else optax.MaskedNode()

        return MasterWeightsState(jax.tree.map(zero, params), inner.init(trees.widen(params)))

    def update(updates, state, params=None, **extra_args):
        moved = trees.only_updated(params, updates, ROUNDED)
        weights = state.weights(params)
        wide, kept = inner.update(trees.widen(updates), state.inner_state, weights, **extra_args)
        changed, remainder = _split(wide, moved, state.remainder)
        return changed, MasterWeightsState(remainder, kept)

    return GradientTransformation(init, update, describe(with_master_weights, optimizer))


def with_stochastic_rounding(
    optimizer: optax.GradientTransformation, seed: jax.typing.ArrayLike = 0
) -> GradientTransformation:
    """Rounds new bfloat16 parameters up or down at random, so that their mean is exact.

    The bits are those of `stochastic_rounding`, which see for the seed. Source: arXiv 2010.06192.

    Args:
      optimizer: as in `with_master_weights`.
      seed: a whole number in [0, 2³²), a 0-d array or a tracer.

    Returns:
      A transformation with state `StochasticRoundingState`, which must be outermost; its updates
      are float32 for bfloat16 parameters. Update needs `params`.

    Raises:
      ValueError: as `with_master_weights`, or seed is out of range.
    """
    check_transformations("with_stochastic_rounding", [optimizer])
    inner: Any = optax.with_extra_args_support(optimizer)
    number = checked_seed("seed", seed)

    def init(params):
        _check_bfloat16(params)
        return StochasticRoundingState(jnp.zeros([], jnp.int32), inner.init(trees.widen(params)))

    def update(updates, state, params=None, **extra_args):
        moved = trees.only_updated(params, updates, ROUNDED)
        weights = trees.widen(params)
        wide, kept = inner.update(trees.widen(updates), state.inner_state, weights, **extra_args)
        changed = _rounded(wide, moved, number, state.steps)
        steps = jnp.asarray(optax.safe_increment(state.steps))
        return changed, StochasticRoundingState(steps, kept)

    description = describe(with_stochastic_rounding, optimizer, seed=seed)
    return GradientTransformation(init, update, description)


def is_bfloat16(p: Any) -> bool:
    """Whether a parameter is bfloat16."""
    return dtype_of(p) == jnp.bfloat16


def _check_bfloat16(params: optax.Params) -> None:
    trees.check_floating(params, arrays_only=True)
    other = [
        f"{jax.tree_util.keystr(path) or 'the only leaf'} ({jnp.result_type(p)})"
        for path, p in jax.tree_util.tree_leaves_with_path(params)
        if jnp.finfo(jnp.result_type(p)).bits < 32 and not is_bfloat16(p)
    ]
    if other:
        raise ValueError(
            "every parameter must be bfloat16, or at least as wide as float32, but these are "
            f"not: {', '.join(other)}"
        )


@jitted
def _joined(p: jax.Array, remainder: jax.Array) -> jax.Array:
    """The float32 weight of a parameter and a remainder."""
    upper = jax.lax.bitcast_convert_type(p.astype(jnp.float32), jnp.int32)
    # A remainder below zero would lead from ±0, which may have been set from outside, and from
    # infinity to NaN.
    signless = jnp.int32(0x7FFFFFFF)
    remainder = jnp.where((upper & signless) == 0, jnp.maximum(remainder, 0), remainder)
    remainder = jnp.where(jnp.isfinite(p), remainder, 0)
    return jax.lax.bitcast_convert_type(upper + remainder.astype(jnp.int32), jnp.float32)


@jitted
def _split(updates: Any, params: Any, remainders: Any) -> tuple[Any, Any]:
    """The updates that lead to the upper halves of the new weights, and the new remainders."""

    def leaf(u, p, remainder):
        if u is None or not is_bfloat16(p):
            return u, remainder
        weight = _joined(p, remainder) + u
        bits = jax.lax.bitcast_convert_type(weight, jnp.int32)
        # Half a unit of the upper half's last place is added: rounding to nearest.
        nearest = (bits + jnp.int32(0x8000)) & jnp.int32(-0x10000)
        nearest = jnp.where(jnp.isfinite(weight), nearest, bits)
        rounded = jax.lax.bitcast_convert_type(nearest, jnp.float32)
        return rounded - p.astype(jnp.float32), (bits - nearest).astype(jnp.int16)

    leaves, structure = jax.tree.flatten(updates, is_leaf=trees.is_none)
    pairs = list(map(leaf, leaves, *map(structure.flatten_up_to, (params, remainders))))
    changed, kept = (structure.unflatten([pair[i] for pair in pairs]) for i in range(2))
    return changed, kept


@jitted
def _rounded(updates: Any, params: Any, seed: Any, step: Any) -> Any:
    """The updates that lead to one of the two parameters around each new weight."""

    def leaf(path, u, p):
        if u is None or not is_bfloat16(p):
            return u
        old = p.astype(jnp.float32)
        new = to_bfloat16(old + u, random_bits(seed, step, "params", path, p.shape))
        return new.astype(jnp.float32) - old

    return jax.tree_util.tree_map_with_path(leaf, updates, params, is_leaf=trees.is_none)

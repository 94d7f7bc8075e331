"""Arithmetic over trees: at which precision it is done, and which leaves take part.

Two rules hold in every piece of the library:

* Arithmetic is done in the *working precision* of a leaf, float32 for anything
  narrower and the leaf's own dtype otherwise, and rounded once to the dtype the leaf
  had. Hyperparameters are cast to the working precision, so that an array learning
  rate does not turn bfloat16 updates into float32 ones.
* A leaf that is None takes no part: no update comes out, and its state stays.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def dtype_of(x: Any) -> np.dtype | None:
    """The dtype of an array or number, and None for anything else (a function)."""
    try:
        return jnp.result_type(x)
    except TypeError:
        return None


def working_dtype(x: Any) -> np.dtype:
    """float32 for floating leaves narrower than that, else the leaf's own dtype."""
    dtype = jnp.result_type(x)
    return np.dtype(np.float32) if jnp.finfo(dtype).bits < 32 else dtype


def real_dtype(x: Any) -> np.dtype:
    """The dtype of `abs(x)` in working precision."""
    return jnp.finfo(working_dtype(x)).dtype


def widen(tree: optax.Params) -> optax.Params:
    """Casts half-precision leaves to float32; all others pass as they are."""

    def leaf(x):
        dtype = dtype_of(x)
        narrow = dtype is not None and jnp.issubdtype(dtype, jnp.floating)
        return x.astype(working_dtype(x)) if narrow and working_dtype(x) != dtype else x

    return jax.tree.map(leaf, tree)


def scalar(value: jax.typing.ArrayLike, like: Any) -> jax.Array:
    """A hyperparameter as an operand for the leaf `like`: real, in its precision."""
    if jnp.shape(value) != ():
        raise ValueError(f"a hyperparameter must be a scalar, got shape {jnp.shape(value)}")
    return jax.lax.convert_element_type(value, real_dtype(like))


def lerp(start: jax.Array, end: jax.Array, weight: jax.Array) -> jax.Array:
    """start + weight (end − start), measured from whichever end is nearer.

    The form keeps a moving average exact for small weights: with 1 − b2 = 1e-5, the
    textbook b2 v + (1 − b2) g² has float32 factors that do not sum to one, and v
    settles 0.1 % away. Measuring from the nearer end makes weight = 1 return `end`
    itself, so that an average without memory is the identity, bit for bit.
    """
    near_start = weight < 0.5
    anchor = jnp.where(near_start, start, end)
    return anchor + jnp.where(near_start, weight, weight - 1) * (end - start)


def map_leaves(f: Callable[..., jax.Array], updates: Any, *trees: Any) -> Any:
    """Maps f over the leaves in working precision, which the results keep.

    Args:
      f: takes one leaf of `updates` and one of each tree, all in their working
        precision.
      updates: a tree; where a leaf is None the result is None.
      *trees: trees of the same structure, or with `updates` as their prefix.

    Raises:
      ValueError: an update is not floating-point or complex; its path is named.
    """

    def leaf(path, u, *others):
        if u is None:
            return None
        if not jnp.issubdtype(jnp.result_type(u), jnp.inexact):
            raise ValueError(_not_floating([(path, u)], "update"))
        return f(*(jnp.asarray(x, working_dtype(x)) for x in (u, *others)))

    return jax.tree_util.tree_map_with_path(leaf, updates, *trees, is_leaf=_is_none)


def cast_like(results: Any, trees: Any) -> Any:
    """Rounds results to the dtypes of `trees`; where a result is None, keeps the old."""
    return jax.tree.map(
        lambda new, old: old if new is None else new.astype(jnp.result_type(old)),
        results,
        trees,
        is_leaf=_is_none,
    )


def _is_none(x: Any) -> bool:
    return x is None


def only_updated(params: optax.Params, updates: optax.Updates) -> Any:
    """The parameters that have an update, None for the rest.

    What is left can cross into a jitted function even when the tree holds leaves that
    are no arrays, such as the activation functions of an Equinox-style module.

    Raises:
      ValueError: the parameters are missing.
    """
    if params is None:
        raise ValueError("weight decay needs the parameters: call update(updates, state, params)")
    return jax.tree.map(
        lambda u, p: None if u is None else p, updates, params, is_leaf=_is_none
    )


def zeros(params: optax.Params, dtype: Callable[[Any], Any]) -> Any:
    """Zeros in the shapes and shardings of the parameters.

    Args:
      params: a tree of floating-point or complex arrays and numbers.
      dtype: gives the dtype of the zeros for a parameter.

    Raises:
      ValueError: a leaf is not floating-point or complex; all their paths are named.
    """
    check_floating(params, lambda dtype: dtype is None or not jnp.issubdtype(dtype, jnp.inexact))
    # zeros_like keeps the sharding, which zeros(shape) would lose.
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype(p)), params)


def _is_not_inexact_array(dtype: np.dtype | None) -> bool:
    return dtype is not None and not jnp.issubdtype(dtype, jnp.inexact)


def check_floating(
    params: optax.Params, refuse: Callable[[np.dtype | None], bool] = _is_not_inexact_array
) -> None:
    """Raises a ValueError that names the paths of integer parameters, if any."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    refused = [(path, x) for path, x in leaves if refuse(dtype_of(x))]
    if refused:
        raise ValueError(_not_floating(refused, "parameter"))


def _not_floating(leaves: list[tuple[Any, Any]], what: str) -> str:
    listed = ", ".join(
        f"{jax.tree_util.keystr(path) or 'the only leaf'} ({dtype_of(x) or type(x).__name__})"
        for path, x in leaves
    )
    return (
        f"every {what} must be floating-point or complex, but these are not: {listed}. "
        "Leave them out of the tree, or wrap the optimizer in optax.masked"
    )

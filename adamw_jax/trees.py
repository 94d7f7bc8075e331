"""Trees, leaf by leaf: arithmetic is mapped over them in working precision.

A leaf that is None takes no part: no update comes out, and its state stays.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax.numerics import cast, dtype_of, real_dtype, working_dtype


def widen(tree: Any) -> Any:
    """Casts half-precision leaves to float32; all others pass as they are."""

    def leaf(x):
        dtype = getattr(x, "dtype", None)
        return x if dtype is None or working_dtype(x) == dtype else cast(x, working_dtype(x))

    return jax.tree.map(leaf, tree)


def map_arithmetic(
    arithmetic: Callable[..., Callable[..., Any]],
    hyperparameters: tuple[Any, ...],
    updates: Any,
    *trees: Any,
    outputs: int = 1,
) -> tuple[Any, ...]:
    """Maps a piece's arithmetic over the leaves in working precision, which the results keep.

    Args:
      arithmetic: `(*hyperparameters) -> function of arrays`; called once for each dtype,
        with the hyperparameters cast to it.
      hyperparameters: pytrees of scalars.
      updates: a tree; where a leaf is None the results are None.
      *trees: trees of the same structure, or with `updates` as their prefix. The function
        takes one leaf of each, and those of `updates` first.
      outputs: how many arrays the function returns, in a tuple where there are several.

    Returns:
      As many trees like `updates`.

    Raises:
      ValueError: an update is not floating-point or complex (the paths are named), a
        hyperparameter is no scalar, or the function returns another number of arrays.
    """
    check_floating(updates, what="update")

    @functools.cache
    def function(dtype):
        return arithmetic(*jax.tree.map(functools.partial(_scalar, dtype), hyperparameters))

    def result(u, *others):
        if u is None:
            return (None,) * outputs
        arrays = [cast(x, working_dtype(x)) for x in (u, *others)]
        made = function(np.result_type(*(x.dtype for x in arrays)))(*arrays)
        made = made if isinstance(made, tuple) else (made,)
        if len(made) != outputs:
            raise ValueError(
                f"{arithmetic.__name__} must return {outputs} array(s) for each leaf, the new "
                f"update and then the state, if any; it returned {len(made)}"
            )
        return made

    leaves, structure = jax.tree.flatten(updates, is_leaf=is_none)
    results = list(map(result, leaves, *map(structure.flatten_up_to, trees)))
    return tuple(structure.unflatten([made[i] for made in results]) for i in range(outputs))


def _scalar(dtype: np.dtype, value: jax.typing.ArrayLike) -> jax.Array:
    if jnp.shape(value) != ():
        raise ValueError(f"a hyperparameter must be a scalar, got shape {jnp.shape(value)}")
    return jax.lax.convert_element_type(value, dtype)


def cast_like(results: Any, trees: Any) -> Any:
    """Rounds results to the dtypes of `trees`; where a result is None, keeps the old."""

    def leaf(new, old):
        return old if new is None else cast(new, jnp.result_type(old))

    return jax.tree.map(leaf, results, trees, is_leaf=is_none)


def is_none(x: Any) -> bool:
    """For `is_leaf`, so that None stands in a tree where an array could."""
    return x is None


def only_updated(
    params: optax.Params | None, updates: optax.Updates, purpose: str = "weight decay"
) -> Any:
    """The parameters that have an update, None for the rest.

    What is left can cross into a jitted function even when the tree holds leaves that
    are no arrays, such as the activation functions of an Equinox-style module.

    Raises:
      ValueError: the parameters are missing.
    """
    if params is None:
        raise ValueError(f"{purpose} needs the parameters: call update(updates, state, params)")
    return jax.tree.map(lambda u, p: None if u is None else p, updates, params, is_leaf=is_none)


def spread_none(updates: optax.Updates, params: optax.Params | None) -> Any:
    """Where None stands for a whole part of the parameters, None for each of them.

    Names can then be asked for. Without the parameters the updates pass as they are.
    """
    leaves = jax.tree.leaves(updates, is_leaf=is_none)
    if params is None or not any(map(is_none, leaves)):
        return updates

    def spread(u, p):
        return jax.tree.map(lambda _: None, p) if u is None else u

    return jax.tree.map(spread, updates, params, is_leaf=is_none)


def zeros(params: optax.Params, dtype: Callable[[Any], Any] = working_dtype) -> Any:
    """Zeros in the shapes and shardings of the parameters.

    Args:
      params: a tree of floating-point or complex arrays and numbers.
      dtype: gives the dtype of the zeros for a parameter; by default its working precision.

    Raises:
      ValueError: a leaf is not floating-point or complex; all their paths are named.
    """
    check_floating(params, arrays_only=True)
    # zeros_like keeps the sharding, which zeros(shape) would lose.
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype(p)), params)


def real_zeros(params: optax.Params) -> Any:
    """`zeros`, real also for complex parameters, as second moments are."""
    return zeros(params, real_dtype)


def check_floating(tree: Any, what: str = "parameter", arrays_only: bool = False) -> None:
    """Refuses trees with integer leaves, which no optimizer here can move.

    Args:
      tree: parameters or updates.
      what: what a leaf is called in the message.
      arrays_only: whether leaves that are no numbers at all (functions) are refused too.

    Raises:
      ValueError: there are such leaves; all their paths are named.
    """

    def refused(x):
        dtype = dtype_of(x)
        return arrays_only if dtype is None else not jnp.issubdtype(dtype, jnp.inexact)

    if any(map(refused, jax.tree.leaves(tree))):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        listed = ", ".join(
            f"{jax.tree_util.keystr(path) or 'the only leaf'} ({dtype_of(x) or type(x).__name__})"
            for path, x in leaves
            if refused(x)
        )
        raise ValueError(
            f"every {what} must be floating-point or complex, but these are not: {listed}. "
            "Leave them out of the tree, or wrap the optimizer in optax.masked"
        )

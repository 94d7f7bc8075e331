"""Arithmetic on trees, leaf by leaf, in working precision.

Where a leaf of the updates is None, the result is None and the state is unchanged.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax.numerics import cast, dtype_of, is_narrow, real_dtype, working_dtype


def widen(tree: Any) -> Any:
    """Casts half-precision leaves to float32 and leaves all others unchanged."""
    arrays = jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct

    def leaf(x):
        return cast(x, working_dtype(x)) if isinstance(x, arrays) and is_narrow(x) else x

    return jax.tree.map(leaf, tree)


def map_arithmetic(
    arithmetic: Callable[..., Callable[..., Any]],
    hyperparameters: tuple[Any, ...],
    updates: Any,
    *trees: Any,
    outputs: int = 1,
) -> tuple[Any, ...]:
    """Maps a piece's arithmetic over the leaves; the results stay in working precision.

    Args:
      arithmetic: `(*hyperparameters) -> function of arrays`; called once for each dtype,
        with the hyperparameters cast to it.
      hyperparameters: pytrees of scalars.
      updates: a tree; where a leaf is None the results are None.
      *trees: trees with the structure of `updates`, or with `updates` as their prefix. The
        function takes one leaf of each tree, that of `updates` first.
      outputs: how many arrays the function returns, as a tuple if there are several.

    Returns:
      That many trees like `updates`.

    Raises:
      ValueError: an update is not floating-point or complex (the message names the paths), a
        hyperparameter is not a scalar, or the function returns another number of arrays or
        changes the shape.
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
        if jnp.shape(made[0]) != arrays[0].shape:
            raise ValueError(
                f"{arithmetic.__name__} must keep the shape: it made {jnp.shape(made[0])} of "
                f"{arrays[0].shape}"
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
    """Rounds results to the dtypes of `trees`; a result that is None becomes the old leaf."""

    def leaf(new, old):
        return old if new is None else cast(new, jnp.result_type(old))

    return jax.tree.map(leaf, results, trees, is_leaf=is_none)


def is_none(x: Any) -> bool:
    """Whether x is None; as `is_leaf` it makes None a leaf, in the place of an array."""
    return x is None


def only_updated(
    params: optax.Params | None, updates: optax.Updates, purpose: str = "weight decay"
) -> Any:
    """The parameters that have an update; None in the place of the others.

    The result can be passed to a jitted function even where the tree has leaves that are
    not arrays, such as the activation functions in an Equinox module.

    Raises:
      ValueError: the parameters are missing.
    """
    if params is None:
        raise ValueError(f"{purpose} needs the parameters: call update(updates, state, params)")
    return jax.tree.map(lambda u, p: None if u is None else p, updates, params, is_leaf=is_none)


def spread_none(updates: optax.Updates, params: optax.Params | None) -> Any:
    """Replaces a None that stands for a whole subtree of parameters by one for each of them.

    After that, every parameter has a path in the updates. Without the parameters the updates
    are returned unchanged.
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
      ValueError: a leaf is not floating-point or complex; the message names all such paths.
    """
    check_floating(params, arrays_only=True)
    # zeros_like keeps the sharding, which zeros(shape) would lose.
    return jax.tree.map(lambda p: jnp.zeros_like(p, dtype=dtype(p)), params)


def real_zeros(params: optax.Params) -> Any:
    """Zeros as in `zeros`, but real for complex parameters as well, as second moments are."""
    return zeros(params, real_dtype)


def check_floating(tree: Any, what: str = "parameter", arrays_only: bool = False) -> None:
    """Checks that every leaf is floating-point or complex, since no optimizer here moves others.

    Args:
      tree: parameters or updates.
      what: what the message calls a leaf.
      arrays_only: whether leaves that are not numbers at all, such as functions, are refused,
        too.

    Raises:
      ValueError: there are other leaves; the message names all their paths.
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

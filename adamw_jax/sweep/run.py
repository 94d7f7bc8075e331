"""What a sweep runs: a pair of pure functions, and how often the second of them is called."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

REAL = (jnp.bool, jnp.integer, jnp.floating)
Hyperparameters = Mapping[str, jax.Array]


class Run(NamedTuple):
    """A training, as the engine sees it.

    Attributes:
      start: `(hyperparameters, key, data) -> state`. Hyperparameters are scalar arrays by
        name, float32 or int32 (float64, int64 under x64); the key is made from the seed.
      advance: `(state, data) -> (state, metrics)`, for example an epoch. It keeps the
        structure, shapes and dtypes of the state. Metrics are a pytree of real arrays.
      length: how often `advance` is called.
    """

    start: Callable[[Hyperparameters, jax.Array, Any], Any]
    advance: Callable[[Any, Any], tuple[Any, Any]]
    length: int

    @classmethod
    def whole(cls, train: Callable[[Hyperparameters, jax.Array, Any], Any]) -> "Run":
        """A training that is one function, `(hyperparameters, key, data) -> metrics`.

        It is advanced once, so it can be neither stopped early nor halved. Metrics that
        are arrays, such as a loss per epoch, stay arrays in the table.
        """

        def start(hyperparameters, key, data):
            del data
            return hyperparameters, key

        def advance(state, data):
            return state, train(state[0], state[1], data)

        return cls(start, advance, 1)

    def typed(self) -> "Run":
        """The same run, but its functions return only arrays, none of them weakly typed.

        So `advance` may return a float32 array where `start` returned a Python number.
        """
        return Run(
            lambda numbers, key, data: _arrays(self.start(numbers, key, data), "state"),
            lambda state, data: _arrays(self.advance(state, data), "what advance returns, "),
            self.length,
        )


def outline(run: Run, numbers: Mapping[str, np.dtype], data: Any) -> tuple[Any, dict[str, Any]]:
    """Traces a single run and checks its two functions.

    Args:
      run: the run.
      numbers: the dtypes of the hyperparameters, by name.
      data: the types of the data.

    Returns:
      The types of the state, and the types of the metrics of one advance, by name.

    Raises:
      ValueError: the functions do not fit each other, or metrics are not real arrays.
      TypeError: the state holds something that is not an array.
    """
    start, advance, _ = run.typed()
    given = (
        {name: jax.ShapeDtypeStruct((), dtype) for name, dtype in numbers.items()},
        jax.eval_shape(lambda: jax.random.key(0)),
        data,
    )
    try:
        state = jax.eval_shape(start, *given)
    except KeyError as error:
        error.add_note(
            f"The grid has these settings that are numbers: {', '.join(numbers) or 'none'}"
        )
        raise
    if state is None:
        raise ValueError("start returns None; it must return the state that advance takes")
    # A new function, because JAX would not trace the same one again.
    _check_static(state, jax.eval_shape(lambda *given: start(*given), *given))
    returned = jax.eval_shape(advance, state, data)
    only = jax.tree.structure(returned) == jax.tree.structure(state)
    if only or not isinstance(returned, tuple | list) or len(returned) != 2:
        what = "the state alone" if only else _described(returned)
        raise ValueError(f"advance must return a pair (state, metrics); it returns {what}")
    _check_kept(state, returned[0])
    return state, named(returned[1])


def types_of(data: Any) -> Any:
    """The types of a pytree of arrays.

    Raises:
      TypeError: a leaf is not an array; the message names it.
    """

    def type_of(path, leaf):
        try:
            found = jax.typeof(leaf)
        except TypeError as error:
            raise TypeError(
                f"data{jax.tree_util.keystr(path)} is {leaf!r}; data is a pytree of arrays"
            ) from error
        return jax.ShapeDtypeStruct(found.shape, found.dtype)

    return jax.tree_util.tree_map_with_path(type_of, data)


def named(metrics: Any) -> dict[str, Any]:
    """The leaves of a pytree of metrics, by their paths, such as "loss" or "layers/0/norm".

    Raises:
      ValueError: a table cannot hold a leaf, such as a complex array or a key.
    """
    leaves: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(metrics):
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "metric"
        if not any(jnp.issubdtype(leaf.dtype, real) for real in REAL):
            raise ValueError(f"the metric {name!r} is {leaf.dtype}; metrics are real arrays")
        if not leaf.size:
            raise ValueError(f"the metric {name!r} is empty: its shape is {leaf.shape}")
        if name in leaves:
            raise ValueError(f"two metrics are called {name!r}")
        leaves[name] = leaf
    if not leaves:
        raise ValueError("advance returns no metrics")
    return leaves


def _arrays(tree: Any, where: str) -> Any:
    def array(path, leaf):
        try:
            return jnp.asarray(leaf, dtype=jnp.asarray(leaf).dtype)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{where}{jax.tree_util.keystr(path)} is {leaf!r}, which is not an array"
            ) from error

    return jax.tree_util.tree_map_with_path(array, tree)


def _described(returned: Any) -> str:
    if isinstance(returned, jax.ShapeDtypeStruct):
        return f"an array {returned.dtype}{list(returned.shape)}"
    length = f" of {len(returned)}" if isinstance(returned, tuple | list) else ""
    return f"a {type(returned).__name__}{length}"


def _check_static(once: Any, again: Any) -> None:
    if jax.tree.structure(once) != jax.tree.structure(again):
        raise ValueError(
            "start returns a state with another structure each time it is called. A module or "
            "optimizer that holds functions, such as nnx.Optimizer, does that: keep its arrays "
            "in the state (nnx.as_pure(nnx.state(...))) and rebuild the object in advance"
        )


def _check_kept(before: Any, after: Any) -> None:
    keystr = jax.tree_util.keystr
    was, now = map(jax.tree_util.tree_leaves_with_path, (before, after))
    if jax.tree.structure(before) != jax.tree.structure(after):
        paths = {keystr(path) for path, _ in was} ^ {keystr(path) for path, _ in now}
        raise ValueError(
            "advance must return a state with the structure that start returns; they differ in "
            + (", ".join(sorted(paths)[:5]) or "their containers")
        )
    for (path, a), (_, b) in zip(was, now, strict=True):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise ValueError(
                "advance must keep the shapes and dtypes of the state; state"
                f"{keystr(path)} starts as {a.dtype}{list(a.shape)} and becomes "
                f"{b.dtype}{list(b.shape)}"
            )

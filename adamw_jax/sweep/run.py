"""What a sweep runs: a pair of pure functions and how often the second is called."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

REAL = (jnp.bool, jnp.integer, jnp.floating)
Hyperparameters = Mapping[str, jax.Array]


class Run(NamedTuple):
    """A training, as the engine sees it.

    Attributes:
      start: `(hyperparameters, key, data) -> state`. Hyperparameters are scalar arrays by
        name, float32 or int32 (float64, int64 under x64), the key is the seed's.
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

        It is advanced once, so that it is neither stopped early nor halved. Metrics that
        are arrays, such as a loss per epoch, stay arrays in the table.
        """

        def start(hyperparameters, key, data):
            del data
            return hyperparameters, key

        def advance(state, data):
            return state, train(state[0], state[1], data)

        return cls(start, advance, 1)


def named(metrics: Any) -> dict[str, jax.Array]:
    """The leaves of a pytree of metrics by their path: "loss", or "layers/0/norm".

    Raises:
      ValueError: a leaf that no table holds, such as a complex array or a key.
    """
    leaves: dict[str, jax.Array] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(metrics):
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "metric"
        if not any(jnp.issubdtype(leaf.dtype, kind) for kind in REAL):
            raise ValueError(f"the metric {name!r} is {leaf.dtype}; metrics are real arrays")
        if not leaf.size:
            raise ValueError(f"the metric {name!r} is empty: its shape is {leaf.shape}")
        if name in leaves:
            raise ValueError(f"two metrics are called {name!r}")
        leaves[name] = leaf
    if not leaves:
        raise ValueError("advance returns no metrics")
    return leaves


def metrics_of(run: Run, hyperparameters: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """The types of a run's metrics after an advance, by name.

    Args:
      run: the pair.
      hyperparameters: dtypes by name.
      data: of all runs.
    """
    one = {name: jax.ShapeDtypeStruct((), dtype) for name, dtype in hyperparameters.items()}
    state = jax.eval_shape(run.start, one, jax.eval_shape(lambda: jax.random.key(0)), data)
    return named(jax.eval_shape(run.advance, state, data)[1])


def check_static(once: Any, again: Any) -> None:
    """Refuses a `start` whose state has another structure each time it is traced.

    Raises:
      ValueError: saying what does that.
    """
    if jax.tree.structure(once) != jax.tree.structure(again):
        raise ValueError(
            "start returns a state of another structure each time it is called. A module or "
            "optimizer in it that holds functions, such as nnx.Optimizer, does that: keep its "
            "arrays (nnx.as_pure(nnx.state(...))) and make it anew in advance"
        )


def check_state(before: Any, after: Any) -> None:
    """Refuses an `advance` that does not keep the state's structure, shapes and dtypes.

    Raises:
      ValueError: naming the first leaf that differs.
    """
    keystr = jax.tree_util.keystr
    was, now = map(jax.tree_util.tree_leaves_with_path, (before, after))
    if jax.tree.structure(before) != jax.tree.structure(after):
        paths = {keystr(path) for path, _ in was} ^ {keystr(path) for path, _ in now}
        raise ValueError(
            "advance must return a state of the structure that start returns; they differ in "
            + (", ".join(sorted(paths)[:5]) or "their containers")
        )
    for (path, a), (_, b) in zip(was, now, strict=True):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise ValueError(
                "advance must keep the shapes and dtypes of the state; state"
                f"{keystr(path)} starts as {a.dtype}{list(a.shape)} and becomes "
                f"{b.dtype}{list(b.shape)}"
            )

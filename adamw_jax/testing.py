"""What must hold for every transformation, the library's own and yours.

    from adamw_jax import testing

    def test_my_piece():
        testing.check(my_piece, limit=0.5)

`check` tests each of `LAWS`; the library's tests run each of them for every export.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from adamw_jax.combine import chain, parallel
from adamw_jax.core import Description, GradientTransformation

Make = Callable[..., optax.GradientTransformationExtraArgs]
# Results are rounded once, but XLA may fuse the same step in different ways.
RTOL = {"float32": 1e-5, "complex64": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}


def check(make: Make, **numbers: float) -> None:
    """Checks that everything holds for a transformation that holds for the library's own.

    Args:
      make: its constructor, which is called with the numbers by name and nothing else.
      **numbers: all its numeric hyperparameters. They are also passed as arrays, halved,
        and as zeros.

    Raises:
      AssertionError: something does not hold. The traceback ends in the law that failed.
    """
    if not __debug__:
        raise RuntimeError("check consists of assertions, which python -O leaves out")
    for law in LAWS:
        law(make, numbers)


def mixed_params() -> dict[str, Any]:
    """A tree with every dtype that a model may have; some of its leaves are scalars."""
    draw = np.random.default_rng(0).normal
    return {
        "float32": {"kernel": jnp.asarray(draw(size=(3, 2)), jnp.float32), "bias": jnp.ones(2)},
        "bfloat16": jnp.asarray(draw(size=(2, 2)), jnp.bfloat16),
        "float16": jnp.asarray(draw(size=3), jnp.float16),
        "complex64": jnp.asarray(draw(size=3) + 1j * draw(size=3), jnp.complex64),
        "scalars": (jnp.float32(0.5), jnp.bfloat16(0.5)),
    }


def gradients_like(params: optax.Params, seed: int = 1) -> optax.Updates:
    """Gradients with the shapes and dtypes of the parameters; none is near zero."""
    rng = np.random.default_rng(seed)

    def leaf(p):
        size = rng.uniform(0.1, 2.0, np.shape(p)) * rng.choice([-1, 1], np.shape(p))
        return jnp.asarray(size * (1 + 0.5j) if jnp.iscomplexobj(p) else size, jnp.result_type(p))

    return jax.tree.map(leaf, params)


def walk(tx: optax.GradientTransformation, params: optax.Params, steps: int = 3) -> tuple[Any, Any]:
    """Takes a few eager steps with fixed gradients; returns the last updates and the state."""
    state, updates = tx.init(params), None
    for seed in range(steps):
        updates, state = tx.update(gradients_like(params, seed), state, params)
    return updates, state


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """A list to which every trace and every compilation of JAX adds a name."""
    events = []

    def listen(event, duration_secs, **metadata):
        del duration_secs, metadata
        if event.startswith("/jax/core/compile/"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def prints_as_the_call_that_makes_it(make: Make, numbers: dict[str, float]) -> None:
    """`eval(repr(tx))` has the same `repr` as `tx` and computes the same."""
    tx, params = make(**numbers), mixed_params()
    assert isinstance(tx, GradientTransformation) and tx.description, f"{tx!r} has no description"
    for name in numbers:  # two pieces with equal descriptions would be taken for the same piece
        other = make(**{**numbers, name: _others(numbers)[name]})
        assert repr(other) != repr(tx), f"{name} is missing from the description"
    if "<" not in repr(tx):  # functions and foreign transformations are not written out
        again = eval(repr(tx), _constructors(tx.description))
        assert repr(again) == repr(tx)
        _assert_equal(walk(again, params), walk(tx, params))


def keeps_structure_shapes_and_dtypes(make: Make, numbers: dict[str, float]) -> None:
    """Updates keep the types of the parameters and the state keeps its own, weak types included."""
    params = mixed_params()
    # A float32 rate turns bfloat16 updates into float32 ones, unless it is cast.
    for given in numbers, _arrays(numbers):
        tx = make(**given)
        start, (updates, state) = tx.init(params), walk(tx, params)
        assert jax.tree.map(_type, updates) == jax.tree.map(_type, params)
        assert jax.tree.map(jax.typeof, start) == jax.tree.map(jax.typeof, state)
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((updates, state)))


def is_traced_once(make: Make, numbers: dict[str, float]) -> None:
    """Nothing is compiled at the second call, jitted or not, or for another such optimizer."""
    params, traces = mixed_params(), []
    tx, gradients = make(**numbers), gradients_like(params)
    update = jax.jit(lambda *args: traces.append(1) or tx.update(*args))
    _, state = update(gradients, tx.init(params), params)
    update(gradients, state, params)
    assert len(traces) == 1, "the state's type changes, so that the second step is compiled anew"
    tx.update(gradients, state, params)
    with compilations() as compiled:
        make(**_others(numbers)).update(gradients, state, params)
    assert not compiled, "the arithmetic is a closure, or its hyperparameters are compiled in"


def agrees_in_scan_and_cond(make: Make, numbers: dict[str, float]) -> None:
    """Compiled steps give the same as eager ones, and a skipped step changes nothing."""
    params, tx, steps = mixed_params(), make(**numbers), 3
    gradients = [gradients_like(params, seed) for seed in range(steps)]

    @jax.jit
    def scanned(state, stacked, skip):
        def step(state, gradients):
            return jax.lax.cond(
                skip,
                lambda: (state, jax.tree.map(jnp.zeros_like, gradients)),
                lambda: tx.update(gradients, state, params)[::-1],
            )

        return jax.lax.scan(step, state, stacked)

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients)
    state, updates = scanned(tx.init(params), stacked, False)
    expected, expected_state = walk(tx, params, steps)
    _assert_close(jax.tree.map(lambda x: x[-1], updates), expected)
    _assert_close(state, expected_state)
    _assert_equal(scanned(tx.init(params), stacked, True)[0], tx.init(params))


def maps_over_hyperparameters(make: Make, numbers: dict[str, float]) -> None:
    """A lane of `vmap` over hyperparameters gives the same as a run alone."""
    if not numbers:
        return
    params = mixed_params()
    lanes = {name: jnp.float32(x) * jnp.float32([1, 0.5, 0]) for name, x in numbers.items()}
    if "eps" in lanes:
        lanes["eps"] += 1e-6  # where eps = 0, 0/0 would be no fault

    def end(numbers):
        return walk(make(**numbers), params, steps=2)

    together, alone = jax.jit(jax.vmap(end))(lanes), jax.jit(end)
    for i in range(3):
        lane, expected = (jax.tree.map(lambda x, i=i: x[i], tree) for tree in (together, lanes))
        _assert_close(lane, alone(expected), rtol=1e-2)


def promotes_nothing_implicitly(make: Make, numbers: dict[str, float]) -> None:
    """Nothing fails under strict promotion of types and ranks, with real parameters."""
    params = {**mixed_params(), "complex64": None}
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for given in numbers, _arrays(numbers):
            walk(make(**given), params, steps=2)


def keeps_shardings(make: Make, numbers: dict[str, float]) -> None:
    """What has the shape of a parameter has its sharding, over all devices."""
    sharding = NamedSharding(jax.make_mesh((jax.device_count(),), ("x",)), PartitionSpec("x"))
    params = {"rows": jax.device_put(jnp.ones((4 * jax.device_count(), 2)), sharding)}
    tx = make(**numbers)
    for update in tx.update, jax.jit(tx.update):
        state = tx.init(params)
        for x in jax.tree.leaves((state, *update(params, state, params))):
            is_other = x.shape != params["rows"].shape
            assert is_other or x.sharding.is_equivalent_to(sharding, x.ndim), x.sharding


def can_be_donated(make: Make, numbers: dict[str, float]) -> None:
    """No two leaves of the state share a buffer, since a buffer cannot be donated twice."""
    params, tx = {"kernel": jnp.ones((2, 2))}, make(**numbers)
    donating = jax.jit(lambda state: tx.update(params, state, params)[1], donate_argnums=0)
    donating(donating(tx.init(params)))


def accepts_extra_arguments(make: Make, numbers: dict[str, float]) -> None:
    """Extra arguments, meant for other parts of a chain, change nothing."""
    params, tx = {"kernel": jnp.ones((2, 2))}, make(**numbers)
    state = tx.init(params)
    expected = tx.update(params, state, params)
    _assert_equal(tx.update(params, state, params, value=jnp.float32(1), label="x"), expected)


def leaves_out_what_is_none(make: Make, numbers: dict[str, float]) -> None:
    """A parameter whose update is None gets None and keeps its state; the others move on."""
    tx, params = make(**numbers), {"a": jnp.ones(2), "b": jnp.ones(2)}
    start, gradients = tx.init(params), {"a": jnp.ones(2), "b": None}
    updates: Any
    updates, state = tx.update(gradients, start, params)  # pyright: ignore[reportArgumentType]
    assert updates["b"] is None and updates["a"] is not None
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(start), jax.tree.leaves(state), strict=True
    ):
        if jax.tree_util.DictKey("b") in path:
            _assert_equal(old, new)


def shares_what_is_the_same(make: Make, numbers: dict[str, float]) -> None:
    """Named twice on the same updates, it runs once; and `chain(tx)` does the same as `tx`."""
    params, tx = mixed_params(), make(**numbers)
    twice = parallel(tx, make(**numbers), merge=jnp.subtract)
    updates, state = walk(twice, params)
    assert not any(jnp.any(u != 0) for u in jax.tree.leaves(updates))
    alone, alone_state = walk(chain(tx), params)
    assert len(jax.tree.leaves(state)) == len(jax.tree.leaves(alone_state))
    _assert_close(alone, walk(tx, params)[0])


LAWS = (
    prints_as_the_call_that_makes_it,
    keeps_structure_shapes_and_dtypes,
    is_traced_once,
    agrees_in_scan_and_cond,
    maps_over_hyperparameters,
    promotes_nothing_implicitly,
    keeps_shardings,
    can_be_donated,
    accepts_extra_arguments,
    leaves_out_what_is_none,
    shares_what_is_the_same,
)


def _arrays(numbers: dict[str, float]) -> dict[str, jax.Array]:
    return {name: jnp.float32(number) for name, number in numbers.items()}


def _others(numbers: dict[str, float]) -> dict[str, float]:
    """Other numbers in the same ranges: the nearest ones, which cross no threshold."""

    def other(x):
        towards = 0.7 if 0.7 < x <= 1 else 0.75 if x <= 0.7 else np.inf
        return x + 1 if isinstance(x, int) else float(np.nextafter(x, towards))

    return {name: other(x) for name, x in numbers.items()}


def _type(x: Any) -> Any:
    return jnp.shape(x), jnp.result_type(x)


def _constructors(value: Any) -> dict[str, Callable[..., Any]]:
    """Every constructor in a description, by name."""
    match value:
        case Description(constructor, args, kwargs):
            return {value.name: constructor} | _constructors((*args, *kwargs.values()))
        case dict():
            return _constructors(tuple(value.values()))
        case tuple():
            return {name: made for part in value for name, made in _constructors(part).items()}
    return {}


def _assert_equal(actual: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def _assert_close(actual: Any, expected: Any, rtol: float | None = None) -> None:
    def close(a, b):
        tolerance = rtol or RTOL[jnp.result_type(b).name] if jnp.result_type(b).name in RTOL else 0
        wide = np.complex128 if jnp.iscomplexobj(b) else np.float64
        np.testing.assert_allclose(
            np.asarray(a).astype(wide), np.asarray(b).astype(wide), rtol=tolerance, atol=1e-6
        )

    jax.tree.map(close, actual, expected)

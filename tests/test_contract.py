"""What every export keeps: structure, shapes, dtypes, shardings, and its state's types."""

import inspect

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from cases import CASES, gradients_like, mixed_params, walk
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import adamw_jax as aj

every_case = pytest.mark.parametrize("case", CASES, ids=str)
with_numbers = pytest.mark.parametrize("case", [c for c in CASES if c.numbers], ids=str)


# Rounded to the dtype once, but XLA may fuse a step differently.
RTOL = {"float32": 1e-5, "complex64": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}


# Functions for schedules, masks and reports, with tests of their own.
NO_TRANSFORMATIONS = {
    *("per_step_from_weight_decay", "weight_decay_from_per_step"),
    *("per_step_from_normalized", "normalized_from_per_step"),
    *("per_step_from_timescale", "timescale_from_per_step"),
    *("cosine_warm_restarts", "renormalized_decay"),
    *("kind", "path", "decay_except", "decay_only", "decay_report"),
    "register_for_export",
}


def as_arrays(numbers):
    return {name: jnp.float32(number) for name, number in numbers.items()}


def test_every_exported_function_is_in_the_table():
    exports = {name for name in aj.__all__ if inspect.isfunction(getattr(aj, name))}
    assert exports - NO_TRANSFORMATIONS == {case.name.split()[0] for case in CASES}


def test_all_names_what_there_is():
    assert sorted(set(aj.__all__)) == list(aj.__all__)
    assert all(hasattr(aj, name) for name in aj.__all__)


@every_case
def test_is_an_optax_transformation(case):
    assert isinstance(case.tx(), optax.GradientTransformationExtraArgs)
    assert isinstance(case.tx(), aj.GradientTransformation)


@every_case
def test_updates_are_like_the_parameters_and_the_state_like_itself(case):
    params, tx = mixed_params(), case.tx()
    start = tx.init(params)
    updates, state = walk(tx, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(start, state)
    # Weak types count: a weakly typed state would be traced again on the second call.
    assert jax.tree.map(jax.typeof, start) == jax.tree.map(jax.typeof, state)
    chex.assert_trees_all_equal_dtypes(optax.apply_updates(params, updates), params)
    chex.assert_tree_all_finite((updates, state))


@with_numbers
def test_array_hyperparameters_keep_the_dtypes(case):
    # A float32 rate turns bfloat16 updates into float32 ones where it is not cast.
    params = mixed_params()
    tx = case.tx(**as_arrays(case.numbers))
    updates, state = walk(tx, params, steps=2)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(tx.init(params), state)


@every_case
def test_moments_of_half_precision_are_float32(case):
    state = case.tx().init(mixed_params())
    dtypes = {x.dtype for x in jax.tree.leaves(state)}
    assert dtypes <= {jnp.dtype(t) for t in (jnp.float32, jnp.complex64, jnp.int32)}


@every_case
def test_second_call_is_not_traced_again(case, compilations):
    chex.clear_trace_counter()  # it counts by name, over all tests
    params, tx = mixed_params(), case.tx()
    gradients, update = gradients_like(params), jax.jit(chex.assert_max_traces(tx.update, 1))
    _, state = update(gradients, tx.init(params), params)
    update(gradients, state, params)
    _, state = tx.update(gradients, state, params)
    compilations.clear()
    tx.update(gradients, state, params)
    assert not compilations


@every_case
def test_jit_scan_and_cond_agree_with_the_eager_loop(case):
    params, tx, steps = mixed_params(), case.tx(), 3
    gradients = [gradients_like(params, seed) for seed in range(steps)]
    expected = walk(tx, params, steps)

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
    last = jax.tree.map(lambda x: x[-1], updates)
    for dtype, rtol in RTOL.items():
        chex.assert_trees_all_close(last[dtype], expected[0][dtype], rtol=rtol, atol=1e-6)
    chex.assert_trees_all_close(state, expected[1], rtol=1e-5, atol=1e-6)
    skipped, _ = scanned(tx.init(params), stacked, True)
    chex.assert_trees_all_equal(skipped, tx.init(params))


@with_numbers
def test_vmap_over_hyperparameters_agrees_with_one_at_a_time(case):
    params = mixed_params()
    numbers = {name: jnp.float32(x) * jnp.float32([1, 0.5, 0]) for name, x in case.numbers.items()}
    if "eps" in numbers:
        numbers["eps"] += 1e-6

    def last_update(numbers):
        updates, state = walk(case.tx(**numbers), params, steps=2)
        return updates, state

    lanes = jax.jit(jax.vmap(last_update))(numbers)
    lone = jax.jit(last_update)
    for i in range(3):
        chex.assert_trees_all_close(
            jax.tree.map(lambda x, i=i: x[i], lanes),
            lone(jax.tree.map(lambda x, i=i: x[i], numbers)),
            rtol=1e-2,  # bfloat16 has eight bits
            atol=1e-6,
        )


@every_case
@pytest.mark.parametrize("numbers", [dict, as_arrays], ids=["numbers", "arrays"])
@pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
def test_passes_under_strict_promotion(case, numbers, complex_, strict):
    params = mixed_params()
    params = params["complex64"] if complex_ else {**params, "complex64": None}
    tx = case.tx(**numbers(case.numbers))
    walk(tx, params, steps=2)
    jax.eval_shape(tx.update, params, tx.init(params), params)


@every_case
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64], ids=jnp.dtype)
def test_keeps_shardings(case, axis_type, dtype):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(axis_type,))
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    params = {"rows": jax.device_put(jnp.ones((8, 2), dtype), sharding)}
    tx = case.tx()
    for update in tx.update, jax.jit(tx.update):
        state = tx.init(params)
        updates, new_state = update(params, state, params)
        for x in jax.tree.leaves((updates, state, new_state)):
            if x.ndim:
                assert x.sharding.is_equivalent_to(sharding, x.ndim)


@every_case
def test_the_state_can_be_donated(case):
    # No two leaves may share a buffer, which could not be given away twice.
    params, tx = {"kernel": jnp.ones((2, 2))}, case.tx()
    donating = jax.jit(lambda state: tx.update(params, state, params)[1], donate_argnums=0)
    chex.assert_trees_all_equal_structs(donating(donating(tx.init(params))), tx.init(params))


@every_case
def test_unknown_extra_arguments_are_accepted(case):
    params, tx = {"kernel": jnp.ones((2, 2))}, case.tx()
    state = tx.init(params)
    expected = tx.update(params, state, params)
    got = tx.update(params, state, params, value=jnp.float32(1), label="not an array")
    chex.assert_trees_all_equal(got, expected)

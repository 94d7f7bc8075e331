"""The learning rate, and hyperparameters that are schedules."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES, mixed_params, walk

import adamw_jax as aj

SCHEDULED = [(case, name) for case in CASES for name in case.scheduled]
scheduled = pytest.mark.parametrize("case, name", SCHEDULED, ids=[f"{c}-{n}" for c, n in SCHEDULED])


def test_learning_rate_flips_the_sign_unless_told_not_to():
    u = jnp.float32([1.0, -2.0])
    for flip_sign, sign in (True, -1), (False, 1):
        tx = aj.scale_by_learning_rate(0.5, flip_sign=flip_sign)
        updates, state = tx.update(u, tx.init(u))
        chex.assert_trees_all_equal(updates, sign * 0.5 * u)
        assert state == optax.EmptyState()
        peer = optax.scale_by_learning_rate(0.5, flip_sign=flip_sign)
        chex.assert_trees_all_equal(updates, peer.update(u, peer.init(u))[0])


def test_updates_see_the_schedule_at_zero_one_two():
    tx = aj.scale_by_learning_rate(lambda step: step + 10.0, flip_sign=False)
    state = tx.init(jnp.ones(1))
    assert isinstance(state, aj.StepsState) and state.count.dtype == jnp.int32
    for step in range(3):
        assert state.count == step
        updates, state = tx.update(jnp.ones(1), state)
        assert updates[0] == 10 + step


@scheduled
def test_a_constant_schedule_is_the_number(case, name):
    params = mixed_params()
    constant = walk(case.tx(**{name: optax.constant_schedule(case.numbers[name])}), params)[0]
    chex.assert_trees_all_equal_shapes_and_dtypes(constant, params)
    chex.assert_trees_all_equal(constant, walk(case.tx(), params)[0])


@scheduled
def test_a_schedule_is_called_with_the_count_as_in_optax(case, name):
    params = mixed_params()["float32"]
    numbers = {**case.numbers, name: optax.linear_schedule(case.numbers[name], 0.0, 4)}
    updates, state = walk(case.make(**numbers), params)
    if case.peer:
        expected, _ = walk(case.peer(**numbers), params)
        chex.assert_trees_all_close(updates, expected, rtol=1e-4)
    assert [int(count) for _, count in optax.tree.get_all_with_path(state, "count")][-1] == 3


@scheduled
def test_scheduled_stages_keep_dtypes_and_are_not_traced_again(case, name):
    chex.clear_trace_counter()
    params = mixed_params()
    tx = case.tx(**{name: lambda step: jnp.float32(0.1) / (1 + step)})
    update = jax.jit(chex.assert_max_traces(tx.update, 1))
    start = tx.init(params)
    updates, state = update(params, start, params)
    updates, state = update(params, state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    assert jax.tree.map(jax.typeof, start) == jax.tree.map(jax.typeof, state)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda step: 2,
        lambda step: 2.0,
        lambda step: np.float32(2),
        lambda step: np.array(2.0),
        lambda step: jnp.bfloat16(2),
        lambda step: jnp.int32(2),
        lambda step: jnp.uint8(2),
        lambda step: jnp.where(step > 5, 0, 2),
    ],
    ids=["int", "float", "NumPy", "0-d NumPy", "bfloat16", "int32", "uint8", "where"],
)
def test_schedules_may_give_every_kind_of_number(schedule):
    params = jnp.float32([1.0, 3.0])
    tx = aj.gd(schedule)
    chex.assert_trees_all_equal(tx.update(params, tx.init(params))[0], -2 * params)


def test_two_schedules_may_differ_in_adamw():
    # The decay stands before the learning rate, and so is multiplied by both.
    tx = aj.adamw(lambda step: 0.5 + step, weight_decay=lambda step: 0.25 * (1 + step))
    params = jnp.float32([8.0])
    state = tx.init(params)
    for step in range(3):
        updates, state = tx.update(jnp.zeros(1), state, params)
        np.testing.assert_allclose(updates, [-(0.5 + step) * 0.25 * (1 + step) * 8], rtol=1e-6)


def test_schedule_count_saturates():
    tx = aj.gd(lambda step: (step == 2**31 - 1).astype(jnp.float32))
    state = jax.tree.map(lambda count: jnp.int32(2**31 - 1), tx.init(jnp.ones(1)))
    for _ in range(2):
        updates, state = tx.update(jnp.ones(1), state)
        assert updates[0] == -1


def test_warmup_cosine_trains_as_with_optax():
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 3, 10)
    params = mixed_params()["float32"]
    ours, peer = (walk(lib.adamw(schedule), params, steps=8)[0] for lib in (aj, optax))
    chex.assert_trees_all_close(ours, peer, rtol=1e-4)

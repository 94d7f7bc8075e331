"""`momentum` and `second_moment`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import walk
from reference import weighted_mean

import adamw_jax as aj

HALF = pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])


def averaged(tx, params, gradient, steps):
    """The state after many steps along one gradient."""

    def step(_, state):
        return tx.update(gradient, state, params)[1]

    return jax.lax.fori_loop(0, steps, step, tx.init(params))


def test_momentum_is_the_recurrence():
    tx = aj.momentum(0.75)
    state = tx.init(jnp.zeros(2))
    m = np.zeros(2)
    for g in [1.0, -2.0], [0.5, 0.0], [4.0, 8.0]:
        m = 0.75 * m + 0.25 * np.array(g)
        updates, state = tx.update(jnp.float32(g), state)
        chex.assert_trees_all_equal(updates, jnp.float32(m))
        chex.assert_trees_all_equal(state.mu, updates)


def test_second_moment_is_the_recurrence():
    tx = aj.second_moment(0.75)
    state = tx.init(jnp.zeros(2))
    v = np.zeros(2)
    for g in [1.0, -2.0], [0.5, 0.0], [4.0, 8.0]:
        v = 0.75 * v + 0.25 * np.array(g) ** 2
        updates, state = tx.update(jnp.float32(g), state)
        chex.assert_trees_all_equal(updates, jnp.float32(v))
        chex.assert_trees_all_equal(state.nu, updates)


def test_nesterov_puts_out_the_average_if_the_gradient_came_again_and_keeps_the_state():
    params = jnp.float32([1.0, -2.0])
    (plain, state), (ahead, same) = (
        walk(aj.momentum(0.8, nesterov=nesterov), params) for nesterov in (False, True)
    )
    chex.assert_trees_all_close(state, same, rtol=1e-6)
    tx = aj.momentum(0.8)
    gradient = (plain - 0.8 * walk(tx, params, steps=2)[0]) / 0.2  # the last one
    chex.assert_trees_all_close(ahead, tx.update(gradient, state)[0], rtol=1e-5)


@pytest.mark.parametrize("zero", [0, 0.0, jnp.float32(0)], ids=repr)
def test_with_decay_rate_zero_an_average_is_its_input_bit_for_bit(zero):
    params = jnp.float32([1e-20, 0.1, 3e20])
    gradient, _ = walk(aj.chain(), params)
    chex.assert_trees_all_equal(walk(aj.momentum(zero), params)[0], gradient)
    chex.assert_trees_all_equal(walk(aj.second_moment(zero), params)[0], gradient * gradient)


@HALF
def test_half_precision_second_moment_does_not_stall(dtype):
    # In bfloat16 arithmetic v stops growing at about half of g².
    params, gradient = jnp.ones(2, dtype), jnp.full(2, 0.5, dtype)
    state = averaged(aj.second_moment(0.99), params, gradient, 2000)
    assert state.nu.dtype == jnp.float32
    chex.assert_trees_all_close(state.nu, jnp.full(2, 0.25), rtol=1e-5)


@HALF
def test_half_precision_momentum_does_not_stall(dtype):
    params, gradient = jnp.ones(2, dtype), jnp.full(2, 0.5, dtype)
    state = averaged(aj.momentum(0.99), params, gradient, 2000)
    assert state.mu.dtype == jnp.float32
    chex.assert_trees_all_close(state.mu, jnp.full(2, 0.5), rtol=1e-5)


@HALF
@pytest.mark.parametrize("g", [0.0, 3e-7, 1e-6, 1e-5, 1e4])
def test_half_precision_gradients_neither_underflow_nor_overflow_in_adam(dtype, g):
    params, gradient = jnp.ones(2, dtype), jnp.full(2, g, dtype)
    g = float(gradient[0])  # as rounded
    for tx in aj.adam(0.5), aj.adamw(0.5, weight_decay=0):
        state = tx.init(params)
        for _ in range(3):
            updates, state = tx.update(gradient, state, params)
            expected = jnp.full(2, -0.5 * g / (g + 1e-8), dtype)
            chex.assert_trees_all_close(updates, expected, rtol=1e-2)


@pytest.mark.parametrize("b2", [0.999, 0.9999, 0.99999])
def test_second_moment_does_not_drift_over_long_runs(b2):
    # β₂v + (1−β₂)g² does: its float32 factors do not sum to one.
    gradients = np.random.default_rng(0).normal(size=(30_000, 4)).astype(np.float32)
    tx = aj.second_moment(b2)
    start = tx.init(jnp.zeros(4))
    state, _ = jax.jit(jax.lax.scan, static_argnums=0)(
        lambda state, g: (tx.update(g, state)[1], None), start, gradients
    )
    expected = weighted_mean(gradients.astype(np.float64) ** 2, b2) * (1 - b2**30_000)
    np.testing.assert_allclose(state.nu, expected, rtol=2e-5)


def test_complex_second_moment_is_real_in_the_state_and_complex_outside():
    tx = aj.second_moment(0.75)
    updates, state = tx.update(jnp.complex64([3 + 4j]), tx.init(jnp.complex64([0])))
    assert state.nu.dtype == jnp.float32
    chex.assert_trees_all_equal(state.nu, jnp.float32([6.25]))
    chex.assert_trees_all_equal(updates, jnp.complex64([6.25]))


@pytest.mark.parametrize("mu_dtype", ["bfloat16", jnp.bfloat16, np.dtype("float32"), jnp.float16])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_accumulator_dtype_is_the_dtype_of_the_state_alone(mu_dtype, dtype):
    params = jnp.ones(2, dtype)
    for tx in aj.momentum(0.9, accumulator_dtype=mu_dtype), aj.adamw(0.1, mu_dtype=mu_dtype):
        updates, state = walk(tx, params)
        assert optax.tree.get(state, "mu").dtype == jnp.dtype(mu_dtype)
        assert updates.dtype == dtype


def test_accumulator_dtype_rounds_the_state_and_not_the_step():
    gradient = jnp.float32([1.001])
    tx = aj.momentum(0.5, accumulator_dtype=jnp.bfloat16)
    updates, state = tx.update(gradient, tx.init(gradient))
    chex.assert_trees_all_equal(updates, gradient / 2)
    chex.assert_trees_all_equal(state.mu, jnp.bfloat16([0.5]))


@pytest.mark.parametrize("dtype", ["nonsense", jnp.int32, bool])
def test_accumulator_dtype_must_be_floating(dtype):
    with pytest.raises(ValueError, match="accumulator_dtype"):
        aj.momentum(0.9, accumulator_dtype=dtype)


def test_a_real_accumulator_is_refused_for_complex_parameters():
    # It would drop the imaginary part of the average.
    tx = aj.momentum(0.9, accumulator_dtype=jnp.float32)
    with pytest.raises(ValueError, match="accumulator_dtype"):
        tx.init({"w": jnp.complex64([1j])})


@pytest.mark.parametrize("make", [aj.adam, aj.nadam, aj.amsgrad, aj.rmsprop])
def test_a_gradient_whose_square_overflows_stops_a_parameter_as_in_optax(make):
    # A finite second moment would divide a first one that still holds the spike.
    peer = getattr(optax, make.__name__)
    for tx in make(1e-3), peer(1e-3):
        state = tx.init(jnp.ones(2))
        for g in [1e30] + 50 * [1e-2]:
            updates, state = tx.update(jnp.float32([g, 1e-2]), state)
            assert updates[0] == 0 and -0.1 < updates[1] < 0

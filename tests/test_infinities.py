"""Where Optax's parameters stay finite after a gradient that is not, or overflows, so do ours."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES

import adamw_jax as aj

RATES = [0.0, 0.1, 0.4, 0.5, 0.9, 0.999]
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
SPIKES = [1e19, 2e20, 3e38, -3e38, jnp.inf, -jnp.inf, jnp.nan]
PEERS = [c for c in CASES if c.peer and {"b1", "b2"} & c.numbers.keys()]


def ends(tx, dtype):
    """The parameters after an ordinary gradient, a spike, and three more ordinary ones."""
    params = jnp.ones(len(SPIKES), dtype)
    ordinary, spikes = jnp.full_like(params, 0.5), jnp.float32(SPIKES).astype(dtype)
    state = tx.init(params)
    for gradients in ordinary, spikes, ordinary, -ordinary, ordinary:
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("as_array", [False, True], ids=["number", "array"])
@pytest.mark.parametrize("case", PEERS, ids=str)
def test_finite_where_optax_is(case, as_array):
    dtypes = DTYPES if as_array else DTYPES[:1]

    def both(rate):
        numbers = case.numbers | dict.fromkeys({"b1", "b2"} & case.numbers.keys(), rate)
        if "eps" in numbers:
            numbers["eps"] = 1e-3  # that 0/0 does not hide what is looked for
        makes = case.make, case.peer
        return [[ends(make(**numbers), dtype) for make in makes] for dtype in dtypes]

    if as_array:
        found = jax.jit(jax.vmap(both))(jnp.float32(RATES))
    else:
        found = jax.tree.map(
            lambda *rates: np.stack(rates), *map(jax.jit(both, static_argnums=0), RATES)
        )
    for ours, theirs in found:
        worse = np.isfinite(np.float32(theirs)) & ~np.isfinite(np.float32(ours))
        assert not worse.any(), [(RATES[i], SPIKES[j]) for i, j in np.argwhere(worse)]


WRAPPED = {
    "plain": lambda tx: tx,
    "zero_nans": lambda tx: optax.chain(optax.zero_nans(), tx),
    "masked": lambda tx: optax.masked(tx, {"w": True}),
    "partition": lambda tx: optax.partition({"all": tx}, {"w": "all"}),
    "schedule_free": lambda tx: optax.contrib.schedule_free(tx, 0.1),
}


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_lion_survives_an_infinite_gradient(wrapped):
    def run(lion):
        tx, params = wrapped(lion), {"w": jnp.ones(2)}
        state = tx.init(params)
        for g in 0.5, jnp.inf, 0.5, -0.5:
            updates, state = tx.update({"w": jnp.float32([g, 0.5])}, state, params)
            params = optax.apply_updates(params, updates)
        return params["w"]

    ours, theirs = (run(make(0.1, weight_decay=0.01)) for make in (aj.lion, optax.lion))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("b2", [0.0, 0.1, 0.4, 0.999])
@pytest.mark.parametrize("as_array", [False, True], ids=["number", "array"])
def test_a_square_that_overflows_stops_the_parameter_and_is_no_nan(b2, as_array):
    b2 = jnp.float32(b2) if as_array else b2
    tx, params = aj.rmsprop(0.1, b2), jnp.float32([1.0, 1.0])
    state = tx.init(params)
    for g in ([1.0, 1.0], [1e20, 1.0], [1.0, 1.0]):
        updates, state = tx.update(jnp.float32(g), state, params)
    assert state[0].nu[0] == jnp.inf and updates[0] == 0
    assert jnp.isfinite(state[0].nu[1]) and updates[1] < 0


def test_complex_averages_survive_an_infinite_part():
    tx, params = aj.momentum(0.9), jnp.complex64([1 + 1j])
    state = tx.init(params)
    for g in 1 + 1j, complex(jnp.inf, 1), 1 + 1j:
        updates, state = tx.update(jnp.complex64([g]), state, params)
    assert updates[0].real == jnp.inf and updates[0].imag == pytest.approx(0.271, rel=1e-5)


def test_the_derivative_with_respect_to_a_rate_is_finite_everywhere():
    def loss(b1, b2, steps=3):
        tx, params = aj.adam(0.1, b1, b2, eps=1e-3), jnp.asarray([1.0, 2.0])
        state = tx.init(params)
        for t in range(steps):
            updates, state = tx.update(jnp.asarray([0.5, -1.5]) * (t + 1), state, params)
            params = optax.apply_updates(params, updates)
        return params.sum()

    slope = jax.jit(jax.vmap(jax.grad(loss, (0, 1))))
    rates = jnp.float32([0, 1e-30, 1e-6, 0.2, 0.25, 0.3, 0.5, 0.9])
    by_b1, by_b2 = slope(rates, rates)
    assert jnp.isfinite(by_b1).all() and jnp.isfinite(by_b2).all()
    # Where nothing is special about the rate, by finite differences in float64.
    with jax.enable_x64():
        h = 1e-6
        for i in (3, 5, 7):
            b = np.float64(rates[i])
            difference = (loss(b + h, b) - loss(b - h, b)) / (2 * h)
            np.testing.assert_allclose(by_b1[i], difference, rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("b1", [0.0, 0.3, 0.9])
def test_the_derivative_is_finite_where_a_difference_overflows(b1):
    gradients = jnp.float32([[1, 3e38, 1], [1, -3e38, -1], [1, 2, 3]])

    def total(library, b1):
        tx, params = library.adam(1e-3, b1=b1, eps_root=1e-8), jnp.ones(3)
        state, last = tx.init(params), 0.0
        for g in gradients:
            updates, state = tx.update(g, state, params)
            last += updates.sum()
        return last

    slopes = [
        jax.grad(functools.partial(total, library))(jnp.float32(b1)) for library in (aj, optax)
    ]
    ours, theirs = slopes
    assert jnp.isfinite(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=2e-2)


def test_clipping_has_a_derivative_where_all_gradients_are_zero():
    tx = aj.parallel(aj.chain(), aj.chain(), aj.second_moment(0.9), merge=aj.clip_by_rms(1e-8))
    zero = jnp.zeros(3)
    slope = jax.grad(lambda g: tx.update(g, tx.init(zero), zero)[0].sum())(zero)
    np.testing.assert_array_equal(slope, jnp.ones(3))

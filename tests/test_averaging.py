"""The average of the parameters over the steps."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from cases import decays_matrices, error, mixed_params, problem, walk
from flax import nnx

import adamw_jax as aj

every_b2 = pytest.mark.parametrize("b2", [0, 0.9, 0.999, 0.99999])
PARAMS = {"kernel": jnp.float32([[1.0, -2.0]]), "bias": jnp.float32([0.5, 3.0])}


def average(state):
    return optax.tree.get(state, "average")


def averaged(tx, quadratics, dtype):
    """The average at the end of a run."""
    return average(quadratics.last(tx, dtype)[1])


def expected_average(quadratics, b2, α):
    """Of the parameters after each step, which the gradient sees before the next."""

    def averaged(θ, gradient, steps):
        path = []

        def recorded(θ, t):
            path.append(θ)
            return gradient(θ, t)

        last = reference.adam(θ, recorded, steps, α=α)
        return reference.temporal_average([*path[1:], last], b2)

    return quadratics.reference(averaged)


@every_b2
def test_equals_the_reference_over_two_thousand_steps(b2):
    quadratics, α = problem(2000), 1e-2
    expected = expected_average(quadratics, b2, α)
    tx = aj.chain(aj.adam(α), aj.temporal_average(b2))
    assert error(averaged(tx, quadratics, jnp.float32), expected) < 2e-5
    with jax.enable_x64(True):
        assert error(averaged(tx, quadratics, jnp.float64), expected) < 1e-10


def test_equals_the_reference_on_complex_parameters():
    quadratics, α, b2 = problem(200, complex_=True), 1e-2, 0.99
    tx = aj.chain(aj.adam(α), aj.temporal_average(b2))
    actual = averaged(tx, quadratics, jnp.complex64)
    assert error(actual, expected_average(quadratics, b2, α)) < 2e-5


@every_b2
def test_after_every_one_of_the_first_steps_it_is_the_corrected_average(b2):
    tx, θ, path = aj.temporal_average(b2), jnp.float32([1.0, -2.0]), []
    state = tx.init(θ)
    chex.assert_trees_all_equal(average(state), θ)
    for u in np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32):
        _, state = tx.update(u, state, θ)
        θ = θ + u
        path.append(np.float64(θ))
        expected = reference.temporal_average(path, b2)
        np.testing.assert_allclose(average(state), expected, rtol=1e-6, atol=1e-6)
    assert int(optax.tree.get(state, "count")) == 20


@every_b2
def test_after_one_step_it_is_the_parameters(b2):
    tx = aj.chain(aj.adam(0.1), aj.temporal_average(b2))
    updates, state = walk(tx, PARAMS, steps=1)
    params = optax.apply_updates(PARAMS, updates)
    chex.assert_trees_all_close(average(state), params, rtol=1e-6)


def test_the_average_of_parameters_that_stay_is_these_parameters():
    tx = aj.temporal_average(0.9)
    state = tx.init(PARAMS)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for _ in range(50):
        _, state = tx.update(zeros, state, PARAMS)
    chex.assert_trees_all_equal(average(state), PARAMS)


def test_a_long_run_does_not_drift_away_from_its_parameters():
    # As a quotient of sums the average of a constant is off by what both have rounded.
    tx = aj.temporal_average(0.99999)
    θ = jnp.float32([0.1, 1e-20, 1e20])

    def step(_, state):
        return tx.update(jnp.zeros_like(θ), state, θ)[1]

    state = jax.lax.fori_loop(0, 100_000, step, tx.init(jnp.zeros(3)))
    np.testing.assert_allclose(average(state), θ, rtol=1e-6)


@every_b2
def test_the_first_parameters_are_forgotten_at_once(b2):
    # What stands in the state before the first step is not part of the average.
    tx, θ = aj.temporal_average(b2), jnp.float32([1.0])
    one, other = tx.init(θ), tx.init(1e6 * θ)
    for _ in range(2):
        (_, one), (_, other) = (tx.update(θ, state, θ) for state in (one, other))
    np.testing.assert_allclose(average(one), 2, rtol=1e-6)
    np.testing.assert_allclose(average(other), 2, rtol=0.2)


def test_updates_pass_as_they_are():
    tx = aj.temporal_average(0.9)
    params = mixed_params()
    updates = jax.tree.map(lambda x: x / 3, params)
    got, _ = tx.update(updates, tx.init(params), params)
    assert all(x is y for x, y in zip(*map(jax.tree.leaves, (got, updates)), strict=True))
    alone, chained = aj.adamw(0.1), aj.chain(aj.adamw(0.1), aj.temporal_average(0.9))
    chex.assert_trees_all_equal(walk(alone, params)[0], walk(chained, params)[0])


def test_of_bfloat16_parameters_the_rounded_ones_are_averaged():
    # An update of less than half a unit in the last place of θ does not reach θ.
    θ, tiny = jnp.bfloat16([1.0, 2.0]), jnp.bfloat16([1e-3, 0.5])
    tx = aj.temporal_average(0.9)
    _, state = tx.update(tiny, tx.init(θ), θ)
    chex.assert_trees_all_equal(optax.apply_updates(θ, tiny), jnp.bfloat16([1.0, 2.5]))
    chex.assert_trees_all_equal(average(state), jnp.float32([1.0, 2.5]))


def test_of_bfloat16_parameters_the_average_is_in_float32():
    # Of neighbours in bfloat16, between which it has no number for the mean.
    path = np.array([[1.0, 2.5], [1 + 2**-7, 2.5]])
    tx = aj.temporal_average(0.9)
    state = tx.init(jnp.bfloat16(path[0]))
    for θ in path:
        updates, state = tx.update(jnp.zeros(2, jnp.bfloat16), state, jnp.bfloat16(θ))
    assert updates.dtype == jnp.bfloat16 and average(state).dtype == jnp.float32
    expected = reference.temporal_average(path, 0.9)
    np.testing.assert_allclose(average(state), expected, rtol=1e-6)
    assert 1 < average(state)[0] < 1 + 2**-7


def test_parameters_without_an_update_keep_their_average():
    params = {"w": jnp.float32([1.0, 2.0]), "frozen": jnp.float32([5.0]), "none": None}
    tx = aj.temporal_average(0.9)
    state = tx.init(params)
    updates = {"w": jnp.float32([1.0, 1.0]), "frozen": None, "none": None}
    for _ in range(2):
        got, state = tx.update(updates, state, params)
        assert got["frozen"] is None and got["none"] is None
    expected = {"w": jnp.float32([2.0, 3.0]), "frozen": jnp.float32([5.0]), "none": None}
    chex.assert_trees_all_close(average(state), expected, rtol=1e-6)


def test_needs_the_parameters():
    tx = aj.chain(aj.adam(0.1), aj.temporal_average(0.9))
    with pytest.raises(ValueError, match="temporal averaging needs the parameters"):
        tx.update(PARAMS, tx.init(PARAMS))


def test_integers_and_bad_rates_are_refused():
    with pytest.raises(ValueError, match=r"\['n'\] \(int32\)"):
        aj.temporal_average(0.9).init({"n": jnp.int32([1])})
    for b2 in 1.0, -0.1, np.nan:
        with pytest.raises(ValueError, match="b2 must be"):
            aj.temporal_average(b2)


def test_the_parameters_can_be_donated_and_the_average_stays():
    params = jax.tree.map(jnp.array, PARAMS)
    tx = aj.chain(aj.adam(0.1), aj.temporal_average(0.9))
    state = tx.init(params)

    def step(params, state):
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    donating = jax.jit(step, donate_argnums=(0, 1))
    first, kept = params, average(state)
    for _ in range(2):
        params, state = donating(params, state)
    assert all(x.is_deleted() for x in jax.tree.leaves((first, kept)))
    chex.assert_tree_all_finite((params, state))
    # The parameters alone, while the state is kept.
    params = jax.tree.map(jnp.array, PARAMS)
    start = tx.init(params)
    jax.jit(step, donate_argnums=0)(params, start)
    assert all(x.is_deleted() for x in jax.tree.leaves(params))
    chex.assert_trees_all_equal(average(start), PARAMS)


def test_under_a_mask_the_rest_has_no_average():
    tx = optax.masked(aj.temporal_average(0.9), decays_matrices)
    updates, state = walk(tx, PARAMS, steps=1)
    got = average(state)
    chex.assert_trees_all_close(got["kernel"], PARAMS["kernel"] + updates["kernel"], rtol=1e-6)
    assert got["bias"] == optax.MaskedNode()


def test_two_averages_are_found_apart():
    tx = aj.chain(aj.gd(0.5), aj.temporal_average(0.0), aj.temporal_average(0.9))
    _, state = walk(tx, PARAMS)
    fast, slow = (average for _, average in optax.tree.get_all_with_path(state, "average"))
    assert np.all(fast["bias"] != slow["bias"])


class Line(nnx.Module):
    def __init__(self):
        self.w, self.calls = nnx.Param(jnp.ones(2)), nnx.BatchStat(jnp.zeros(1))


def test_it_can_be_taken_from_an_nnx_optimizer():
    b2, model, path = 0.9, Line(), []
    tx = aj.chain(aj.adam(0.1), aj.temporal_average(b2))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        gradients = nnx.grad(lambda model: jnp.sum((model.w[...] - 3) ** 2))(model)
        optimizer.update(model, gradients)

    for _ in range(10):
        step(model, optimizer)
        path.append(np.float64(model.w[...]))
    got = nnx.to_pure_dict(nnx.state(optax.tree.get(optimizer.opt_state, "average")))
    np.testing.assert_allclose(got["w"], reference.temporal_average(path, b2), rtol=1e-5)
    # As a model of its own, for evaluation.
    evaluated = nnx.clone(model)
    nnx.update(evaluated, optax.tree.get(optimizer.opt_state, "average"))
    np.testing.assert_allclose(evaluated.w[...], got["w"])
    assert np.all(evaluated.w[...] != model.w[...])

"""The laws of the library, as properties of arbitrary gradients and hyperparameters."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from reference import weighted_mean
from strategies import STEPS, THETA, amounts, nonzero, outputs, rates, runs, vectors

import adamw_jax as aj

pieces = st.one_of(
    st.just(aj.chain()),
    st.builds(aj.momentum, rates, nesterov=st.booleans()),
    st.builds(aj.second_moment, rates),
    st.builds(aj.bias_correction, rates),
    st.builds(aj.decoupled_weight_decay, amounts),
    st.builds(aj.scale_by_learning_rate, amounts),
    st.builds(aj.adam, amounts, rates, rates),
    st.just(optax.clip_by_global_norm(1.0)),
)


def descent(tx, gradients, params):
    state = tx.init(params)
    for g in gradients:
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
    return params


# 1. `chain` is associative, and `chain()` is the identity.


@given(runs())
def test_the_empty_chain_is_the_identity(gradients):
    chex.assert_trees_all_equal(outputs(aj.chain(), gradients), gradients)


@given(pieces, runs())
def test_the_empty_chain_is_neutral_on_either_side(a, gradients):
    expected = outputs(a, gradients)
    for chained in aj.chain(aj.chain(), a), aj.chain(a, aj.chain()), aj.chain(a):
        chex.assert_trees_all_equal(outputs(chained, gradients), expected)


@given(pieces, pieces, pieces, runs())
def test_chain_is_associative(a, b, c, gradients):
    expected = outputs(aj.chain(a, b, c), gradients)
    for chained in aj.chain(a, aj.chain(b, c)), aj.chain(aj.chain(a, b), c):
        chex.assert_trees_all_equal(outputs(chained, gradients), expected)


# 2. `parallel` is the merge of what its branches give alone.


@given(pieces, pieces, st.sampled_from([jnp.add, jnp.multiply, jnp.arctan2]), runs())
def test_parallel_merges_what_its_branches_give_alone(a, b, merge, gradients):
    alone = map(merge, outputs(a, gradients), outputs(b, gradients))
    chex.assert_trees_all_equal(outputs(aj.parallel(a, b, merge=merge), gradients), list(alone))


# 3. A corrected average is the weighted mean of the gradients so far.


@given(rates, runs())
def test_corrected_momentum_is_the_weighted_mean(b, gradients):
    means = outputs(aj.chain(aj.momentum(b), aj.bias_correction(b)), gradients)
    for t in range(1, STEPS + 1):
        scale = max(1e-3, np.max(np.abs(gradients[:t])))
        np.testing.assert_allclose(
            means[t - 1] / scale, weighted_mean(gradients[:t], b) / scale, atol=2e-6
        )


@given(rates, vectors())
def test_the_corrected_average_of_one_gradient_is_that_gradient(b, gradient):
    for tx, expected in [(aj.momentum(b), gradient), (aj.second_moment(b), gradient**2)]:
        for mean in outputs(aj.chain(tx, aj.bias_correction(b)), [gradient] * STEPS):
            np.testing.assert_allclose(mean, expected, rtol=2e-6)


# 4. With ε = 0 Adam and AdamW do not see the scale of the loss; Adam+L2 does.


@given(runs(nonzero), st.integers(-20, 20), rates, rates, amounts)
def test_adam_and_adamw_are_invariant_to_the_scale_of_the_loss(gradients, power, b1, b2, decay):
    scaled = [np.ldexp(g, power) for g in gradients]
    for nesterov in False, True:
        for tx in (
            aj.adam(0.1, b1, b2, eps=0, nesterov=nesterov),
            aj.adamw(0.1, b1, b2, eps=0, weight_decay=decay, nesterov=nesterov),
        ):
            chex.assert_trees_all_equal(descent(tx, scaled, THETA), descent(tx, gradients, THETA))


def test_adam_with_l2_is_not_invariant_to_the_scale_of_the_loss():
    gradients = np.float32([[1, -1, 1], [2, -2, 2], [-3, 3, 3]])
    tx = aj.adam_l2(0.1, eps=0, l2=0.1)
    difference = descent(tx, gradients, THETA) - descent(tx, 1024 * gradients, THETA)
    assert np.all(np.abs(difference) > 1e-3)


# 5. L2 and weight decay: AdamW's Propositions 1, 2 and 3.


@given(runs(), st.floats(1e-3, 0.5), st.floats(1e-4, 0.5))
def test_for_gradient_descent_l2_is_weight_decay(gradients, α, λ):
    l2 = aj.chain(aj.l2_regularization(λ / α), aj.gd(α))
    decay = aj.chain(
        aj.scale_by_learning_rate(α, flip_sign=False), aj.decoupled_weight_decay(λ), aj.gd(1)
    )
    got, expected = descent(l2, gradients, THETA), descent(decay, gradients, THETA)
    scale = 300 + np.max(np.abs(gradients))
    np.testing.assert_allclose(got / scale, expected / scale, atol=1e-5)


@given(vectors(nonzero), st.floats(1e-2, 0.5), st.floats(1e-5, 1e3))
def test_for_adam_no_l2_is_weight_decay(gradient, λ, l2):
    # Whatever L2 adds to the gradient, Adam's first step is ±α in every coordinate.
    α = 0.1
    assume(np.all(np.abs(gradient + l2 * np.asarray(THETA)) > 1e-3))
    (l2_step,) = outputs(aj.adam_l2(α, eps=0, l2=l2), [gradient])
    (decay_step,) = outputs(aj.adamw(α, eps=0, weight_decay=λ), [gradient])
    np.testing.assert_allclose(np.abs(l2_step), α, rtol=1e-5)
    assert np.ptp(np.abs(decay_step)) > α * λ  # |±1 + λθ| differs between the coordinates


@given(runs(), vectors(amounts), amounts)
def test_with_a_frozen_preconditioner_weight_decay_is_l2_on_scaled_parameters(gradients, s, λ):
    α = 0.1
    precondition = optax.stateless(lambda u, p: u / s)
    penalty = jax.grad(lambda θ: λ / (2 * α) * jnp.sum((θ * jnp.sqrt(s)) ** 2))
    regularized = optax.stateless(lambda u, p: u + penalty(p))
    l2 = aj.chain(regularized, precondition, aj.gd(α))
    decay = aj.chain(
        precondition,
        aj.scale_by_learning_rate(α, flip_sign=False),
        aj.decoupled_weight_decay(λ),
        aj.gd(1),
    )
    got, expected = descent(l2, gradients, THETA), descent(decay, gradients, THETA)
    scale = 300 + np.max(np.abs(gradients)) / np.min(s)
    np.testing.assert_allclose(got / scale, expected / scale, atol=1e-5)


# Bounds that the papers state.


@given(
    st.lists(vectors(nonzero), min_size=1, max_size=STEPS), st.floats(0, 0.9), st.floats(0, 0.999)
)
def test_adam_bounds_its_first_step_by_the_learning_rate(gradients, b1, b2):
    first = outputs(aj.adam(0.1, b1, b2), gradients)[0]
    assert np.all(np.abs(first) <= 0.1 * (1 + 1e-6))


@pytest.mark.parametrize("make", [aj.adam, aj.adamw, aj.momentum_gd, aj.adam_l2])
@given(gradients=runs(), power=st.integers(-3, 3))
def test_updates_are_linear_in_the_learning_rate(make, gradients, power):
    one, scaled = (outputs(make(rate), gradients) for rate in (0.125, 0.125 * 2.0**power))
    chex.assert_trees_all_equal(scaled, [2.0**power * u for u in one])


@given(runs(), runs(), runs())
def test_the_leaves_of_a_tree_do_not_see_each_other(gradients, others, different):
    params = {"a": THETA, "b": {"c": THETA}}
    tx = aj.adamw(0.1)
    first, second = (
        outputs(tx, [{"a": g, "b": {"c": o}} for g, o in zip(gradients, b, strict=True)], params)
        for b in (others, different)
    )
    chex.assert_trees_all_equal([u["a"] for u in first], [u["a"] for u in second])

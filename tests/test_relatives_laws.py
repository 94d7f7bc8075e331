"""What holds for the relatives of Adam, whatever the gradients and hyperparameters."""

import chex
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import SIZE, STEPS, THETA, amounts, nonzero, outputs, rates, runs, vectors

import adamw_jax as aj

# Lion.


@given(runs(), rates, rates, amounts)
def test_every_step_of_lion_has_the_size_of_the_learning_rate_or_is_none(gradients, b1, b2, α):
    for update in outputs(aj.lion(α, b1, b2, weight_decay=0), gradients):
        assert set(np.abs(update).tolist()) <= {0.0, float(np.float32(α))}


@given(runs(), amounts)
def test_without_memory_lion_steps_against_the_sign_of_the_gradient(gradients, α):
    for g, update in zip(gradients, outputs(aj.lion(α, 0, 0), gradients, 0 * THETA), strict=True):
        np.testing.assert_array_equal(update, -np.float32(α) * np.sign(g))


@given(runs(), st.integers(-20, 20), rates, rates)
def test_lion_does_not_see_the_scale_of_the_loss(gradients, power, b1, b2):
    scaled = [np.ldexp(g, power) for g in gradients]
    one, other = (outputs(aj.lion(0.1, b1, b2), run) for run in (gradients, scaled))
    chex.assert_trees_all_equal(one, other)


# AMSGrad.


@given(runs(), rates)
def test_the_second_moment_of_amsgrad_never_falls(gradients, b2):
    # What divides the step is in the state; the maximum is taken last.
    tx = aj.amsgrad(0.1, b2=b2)
    state, before = tx.init(THETA), np.zeros(SIZE)
    for g in gradients:
        _, state = tx.update(g, state)
        largest = optax.tree.get(state, "nu_max")
        assert np.all(largest >= before)
        before = largest


def test_corrected_after_the_maximum_it_falls():
    # PyTorch's. One gradient and then nothing: v stays, and its correction grows.
    gradients = [np.float32([1]), np.float32([0]), np.float32([0])]
    corrected = aj.chain(aj.second_moment(0.9), aj.running_max(), aj.bias_correction(0.9))
    first, second, third = outputs(corrected, gradients, jnp.ones(1))
    np.testing.assert_allclose(
        [second, third], [0.1 / 0.19 * first, 0.1 / 0.271 * first], rtol=1e-5
    )
    maximum = aj.chain(aj.second_moment(0.9), aj.bias_correction(0.9), aj.running_max())
    chex.assert_trees_all_equal(*outputs(maximum, gradients, jnp.ones(1))[:2])


@given(runs(nonzero), rates, st.booleans())
def test_no_step_of_amsgrad_is_longer_than_adams(gradients, b1, before):
    make = {"b1": b1, "b2": 0.9, "eps": 0}
    largest = outputs(aj.amsgrad(0.1, **make, max_before_correction=before), gradients)
    for ours, adams in zip(largest, outputs(aj.adam(0.1, **make), gradients), strict=True):
        assert np.all(np.abs(ours) <= np.abs(adams) * (1 + 1e-5))


# AdaMax. The paper's bound |Δ| ≤ α is that of its first step. Later u is at least b2ᵏ|g| of the
# gradient k steps back and m̂ the mean with weights b1ᵏ, so |m̂|/u is at most the mean of b2⁻ᵏ,
# which for b1 < b2 grows towards (1 − b1) / (1 − b1/b2): 1.009 with the defaults.


def bound(t, b1, b2):
    k = np.arange(t)
    return np.sum(b1**k * b2**-k) / np.sum(b1**k)


@given(runs(nonzero), st.floats(0.01, 0.95), st.floats(0.5, 0.9999))
def test_adamax_bounds_its_steps_a_little_above_the_learning_rate(gradients, b1, b2):
    for t, update in enumerate(outputs(aj.adamax(0.1, b1, b2), gradients), start=1):
        assert np.all(np.abs(update) <= 0.1 * bound(t, b1, b2) * (1 + 1e-5))


@pytest.mark.parametrize("b1, b2", [(0.9, 0.999), (0.5, 0.9), (0.9, 0.95)])
def test_the_bound_is_reached_where_every_gradient_is_as_large_as_u(b1, b2):
    # Gradients that fall by b2 each step, and so are remembered with u undiminished.
    limit, steps = (1 - b1) / (1 - b1 / b2), 300
    assert bound(1, b1, b2) == 1
    np.testing.assert_allclose(bound(steps, b1, b2), limit, rtol=1e-4)
    gradients = [np.float32([b2**t]) for t in range(steps)]
    reached = np.abs(outputs(aj.adamax(1.0, b1, b2, eps=0), gradients, jnp.ones(1)))
    expected = [bound(t, b1, b2) for t in range(1, steps + 1)]
    np.testing.assert_allclose(reached[:, 0], expected, rtol=1e-4)
    assert reached[-1] > 1.005


# Proximal and cautious decay.


@given(vectors(), st.floats(0, 1e30))
def test_proximal_decay_never_overshoots_zero(step, λ):
    update, _ = aj.proximal_weight_decay(λ).update(step, optax.EmptyState(), THETA)
    moved, whole = np.float64(THETA) + step, np.float64(THETA) + update
    scale = np.abs(THETA) + np.abs(step)
    np.testing.assert_allclose(whole, moved / (1 + λ), rtol=0, atol=1e-6 * np.max(scale))
    assert np.all(np.sign(moved) * whole >= -1e-6 * scale)
    # Where decoupled decay does, as soon as λ > 1.
    decoupled = THETA - min(λ, 1e6) * THETA
    assert λ <= 1 or np.all(np.sign(decoupled) == -np.sign(THETA))


@given(runs(nonzero), amounts, amounts)
def test_adam_prox_without_steps_only_shrinks(gradients, α, λ):
    zeros = [0 * g for g in gradients]
    for update in outputs(aj.adam_prox(α, weight_decay=1e6 * λ), zeros):
        assert np.all(np.abs(THETA + update) <= np.abs(THETA))
        assert np.all((THETA + update) * THETA >= 0)


@given(vectors(), vectors(), st.floats(0, 10))
def test_cautious_decay_never_turns_a_step_or_shortens_it(u, θ, λ):
    tx = aj.cautious_weight_decay(λ)
    got, plain = (
        np.asarray(tx.update(u, tx.init(θ), θ)[0]) for tx in (tx, aj.decoupled_weight_decay(λ))
    )
    assert np.all(got * u >= 0) and np.all(np.abs(got) >= np.abs(u))
    agree = u * θ >= 0
    np.testing.assert_allclose(got, np.where(agree, plain, u), rtol=1e-6)


# RAdam and momentum.


@given(runs(), rates, st.floats(0, 0.6), st.sampled_from([4.0, 5.0]))
def test_radam_with_a_short_memory_is_momentum(gradients, b1, b2, threshold):
    # ρ∞ ≤ 4: the second moment is never worth enough gradients.
    mean = aj.chain(aj.momentum(b1), aj.bias_correction(b1), aj.scale_by_learning_rate(0.1))
    got = outputs(aj.radam(0.1, b1, b2, eps=0, threshold=threshold), gradients)
    chex.assert_trees_all_close(got, outputs(mean, gradients), rtol=1e-6)


@given(runs(nonzero, steps=5), st.floats(0.9, 0.9999))
def test_radam_is_momentum_for_the_first_steps(gradients, b2):
    # ρₜ < t, so up to the fifth step at least, and to the fourth with the paper's threshold.
    mean = aj.chain(aj.momentum(0.9), aj.bias_correction(0.9), aj.scale_by_learning_rate(0.1))
    expected = outputs(mean, gradients)
    got = outputs(aj.radam(0.1, b2=b2, eps=0), gradients)
    chex.assert_trees_all_close(got, expected, rtol=1e-6)
    paper = outputs(aj.radam(0.1, b2=b2, eps=0, threshold=4.0), gradients)
    chex.assert_trees_all_close(paper[:4], expected[:4], rtol=1e-6)
    assert np.all(paper[4] != expected[4])


@given(st.floats(0.9, 0.999))
def test_in_the_end_radam_is_adam(b2):
    steps = int(30 / (1 - b2))
    v = np.float32([4.0])
    state = aj.StepsState(jnp.int32(steps))
    rectified, _ = aj.rectification(b2).update(v, state)
    np.testing.assert_allclose(rectified, v, rtol=1e-4)


# SGDW.


@given(runs(), rates, amounts, amounts, amounts)
def test_sgdw_under_a_constant_schedule_is_heavy_ball_decayed_per_step(gradients, b1, α, λ, η):
    sgdw = outputs(aj.sgdw(α, b1, λ, schedule=η), gradients)
    heavy_ball = outputs(aj.decayed_per_step(aj.heavy_ball_gd(α, b1), λ, η), gradients)
    scale = 300 + STEPS * np.max(np.abs(gradients))
    np.testing.assert_allclose(np.divide(sgdw, scale), np.divide(heavy_ball, scale), atol=1e-6)


def test_under_another_schedule_sgdw_keeps_the_old_steps_as_long_as_they_were():
    gradients = [np.float32([1]), np.float32([1])]

    def η(step):
        return jnp.where(step == 0, 1.0, 0.5)

    _, sgdw = outputs(aj.sgdw(1.0, 0.5, 0.0, schedule=η), gradients, jnp.ones(1))
    _, outside = outputs(
        aj.decayed_per_step(aj.heavy_ball_gd(1.0, 0.5), 0.0, η), gradients, jnp.ones(1)
    )
    assert sgdw == -(0.5 * 1 + 0.5) and outside == -0.5 * (0.5 + 1)


# StableAdamW.


@given(runs(nonzero), rates, amounts)
def test_stable_adamw_is_adamw_while_the_gradients_do_not_outgrow_their_square_mean(
    gradients, b1, decay
):
    falling = [2.0**-t * np.abs(gradients[0]) * np.sign(g) for t, g in enumerate(gradients)]
    numbers = {"b1": b1, "b2": 0.9, "weight_decay": decay}
    stable, plain = (outputs(make(0.1, **numbers), falling) for make in (aj.stable_adamw, aj.adamw))
    chex.assert_trees_all_close(stable, plain, rtol=1e-5, atol=1e-7)


@given(runs(nonzero), rates)
def test_no_step_of_stable_adamw_is_longer_than_adamws(gradients, b1):
    numbers = {"b1": b1, "b2": 0.9, "weight_decay": 0.1}
    stable, plain = (
        outputs(make(0.1, **numbers), gradients) for make in (aj.stable_adamw, aj.adamw)
    )
    for ours, adamws in zip(stable, plain, strict=True):
        assert np.all(np.abs(ours) <= np.abs(adamws) * (1 + 1e-5))
        # The whole leaf is shortened alike, decay too.
        shares = ours[adamws != 0] / adamws[adamws != 0]
        assert not shares.size or np.ptp(shares) < 1e-4


# AdaBelief.


@given(vectors(nonzero), st.floats(0.1, 0.9))
def test_the_surprise_of_adabelief_is_the_distance_from_the_mean(gradient, b1):
    # With the first gradient m is (1 − b1) g, so that g − m is b1 g, and the step α/b1.
    (update,) = outputs(aj.adabelief(0.1, b1, eps=0, eps_root=0), [gradient])
    np.testing.assert_allclose(update, -0.1 / b1 * np.sign(gradient), rtol=1e-4)

"""What holds for the second generation, whatever the gradients and hyperparameters."""

import re
from pathlib import Path

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import gradients_like, walk
from hypothesis import given
from hypothesis import strategies as st
from strategies import THETA, amounts, nonzero, outputs, rates, runs, vectors

import adamw_jax as aj

# Schedule-Free.


@given(runs(), amounts)
def test_without_interpolation_the_average_is_the_mean_of_all_iterates(gradients, γ):
    tx, θ, path = aj.schedule_free(γ, b1=0.0), THETA, []
    state = tx.init(θ)
    for g in gradients:
        updates, state = tx.update(g, state, θ)
        chex.assert_trees_all_close(updates, -np.float32(γ) * g, rtol=1e-6)
        θ = optax.apply_updates(θ, updates)
        path.append(θ)
    scale = np.abs(THETA) + γ * np.sum(np.abs(gradients), axis=0)
    averaged = aj.schedule_free_eval_params(state, θ)
    np.testing.assert_allclose(averaged / scale, np.mean(path, axis=0) / scale, atol=1e-6)


@given(runs(), rates, st.lists(amounts, min_size=4, max_size=4))
def test_the_three_sequences_are_those_of_the_paper(gradients, b1, rates_of_steps):
    γ = np.float64(rates_of_steps)
    tx = aj.schedule_free(lambda step: jnp.float32(γ)[step], b1)
    y = x = z = np.float64(THETA)
    θ, state = THETA, tx.init(THETA)
    for t, g in enumerate(gradients):
        updates, state = tx.update(g, state, θ)
        θ = optax.apply_updates(θ, updates)
        z = z - γ[t] * np.float64(g)
        x = x + γ[t] ** 2 / np.sum(γ[: t + 1] ** 2) * (z - x)
        y = (1 - b1) * z + b1 * x
    scale = np.abs(THETA) + np.sum(np.abs(gradients), axis=0)
    averaged = aj.schedule_free_eval_params(state, θ)
    np.testing.assert_allclose(θ / scale, y / scale, atol=1e-5)
    np.testing.assert_allclose(averaged / scale, x / scale, atol=1e-5)


def test_a_whole_optimizer_can_be_wrapped():
    wrapped = aj.chain(optax.sgd(0.1), aj.scale_by_learning_rate(1.0), aj.schedule_free(1.0))
    plain = aj.schedule_free(0.1)
    params = {"w": jnp.ones(3)}
    chex.assert_trees_all_close(walk(wrapped, params)[0], walk(plain, params)[0], rtol=1e-6)


def test_the_average_is_found_in_any_state_that_has_one():
    params = {"w": jnp.ones((64, 65)), "b": jnp.ones(3)}
    ends = {}
    for kept in None, "bfloat16", aj.blockwise_quantization(1):
        tx = optax.chain(optax.clip(1.0), aj.schedule_free_adamw(0.1, average_dtype=kept))
        _, state = walk(tx, params)
        ends[str(kept)] = aj.schedule_free_eval_params(state, params)
        assert max(jnp.abs(x - 1).max() for x in jax.tree.leaves(ends[str(kept)])) > 1e-3
    for end in ends.values():
        chex.assert_trees_all_close(end, ends["None"], atol=5e-3)
    both = aj.partition({"w": aj.schedule_free(0.1), "*": aj.schedule_free(0.2)}).init(params)
    for state, count in (aj.adam(0.1).init(params), 0), (both, 2):
        with pytest.raises(ValueError, match=f"the state has {count} averages where one is needed"):
            aj.schedule_free_eval_params(state, params)


# AdEMAMix.


@given(runs(), amounts, rates)
def test_without_the_slow_average_ademamix_is_adamw(gradients, α, b3):
    numbers = {"b1": 0.8, "b2": 0.9, "weight_decay": 0.1}
    mixed = outputs(aj.ademamix(α, **numbers, b3=b3, alpha=0.0), gradients)
    chex.assert_trees_all_equal(mixed, outputs(aj.adamw(α, **numbers), gradients))


@given(st.floats(0.1, 0.95), st.floats(0.96, 0.9999), st.integers(2, 1000))
def test_the_half_life_grows_linearly(first, last, steps):
    b = np.float64(
        aj.half_life_warmup(first, last, steps)(np.array([0, steps / 2, steps, 2 * steps]))
    )
    lives = np.log(0.5) / np.log([first, last, last])
    expected = np.insert(lives, 1, (lives[0] + lives[1]) / 2)
    # A unit in the last place of b is this much of its half-life.
    np.testing.assert_allclose(np.log(0.5) / np.log(b), expected, rtol=3e-7 / (1 - last))


@given(runs())
def test_with_power_one_every_square_counts_the_same(gradients):
    v = outputs(aj.second_moment(aj.rising_decay(1.0)), gradients)[-1]
    np.testing.assert_allclose(v, np.mean(np.square(gradients), axis=0), rtol=1e-5)


# ADOPT.


@given(runs(nonzero), rates, rates, st.integers(-20, 20))
def test_adopt_waits_a_step_and_does_not_see_the_scale_of_the_loss(gradients, b1, b2, power):
    tx = aj.adopt(0.1, b1, b2, eps=0.0)
    one, other = (outputs(tx, [scale * g for g in gradients]) for scale in (1, 2.0**power))
    chex.assert_trees_all_close(one, other, rtol=1e-5)
    assert not np.any(one[0])


@given(runs(nonzero), rates)
def test_no_step_of_adopt_is_longer_than_its_clip(gradients, b1):
    for t, update in enumerate(outputs(aj.adopt(0.1, b1, 0.0, eps=0.0), gradients)):
        assert np.all(np.abs(update) <= 0.1 * t**0.25 * (1 + 1e-5))


@given(runs(), rates)
def test_a_lagged_second_moment_has_not_seen_the_gradient(gradients, b2):
    one = outputs(aj.lagged_second_moment(b2), gradients)
    other = outputs(aj.lagged_second_moment(b2), [*gradients[:-1], 100 * gradients[-1]])
    chex.assert_trees_all_equal(one, other)
    np.testing.assert_allclose(one[1], np.square(gradients[0]), rtol=1e-6)


# C-AdamW.


@given(vectors(), vectors())
def test_a_cautious_step_never_climbs(u, g):
    step = np.float64(aj.cautious_step(1e-3)(u, g))
    agrees = np.sign(u) * np.sign(g) > 0
    assert np.all(step * g >= 0) and not np.any(step[~agrees])
    if agrees.any():  # the steps that are left make up for the rest
        np.testing.assert_allclose(step[agrees], u[agrees] * agrees.size / agrees.sum(), rtol=1e-5)


# Adafactor.


@pytest.mark.parametrize("b2", [0.0, 0.5, 0.999])
def test_the_means_of_an_average_are_averages_of_the_means(b2):
    """Nothing is lost from step to step: factored() is what Adafactor keeps."""
    gradients = np.random.default_rng(0).normal(size=(4, 2, 3, 5))
    tx = aj.second_moment(b2, accumulator_dtype=aj.factored(min_axis=2))
    state, R, C = tx.init(jnp.zeros(gradients.shape[1:])), 0.0, 0.0
    for g in gradients:
        _, state = tx.update(jnp.float32(g), state)
        R = b2 * R + (1 - b2) * np.mean(g**2, axis=-1, keepdims=True)
        C = b2 * C + (1 - b2) * np.mean(g**2, axis=-2, keepdims=True)
    np.testing.assert_allclose(state.nu.rows, R, rtol=1e-4)
    np.testing.assert_allclose(state.nu.columns, C, rtol=1e-4)
    np.testing.assert_allclose(state.nu.decode(), R * C / R.mean(-2, keepdims=True), rtol=1e-4)


@given(st.lists(nonzero, min_size=4, max_size=4), st.lists(nonzero, min_size=5, max_size=5))
def test_a_matrix_of_rank_one_is_kept_as_it_is(rows, columns):
    v = np.float32(np.square(np.outer(rows, columns)))
    np.testing.assert_allclose(aj.rank_one(min_axis=2)(v), v, rtol=1e-5)
    np.testing.assert_array_equal(aj.rank_one(min_axis=5)(v), v)


def test_of_any_other_matrix_the_means_are_kept_and_nothing_else():
    v = jnp.float32(np.square(np.random.default_rng(0).normal(size=(2, 4, 5))))
    kept = aj.rank_one(0.5, min_axis=2)(v)
    for axis in -1, -2:
        np.testing.assert_allclose(kept.mean(axis), v.mean(axis) + 0.5, rtol=1e-5)
    assert np.linalg.matrix_rank(kept, rtol=1e-5).tolist() == [1, 1]


def test_units_that_are_silent_in_two_layers_do_not_move():
    gradients = jax.random.normal(jax.random.key(0), (6, 5)).at[2].set(0).at[:, 3].set(0)
    params = jnp.ones_like(gradients)
    tx = aj.adafactor(0.1, min_axis=2)
    updates, _ = tx.update(gradients, tx.init(params), params)
    np.testing.assert_array_equal(updates == 0, gradients == 0)
    peer = optax.adafactor(0.1, min_dim_size_to_factor=2)
    np.testing.assert_allclose(
        updates, peer.update(gradients, peer.init(params), params)[0], rtol=1e-5
    )


def test_a_square_that_overflows_stops_its_matrix_and_no_other():
    params = {"struck": jnp.ones((2, 3)), "spared": jnp.ones((2, 3))}
    tx = aj.adamw(0.1, weight_decay=0.0, nu_dtype=aj.factored(min_axis=2))
    state = tx.init(params)
    for spike in 1.0, 1e20, 1.0, 1.0:
        gradients = {"struck": params["struck"].at[0, 0].set(spike), "spared": params["spared"]}
        updates, state = tx.update(gradients, state, params)
    assert not jnp.any(updates["struck"]) and jnp.all(updates["spared"] < 0)


def test_factors_take_few_bytes_and_only_where_both_axes_are_long():
    params = {"kernel": jnp.ones((200, 300)), "thin": jnp.ones((100, 300)), "bias": jnp.ones(300)}
    nu = optax.tree.get(aj.adamw(0.1, nu_dtype=aj.factored()).init(params), "nu")
    shapes = jax.tree.map(jnp.shape, nu, is_leaf=lambda x: isinstance(x, jax.Array))
    assert shapes.rows == {"kernel": (200, 1), "thin": (100, 300), "bias": (300,)}
    assert shapes.columns == {"kernel": (1, 300), "thin": (1, 1), "bias": (1,)}


@pytest.mark.parametrize("make", [aj.adamw, aj.amsgrad, aj.adopt, aj.ademamix, aj.c_adamw])
def test_every_second_moment_can_be_kept_in_factors(make):
    params = {"w": jnp.ones((3, 4)), "b": jnp.ones(4)}
    exact = walk(make(0.1), params)[0]
    updates = walk(make(0.1, nu_dtype=aj.factored(min_axis=2)), params)[0]
    chex.assert_trees_all_close(updates["b"], exact["b"])
    assert not np.allclose(updates["w"], exact["w"], rtol=1e-3)
    np.testing.assert_allclose(updates["w"], exact["w"], atol=0.15)


# Muon.


@pytest.mark.parametrize("size", [1e-3, 1e3])
@pytest.mark.parametrize("n, m", [(1, 1), (3, 8), (8, 3), (6, 6)])
def test_orthogonalized_matrices_have_singular_values_near_one_and_their_own_axes(n, m, size):
    matrix = np.random.default_rng(0).normal(size=(n, m))
    U, σ, V = np.linalg.svd(matrix, full_matrices=False)
    σ = np.maximum(σ, 0.05 * σ.max())
    step = np.asarray(aj.orthogonalize()(jnp.float32(size * (U * σ) @ V)), np.float64)
    factor = np.sqrt(max(1, m / n))
    inside = U.T @ step @ V.T / factor
    np.testing.assert_allclose(inside, np.diag(np.diag(inside)), atol=1e-3)
    assert np.all((np.diag(inside) > 0.6) & (np.diag(inside) < 1.3))
    turned = np.asarray(aj.orthogonalize()(jnp.float32(size * ((U * σ) @ V).T))).T
    np.testing.assert_allclose(turned / np.sqrt(max(1, n / m)), step / factor, atol=1e-3)


def test_stacked_matrices_are_orthogonalized_one_by_one():
    stack = jnp.float32(np.random.default_rng(0).normal(size=(3, 4, 5)))
    for scale in "original", "match_rms_adamw":
        merge = aj.orthogonalize(scale=scale)
        alone = jnp.stack([merge(matrix) for matrix in stack])
        chex.assert_trees_all_close(merge(stack), alone, atol=1e-5)
    vector = stack[0, 0]
    np.testing.assert_allclose(aj.orthogonalize()(vector), aj.orthogonalize()(vector[None])[0])
    length = jnp.linalg.norm(aj.orthogonalize()(vector)) / np.sqrt(5)
    assert 0.6 < length < 1.3


def test_with_match_rms_adamw_a_step_is_about_as_long_as_adamws():
    gradients = {"w": jnp.float32(np.random.default_rng(0).normal(size=(64, 256)))}
    updates, _ = walk_once(aj.muon(1.0, scale="match_rms_adamw"), gradients)
    assert 0.15 < jnp.sqrt(jnp.mean(updates["w"] ** 2)) < 0.25


def walk_once(tx, gradients):
    return tx.update(gradients, tx.init(gradients), gradients)


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv1")(x)).reshape(len(x), -1)
        x = nn.LayerNorm(name="norm")(nn.Dense(16, name="hidden")(x))
        return nn.Dense(3, name="head")(nn.relu(x))


def test_the_partition_of_the_page_gives_muon_the_hidden_matrices_and_adamw_the_rest():
    page = (Path(__file__).parent.parent / "docs/family.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(compile(block, "family.md", "exec"), names)
    x = jnp.float32(np.random.default_rng(0).normal(size=(8, 6, 6, 1)))
    params = {"net": jax.jit(Network().init)(jax.random.key(0), x)["params"]}
    got, _ = walk_once(names["optimizer"], params)
    muon, adamw = (
        walk_once(tx, params)[0] for tx in (aj.muon(0.02, weight_decay=0.1), names["rest"])
    )
    for path, update in jax.tree_util.tree_leaves_with_path(got):
        hidden = "hidden" in str(path) and "kernel" in str(path)
        expected = dict(jax.tree_util.tree_leaves_with_path(muon if hidden else adamw))[path]
        np.testing.assert_allclose(update, expected, rtol=1e-5)

    @jax.jit
    def step(params, state):
        labels = jnp.arange(8) % 3

        def loss(params):
            logits = Network().apply({"params": params["net"]}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = names["optimizer"].update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    state, losses = names["optimizer"].init(params), []
    for _ in range(40):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]


# Wrong arguments.


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: aj.orthogonalize(scale="rms"),
            "scale must be one of 'original', 'match_rms_adamw'",
        ),
        (lambda: aj.orthogonalize(-1.0), "eps must be a number in"),
        (lambda: aj.factored(min_axis=1), "min_axis must be at least 2"),
        (lambda: aj.adamw(0.1, mu_dtype=aj.factored()).init(jnp.ones(2)), "it is for nu_dtype"),
        (lambda: aj.growing_clip(-1.0), "power must be"),
        (lambda: aj.half_life_warmup(0.0, 0.9, 10), r"first must be a number in \(0, 1\)"),
        (lambda: aj.half_life_warmup(0.5, 1.0, 10), "last must be"),
        (lambda: aj.half_life_warmup(0.5, 0.9, 0), "steps must be"),
        (lambda: aj.schedule_free(0.1, b1=1.0), "b1 must be a number in"),
        (lambda: aj.schedule_free(-0.1), "learning_rate must be"),
        (lambda: aj.schedule_free(0.1, accumulator_dtype="int8"), "accumulator_dtype must be"),
        (
            lambda: walk(aj.momentum(lambda step: 1.5), {"w": jnp.ones(2)}),
            "what the schedule of b1 returns must be a number in",
        ),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_decay_rates_may_be_schedules_that_are_traced_once():
    tx = aj.momentum(lambda step: 1 - 1 / (step + 1))
    state, step = tx.init(jnp.ones(2)), jax.jit(tx.update)
    gradients = [gradients_like(jnp.ones(2), seed) for seed in range(4)]
    for g in gradients:
        m, state = step(g, state)
    np.testing.assert_allclose(m, np.mean(gradients, axis=0), rtol=1e-5)
    assert step._cache_size() == 1

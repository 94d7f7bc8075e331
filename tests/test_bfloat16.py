"""bfloat16 parameters that do not stagnate."""

import chex
import flax.linen as nn
import flax.training.train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import gradients_like
from jax.sharding import NamedSharding, PartitionSpec

import adamw_jax as aj
from adamw_jax import testing

ADAMW = {"learning_rate": 1e-4, "weight_decay": 0.1}
PARAMS = {
    "kernel": jnp.bfloat16(np.random.default_rng(0).normal(size=(6, 5))),
    "bias": jnp.ones(3),
}


def master(**numbers):
    return aj.with_master_weights(aj.adamw(**numbers))


def stochastic(seed, **numbers):
    return aj.with_stochastic_rounding(aj.adamw(**numbers), seed)


WRAPPED = {"master": master(**ADAMW), "stochastic": stochastic(7, **ADAMW)}
both = pytest.mark.parametrize("tx", WRAPPED.values(), ids=WRAPPED)


def descend(tx, params, gradient, steps):
    """The end of a run in which a step sees the parameters and its number, and its state."""

    def step(carry, t):
        params, state = carry
        updates, state = tx.update(gradient(params, t), state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(steps))[0])
    return run((params, tx.init(params)))


def noisy(params, t):
    """Gradients of the parameters' dtypes that depend on nothing but the step."""
    noise = jax.random.normal(jax.random.key(t), (40,))

    def leaf(p):
        return (noise[: p.size].reshape(p.shape) + 0.5).astype(p.dtype)

    return jax.tree.map(leaf, params)


# Updates are wider than the parameters, so that what stands outside may not mix the two; and in a
# `parallel`, parameters are float32 already.
EXEMPT = (
    testing.keeps_structure_shapes_and_dtypes,
    testing.agrees_in_scan_and_cond,
    testing.shares_what_is_the_same,
)
LAWS = [law for law in testing.LAWS if law not in EXEMPT]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(
    ("make", "numbers"), [(master, ADAMW), (stochastic, ADAMW | {"seed": 7})], ids=WRAPPED
)
def test_every_law_holds_but_those_of_dtypes(make, numbers, law, monkeypatch):
    params = testing.mixed_params()
    del params["float16"]
    monkeypatch.setattr(testing, "mixed_params", lambda: params)
    law(make, numbers)


@both
def test_updates_are_float32_where_parameters_are_bfloat16_and_the_state_keeps_its_types(tx):
    state = tx.init(PARAMS)
    updates, after = tx.update(gradients_like(PARAMS), state, PARAMS)
    assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype(jnp.float32)}
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    applied = optax.apply_updates(PARAMS, updates)
    chex.assert_trees_all_equal_shapes_and_dtypes(applied, PARAMS)


def test_master_weights_are_the_run_in_float32_bit_for_bit():
    (params, state), (plain, _) = (
        descend(tx, start, lambda params, t: jax.tree.map(jnp.float32, noisy(PARAMS, t)), 300)
        for tx, start in [
            (WRAPPED["master"], PARAMS),
            (aj.adamw(**ADAMW), jax.tree.map(jnp.float32, PARAMS)),
        ]
    )
    chex.assert_trees_all_equal(state.weights(params), plain)
    rounded = jax.tree.map(lambda w, p: w.astype(p.dtype), plain, params)
    chex.assert_trees_all_close(params, rounded, rtol=2**-24)  # a tie may go the other way
    assert state.remainder["kernel"].dtype == jnp.int16
    report = aj.memory_report(WRAPPED["master"], {"w": jax.ShapeDtypeStruct((99,), jnp.bfloat16)})
    assert report.bytes == 99 * (2 + 8) + 4


def test_what_stalls_in_bfloat16_moves_in_float32_and_with_either_wrapper():
    # Steps of 1e-3 beside parameters of 1: less than half of bfloat16's 2⁻⁸.
    params = {"w": jnp.ones(4000, jnp.bfloat16)}
    inner = aj.chain(aj.scale_by_learning_rate(1e-3))

    def mean(tx, start=params):
        end, _ = descend(tx, start, lambda params, t: jax.tree.map(jnp.ones_like, params), 100)
        return float(end["w"].astype(jnp.float32).mean())

    assert mean(inner) == 1
    assert mean(aj.with_master_weights(inner)) == pytest.approx(0.9, abs=2**-9)
    assert mean(aj.with_stochastic_rounding(inner)) == pytest.approx(0.9, abs=5e-4)


def test_stochastic_rounding_takes_one_of_the_two_nearest_and_is_reproducible():
    tx, params = aj.with_stochastic_rounding(aj.gd(1.0), 3), {"w": jnp.ones(2000, jnp.bfloat16)}
    gradient = {"w": jnp.full(2000, 2.0**-10, jnp.bfloat16)}  # a quarter of the way down
    ends = [
        optax.apply_updates(params, jax.jit(tx.update)(gradient, tx.init(params), params)[0])["w"]
        for _ in range(2)
    ]
    chex.assert_trees_all_equal(*ends)
    below = 1 - 2.0**-8
    assert set(np.unique(ends[0]).tolist()) == {below, 1.0}
    assert jnp.mean(ends[0] == below) == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("value", [0.0, -0.0, np.inf, -np.inf, 3.0])
def test_a_parameter_that_is_set_from_outside_keeps_its_value(value):
    tx = WRAPPED["master"]
    params, state = descend(tx, PARAMS, noisy, 20)
    assert (state.remainder["kernel"] < 0).any()
    params["kernel"] = jnp.full_like(params["kernel"], value)
    weights = state.weights(params)["kernel"]
    np.testing.assert_allclose(weights, np.full_like(weights, value), rtol=2**-8, atol=1e-37)


def test_a_weight_that_is_not_finite_stays_so():
    tx, params = aj.with_master_weights(aj.gd(1.0)), {"w": jnp.ones(3, jnp.bfloat16)}
    bad = {"w": jnp.bfloat16([jnp.nan, jnp.inf, 0.5])}
    updates, state = tx.update(bad, tx.init(params), params)
    params = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(np.float32(params["w"]), np.float32([np.nan, -np.inf, 0.5]))
    np.testing.assert_array_equal(state.weights(params)["w"], jnp.float32(params["w"]))


@both
def test_float16_parameters_are_refused_by_their_path(tx):
    with pytest.raises(ValueError, match=r"not: \['a'\] \(float16\)"):
        tx.init({"a": jnp.ones(2, jnp.float16), "b": jnp.ones(2, jnp.bfloat16)})
    with pytest.raises(ValueError, match="needs the parameters"):
        tx.update(PARAMS, tx.init(PARAMS))


@pytest.mark.parametrize("wrap", [aj.with_master_weights, aj.with_stochastic_rounding])
def test_apply_if_finite_goes_inside(wrap):
    tx = wrap(optax.apply_if_finite(aj.adamw(**ADAMW), 3))
    bad = jax.tree.map(lambda p: p * jnp.nan, PARAMS)
    updates, _ = jax.jit(tx.update)(bad, tx.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(optax.apply_updates(PARAMS, updates), PARAMS)
    outside = optax.apply_if_finite(wrap(aj.adamw(**ADAMW)), 3)
    with pytest.raises(TypeError):  # the branches of a cond would differ in dtype
        outside.update(bad, outside.init(PARAMS), PARAMS)


@pytest.mark.parametrize("wrap", [aj.with_master_weights, aj.with_stochastic_rounding])
def test_optimizers_from_optax_can_be_wrapped(wrap):
    ends = [descend(wrap(lib.adamw(**ADAMW)), PARAMS, noisy, 50)[0] for lib in (optax, aj)]
    chex.assert_trees_all_close(*ends, rtol=2**-7)


@both
def test_a_flax_model_in_bfloat16_trains(tx):
    model = nn.Dense(3, param_dtype=jnp.bfloat16)
    x = jnp.float32(np.random.default_rng(0).normal(size=(20, 4)))
    params = model.init(jax.random.key(0), x)
    state = flax.training.train_state.TrainState.create(apply_fn=model.apply, params=params, tx=tx)

    @jax.jit
    def step(state):
        def loss(params):
            return jnp.mean((state.apply_fn(params, x) - 1) ** 2)

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    end = step(step(state))
    chex.assert_trees_all_equal_shapes_and_dtypes(end.params, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(end.opt_state, state.opt_state)


@both
def test_the_state_is_sharded_as_the_parameters(tx):
    sharding = NamedSharding(jax.make_mesh((4,), ("x",)), PartitionSpec("x"))
    params = {"w": jax.device_put(jnp.ones((8, 2), jnp.bfloat16), sharding)}
    updates, state = jax.jit(tx.update)(params, tx.init(params), params)
    for x in jax.tree.leaves((updates, state)):
        assert not x.ndim or x.sharding.is_equivalent_to(sharding, 2)

"""Runs that begin in Optax and go on here, and the other way round."""

import functools
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from cases import ADAM, CASES, Case
from crossing_over import HALF, PARAMS, WRAPPED, distance, falling, refused, step, walk
from flax import nnx
from flax.training.train_state import TrainState

import adamw_jax as aj
from adamw_jax.interchange import from_optax, to_optax

# Where Optax's optimizer counts and ours does not.
STEPS = {"count": HALF}


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        dense = functools.partial(nn.Dense, param_dtype=x.dtype)
        x = nn.LayerNorm(param_dtype=x.dtype)(dense(8)(x))
        return dense(1)(jnp.tanh(x))


def loss(params, x):
    wanted = jnp.sin(x.sum(axis=1, keepdims=True))
    return jnp.mean((Network().apply({"params": params}, x) - wanted) ** 2)


gradient = jax.jit(jax.grad(loss))


@pytest.fixture(scope="module")
def problem():
    """The first parameters, and one batch for each step, in float64."""
    with jax.enable_x64(True):
        batches = jnp.asarray(np.random.default_rng(0).normal(size=(2 * HALF, 16, 3)))
        return jax.jit(Network().init)(jax.random.key(0), batches[0])["params"], batches


def run(tx, params, state, batches):
    for x in batches:
        params, state = step(tx, params, state, gradient(params, x))
    return params, state


def is_member(case):
    constructor = getattr(aj, case.name.split()[0])
    # Optax has the average as `ema`, or as a sum of scaled gradients, which is `heavy_ball`.
    composed = constructor.__module__ in ("adamw_jax.optimizers", "adamw_jax.relatives")
    return composed and case.peer and constructor is not aj.momentum_gd


MEMBERS = [case for case in CASES if is_member(case)]
MEMBERS += [
    Case("adopt", aj.adopt, ADAM, optax.contrib.adopt),
    Case("schedule_free_adamw", aj.schedule_free_adamw, ADAM, optax.contrib.schedule_free_adamw),
]
# Whose states hold other numbers in Optax.
CONVERTED = "adabelief", "schedule_free_adamw"
# Where both do the same arithmetic.
SAME_BITS = "gd", "heavy_ball_gd", "lion"
# At first, Optax's rectification is a small difference of large numbers.
TOLERANCES = {"radam": 1e-12, "adamax": 1e-12, "adamaxw": 1e-12}


@pytest.mark.parametrize("case", MEMBERS, ids=str)
def test_a_run_crosses_over_and_lands_where_it_would_have_landed(case, problem):
    params, batches = problem
    name = case.name.split()[0]
    tolerance = 0 if name in SAME_BITS else TOLERANCES.get(name, 1e-14)
    with jax.enable_x64(True):
        ours, theirs = case.tx(), case.peer(**case.numbers)
        for first, second in (theirs, ours), (ours, theirs):
            middle, state = run(first, params, first.init(params), batches[:HALF])
            expected, _ = run(first, middle, state, batches[HALF:])
            if first is theirs:
                taken_over = from_optax(ours, middle, state)
                back = to_optax(ours, middle, taken_over, theirs, **STEPS)
            else:
                taken_over = to_optax(ours, middle, state, theirs, **STEPS)
                back = from_optax(ours, middle, taken_over)
            if name in CONVERTED:
                chex.assert_trees_all_close(back, state, rtol=1e-12)
            else:
                chex.assert_trees_all_equal(back, state)
            chex.assert_trees_all_equal_structs(taken_over, second.init(params))
            chex.assert_trees_all_equal_dtypes(taken_over, second.init(params))
            end, _ = run(second, middle, taken_over, batches[HALF:])
            assert distance(end, expected) <= tolerance
            if jax.tree.leaves(state):
                forgetful, _ = run(second, middle, second.init(params), batches[HALF:])
                assert distance(forgetful, expected) > 1e-2


@pytest.mark.parametrize("make", WRAPPED.values(), ids=WRAPPED)
def test_a_wrapper_takes_its_state_along(make):
    ours, theirs = make(aj), make(optax)
    state = walk(theirs, 6)
    taken_over = from_optax(ours, PARAMS, state)
    chex.assert_trees_all_equal_structs(taken_over, ours.init(PARAMS))
    chex.assert_trees_all_equal(to_optax(ours, PARAMS, taken_over, theirs, count=6), state)
    gradients = aj.testing.gradients_like(PARAMS, 7)
    next_steps = [
        tx.update(gradients, state, PARAMS, value=1.0)[0]
        for tx, state in ((ours, taken_over), (theirs, state))
    ]
    chex.assert_trees_all_close(*next_steps, rtol=1e-4, atol=1e-6)


def test_an_nnx_optimizer_goes_on():
    model = nnx.Sequential(
        nnx.Linear(3, 4, rngs=nnx.Rngs(0)), jnp.tanh, nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    )
    old = nnx.Optimizer(model, optax.adamw(falling), wrt=nnx.Param)
    twin = nnx.clone(model)
    gradients = nnx.grad(lambda m, x: jnp.mean((m(x) - 1) ** 2))
    x = jnp.linspace(-1, 1, 12).reshape(4, 3)
    for _ in range(5):
        old.update(model, gradients(model, x))
        nnx.update(twin, nnx.state(model))

    new = nnx.Optimizer(twin, aj.adamw(falling), wrt=nnx.Param)
    params = nnx.as_pure(nnx.state(twin, nnx.Param))
    state = from_optax(new.tx, params, nnx.as_pure(old.opt_state))
    nnx.update(new.opt_state, nnx.state(state))
    new.step[...] = old.step[...]

    chex.assert_trees_all_equal(
        to_optax(new.tx, params, nnx.as_pure(new.opt_state), old.tx), nnx.as_pure(old.opt_state)
    )
    for _ in range(5):
        old.update(model, gradients(model, x))
        new.update(twin, gradients(twin, x))
    chex.assert_trees_all_close(nnx.state(twin), nnx.state(model), rtol=1e-4, atol=1e-5)
    assert new.step[...] == old.step[...] == 10


def test_a_linen_train_state_goes_on():
    network = Network()
    x = jnp.linspace(-1, 1, 12).reshape(4, 3)
    params = network.init(jax.random.key(0), x)["params"]
    tx = optax.adamw(falling)
    old = TrainState.create(apply_fn=network.apply, params=params, tx=tx)
    for _ in range(5):
        old = old.apply_gradients(grads=gradient(old.params, x))

    tx = aj.adamw(falling)
    new = old.replace(tx=tx, opt_state=from_optax(tx, old.params, old.opt_state))

    for _ in range(5):
        old = old.apply_gradients(grads=gradient(old.params, x))
        new = new.apply_gradients(grads=gradient(new.params, x))
    chex.assert_trees_all_close(new.params, old.params, rtol=1e-5, atol=1e-6)
    assert new.step == old.step == 10


class Layer(NamedTuple):
    """Parameters of which a state must not be taken for a part of its own."""

    mu: Any
    count: Any


AWKWARD = {
    "named tuples": Layer(jnp.ones(2), jnp.float32(3.0)),
    "named tuples deep inside": {"layer": [Layer(jnp.ones(2), jnp.float32(3.0)), jnp.ones(1)]},
    "names of moments": {"mu": jnp.ones(2), "nu": {"count": jnp.float32(3.0)}},
    "a list": [jnp.ones(2), jnp.float32(3.0)],
    "one array": jnp.ones(2),
    "one number": jnp.float32(2.0),
    "None": {"kernel": jnp.ones(2), "bias": None},
}


@pytest.mark.parametrize("params", AWKWARD.values(), ids=AWKWARD)
def test_parameters_may_have_any_structure(params):
    ours, theirs = (lib.chain(optax.clip(1.0), lib.adamw(falling)) for lib in (aj, optax))
    state = walk(theirs, 3, params)
    taken_over = from_optax(ours, params, state)
    chex.assert_trees_all_equal(
        optax.tree.get(taken_over, "mu", filtering=lambda path, _: len(path) == 2),
        state[1][0].mu,
    )
    chex.assert_trees_all_equal_structs(taken_over, ours.init(params))
    chex.assert_trees_all_equal(to_optax(ours, params, taken_over, theirs), state)


def test_a_schedule_free_state_is_converted_with_the_parameters_and_their_warm_up():
    def warm_up(step):
        return 0.1 * jnp.minimum(1.0, (step + 1.0) / 8)

    ours = aj.schedule_free_adamw(warm_up)
    theirs = optax.contrib.schedule_free_adamw(0.1, warmup_steps=8)
    state = walk(theirs, 3)
    taken_over = from_optax(ours, PARAMS, state)
    averaged = aj.schedule_free_eval_params(taken_over, PARAMS)
    expected = optax.contrib.schedule_free_eval_params(state, PARAMS)
    chex.assert_trees_all_close(averaged, expected, rtol=1e-5)
    chex.assert_trees_all_close(to_optax(ours, PARAMS, taken_over, theirs), state, rtol=1e-5)
    shapes = jax.eval_shape(lambda: PARAMS)
    refused(
        lambda: from_optax(ours, shapes, state),
        "a schedule-free state is converted with the parameters, not their shapes",
    )
    refused(
        lambda: from_optax(aj.schedule_free_adamw(0.1, b1=0.0), PARAMS, state),
        "with b1=0 Optax's state does not hold the average",
    )


def test_arrays_stay_where_they_are():
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    lies = jax.NamedSharding(mesh, jax.P("x"))
    state = optax.adam(0.1).init(jax.device_put({"kernel": jnp.ones((2, 3))}, lies))
    params = {"kernel": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
    for moment in jax.tree.leaves(from_optax(aj.adam(0.1), params, state)):
        assert moment.ndim == 0 or moment.sharding == lies

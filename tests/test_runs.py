"""Laws of whole runs: lanes of a vmap, and runs that stop and go on."""

import functools

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from cases import decays_matrices

import adamw_jax as aj

WIDTH, STEPS = 8, 40


def start(key, dtype=jnp.float32):
    first, second = jax.random.split(key)
    return {
        "hidden": {
            "kernel": jax.random.normal(first, (4, 16), dtype),
            "bias": jnp.zeros(16, dtype),
        },
        "out": {"kernel": jax.random.normal(second, (16, 1), dtype) / 4},
    }


def loss(params, x):
    hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return jnp.mean((hidden @ params["out"]["kernel"] - jnp.sin(x.sum(1, keepdims=True))) ** 2)


@functools.partial(jax.jit, static_argnums=0)
def advance(tx, params, state, keys):
    """Steps along minibatches drawn from the keys."""

    def step(carry, key):
        params, state = carry
        x = jax.random.normal(key, (8, 4), params["out"]["kernel"].dtype)
        updates, state = tx.update(jax.grad(loss)(params, x), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), keys)[0]


def run(numbers, seed):
    """One run, from its hyperparameters and its seed: the last parameters and state."""
    tx = aj.adamw(**numbers)
    key = jax.random.key(seed)
    params = start(key)
    return advance(tx, params, tx.init(params), jax.random.split(key, STEPS))


lanes = jax.jit(jax.vmap(run))


@pytest.fixture(scope="module")
def grid():
    draw = np.random.default_rng(0).uniform
    numbers = {
        "learning_rate": 10 ** draw(-3, -1, WIDTH),
        "b1": draw(0, 0.95, WIDTH),
        "b2": 1 - 10 ** draw(-5, -1, WIDTH),
        "eps": 10 ** draw(-8, -3, WIDTH),
        "weight_decay": draw(0, 1, WIDTH),
    }
    return jax.tree.map(jnp.float32, numbers), jnp.arange(WIDTH)


def lane(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def test_a_lane_does_not_depend_on_its_place(grid):
    order = np.random.default_rng(1).permutation(WIDTH)
    chex.assert_trees_all_equal(lanes(*lane(grid, order)), lane(lanes(*grid), order))


@pytest.mark.parametrize("i", [0, WIDTH - 1])
def test_a_lane_equals_the_run_that_fills_all_lanes(grid, i):
    alone = lanes(*lane(grid, np.full(WIDTH, i)))
    for j in range(WIDTH):
        chex.assert_trees_all_equal(lane(alone, j), lane(lanes(*grid), i))


def test_a_lane_does_not_see_a_neighbour_that_diverges(grid):
    numbers, seeds = grid
    rates = numbers["learning_rate"].at[0].set(jnp.inf).at[1].set(jnp.nan)
    wild = lanes({**numbers, "learning_rate": rates}, seeds)
    rest = np.arange(2, WIDTH)
    chex.assert_trees_all_equal(lane(wild, rest), lane(lanes(*grid), rest))


@pytest.mark.parametrize("width", [1, 3, WIDTH])
def test_a_lane_is_close_to_the_lone_run_at_every_width(grid, width):
    some = lanes(*lane(grid, np.arange(width)))
    for i in range(width):
        alone = jax.jit(run)(*lane(grid, i))
        chex.assert_trees_all_close(lane(some, i)[0], alone[0], rtol=1e-3, atol=1e-4)


SAVED = {
    "adam": aj.adam(0.02),
    "adamw masked": aj.adamw(0.02, weight_decay=0.1, mask=decays_matrices),
    "nesterov": aj.adamw(0.02, nesterov=True, mu_dtype=jnp.bfloat16),
    "scheduled": aj.adamw(optax.cosine_decay_schedule(0.05, 30), weight_decay=lambda step: 0.1),
    "beside foreign parts": aj.chain(optax.clip(1.0), aj.adam_l2(0.02), optax.ema(0.5)),
}


def through_orbax(tree, folder):
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "checkpoint", tree)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "checkpoint", tree)


def through_flax(tree, folder):
    path = folder / "checkpoint.msgpack"
    path.write_bytes(flax.serialization.to_bytes(tree))
    return flax.serialization.from_bytes(tree, path.read_bytes())


def through_numpy(tree, folder):
    leaves, structure = jax.tree.flatten(tree)
    # As float32, which holds every bfloat16: NumPy's files know none.
    narrow = [x.dtype == jnp.bfloat16 for x in leaves]
    widened = [np.asarray(x, np.float32) if n else x for x, n in zip(leaves, narrow, strict=True)]
    np.savez(folder / "checkpoint.npz", *widened)
    with np.load(folder / "checkpoint.npz") as file:
        loaded = [jnp.asarray(file[f"arr_{i}"], x.dtype) for i, x in enumerate(leaves)]
    return jax.tree.unflatten(structure, loaded)


STORES = [through_numpy, through_flax, through_orbax]


@pytest.mark.parametrize(
    ("name", "dtype", "store"),
    [
        *((name, jnp.float32, through_numpy) for name in SAVED),
        *(("beside foreign parts", jnp.bfloat16, store) for store in STORES),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(name, dtype, store, tmp_path):
    tx = SAVED[name]
    key = jax.random.key(0)
    keys, params = jax.random.split(key, 20), start(key, dtype)
    stopped = advance(tx, params, tx.init(params), keys[:10])
    uninterrupted = advance(tx, *stopped, keys[10:])
    resumed = store(stopped, tmp_path)
    chex.assert_trees_all_equal(resumed, stopped)
    chex.assert_trees_all_equal_shapes_and_dtypes(resumed, stopped)
    chex.assert_trees_all_equal_structs(resumed, stopped)
    chex.assert_trees_all_equal(advance(tx, *resumed, keys[10:]), uninterrupted)

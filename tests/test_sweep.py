"""The engine with real training functions: a result is that of the run alone, wherever it was."""

import math
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sweep_counting import alone, quiet, same

import adamw_jax as aj
from adamw_jax.sweep import Layout, Run, concatenated, product

DRAW = np.random.default_rng(0).normal
X = DRAW(size=(16, 4)).astype(np.float32)
DATA = X, np.sin(X.sum(1, keepdims=True))


def optimizer(h):
    return aj.adamw(h["learning_rate"], weight_decay=h["weight_decay"])


def trained(make, apply, length=3, batch=8):
    """A run of epochs, from `key -> params` and `(params, key, x) -> predictions`."""

    def start(h, key, data):
        key, init_key = jax.random.split(key)
        params = make(init_key)
        return {"h": h, "key": key, "params": params, "opt": optimizer(h).init(params)}

    def advance(state, data):
        x, y = data
        key, *keys = jax.random.split(state["key"], 1 + len(x) // batch)

        def loss(params, key):
            rows = jax.random.randint(key, (batch,), 0, len(x))
            wrong = (apply(params, key, x[rows]) - y[rows]).astype(jnp.float32)
            return jnp.mean(wrong**2)

        def step(carry, key):
            params, opt = carry
            value, grads = jax.value_and_grad(loss)(params, key)
            updates, opt = optimizer(state["h"]).update(grads, opt, params)
            return (optax.apply_updates(params, updates), opt), value

        carry = state["params"], state["opt"]
        (params, opt), losses = jax.lax.scan(step, carry, jnp.stack(keys))
        state = {**state, "key": key, "params": params, "opt": opt}
        return state, {"loss": losses.mean(), "norm": optax.tree.norm(params)}

    return Run(start, advance, length)


class MLP(nnx.Module):
    def __init__(self, rngs, rate):
        self.hidden = nnx.Linear(4, 8, rngs=rngs)
        self.drop = nnx.Dropout(rate)
        self.out = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x, key):
        return self.out(self.drop(nnx.tanh(self.hidden(x)), rngs=nnx.Rngs(key)))


def with_nnx(rate):
    graph = nnx.graphdef(nnx.eval_shape(lambda: MLP(nnx.Rngs(0), rate)))
    return trained(
        lambda key: nnx.as_pure(nnx.state(MLP(nnx.Rngs(key), rate), nnx.Param)),
        lambda params, key, x: nnx.merge(graph, params)(x, key),
    )


def with_plain_jax(dtype):
    def make(key):
        first, second = jax.random.split(key)
        return {
            "hidden": jax.random.normal(first, (4, 8), dtype),
            "out": jax.random.normal(second, (8, 1), dtype) / 3,
        }

    return trained(make, lambda p, key, x: jnp.tanh(x.astype(dtype) @ p["hidden"]) @ p["out"])


def with_equinox():
    def make(key):
        return eqx.partition(
            eqx.nn.MLP(4, 1, 8, 1, activation=jnp.tanh, key=key), eqx.is_inexact_array
        )

    static = make(jax.random.key(0))[1]
    return trained(lambda key: make(key)[0], lambda p, key, x: jax.vmap(eqx.combine(p, static))(x))


def with_odd_state():
    """All that a state may hold: keys, Python's scalars, weak types, None, narrow types."""

    def start(h, key, data):
        return {
            "h": h, "key": key, "keys": jax.random.split(key, 2), "int": 1, "float": 0.5,
            "flag": False, "weak": jnp.asarray(1.0) * 2.0, "numpy": np.float32(3), "none": None,
            "bool": jnp.array([True, False]), "narrow": jnp.ones(3, jnp.bfloat16),
            "int8": jnp.int8(1), "nested": ((), [None, 2]),
            "fixed": "h" in {"h": 1},
        }  # fmt: skip

    def advance(s, data):
        noise = jax.random.normal(s["key"]) + jax.random.uniform(s["keys"][1])
        new = {
            **s, "key": jax.random.fold_in(s["key"], s["int"]), "keys": s["keys"][::-1],
            "int": s["int"] + 1, "float": s["float"] * 1.5, "flag": ~jnp.asarray(s["flag"]),
            "weak": s["weak"] + s["h"]["learning_rate"], "bool": ~s["bool"],
            "narrow": s["narrow"] * jnp.bfloat16(1.1) + noise.astype(jnp.bfloat16),
            "int8": -s["int8"], "fixed": True,
        }  # fmt: skip
        # The first two are leaves of the state as well, whose buffers the next advance takes.
        own = {name: new[name] for name in ("weak", "narrow", "int", "int8", "flag")}
        return new, {**own, "noise": noise, "sum": new["float"] + new["int"] + s["nested"][1][1]}

    return Run(start, advance, 3)


TRAININGS = {
    "nnx": with_nnx(0.0),
    "dropout": with_nnx(0.3),
    "plain": with_plain_jax(jnp.float32),
    "bfloat16": with_plain_jax(jnp.bfloat16),
    "equinox": with_equinox(),
    "odd state": with_odd_state(),
}
GRID = product(learning_rate=[1e-3, 1e-2, 1e-1], weight_decay=[0.0, 0.1], seed=[0, 2**31 + 1])


def key(result):
    return tuple(sorted(result.settings.items()))


slow = pytest.mark.slow
LAYOUTS = {"one by one": (Layout(1, 1), 0.0), "lanes": (Layout(4, 2), 1e-4)}


@pytest.mark.parametrize(
    "name, layout",
    [
        ("bfloat16", "one by one"),
        ("odd state", "lanes"),
        *[pytest.param(name, "one by one", marks=slow) for name in ("dropout", "odd state")],
        *[pytest.param(name, "lanes", marks=slow) for name in ("nnx", "plain", "equinox")],
    ],
)
def test_a_result_is_that_of_the_run_alone(name, layout):
    layout, tolerance = LAYOUTS[layout]
    # A bfloat16 has eight bits, so that one that rounds the other way is seen.
    tolerance = 0.03 if tolerance and name == "bfloat16" else tolerance
    run, rows = TRAININGS[name], GRID[:5]
    results = quiet(run, rows, DATA, layout=layout, devices=jax.devices()[:1])
    for i, (row, result) in enumerate(zip(rows, results, strict=True)):
        assert (result.run, result.settings, result.status) == (i, row, "finished")
        assert result.lanes == layout.lanes and re.fullmatch(r".+, \d+ threads?", result.device)
        assert result.advance.tolist() == [1, 2, 3]
        expected = alone(run, row, DATA)
        assert list(result.metrics) == list(expected)
        for metric, values in expected.items():
            assert result.metrics[metric].dtype == values.dtype
            found, values = (np.asarray(x, np.float64) for x in (result.metrics[metric], values))
            np.testing.assert_allclose(found, values, tolerance, tolerance, err_msg=metric)
            assert result.final(metric) == pytest.approx(values[-1], rel=tolerance, abs=tolerance)


WILD = concatenated(
    product(learning_rate=[1e30, math.inf, -1e38], weight_decay=[0.1], seed=[0, 7]),
    product(learning_rate=[0.0], weight_decay=[1e30], seed=[1, 2, 3]),
)


@pytest.fixture(scope="module")
def reference():
    """Results of the grid by row, in one round."""
    made = {}

    def get(name, lanes, devices):
        if (name, lanes, devices) not in made:
            devices_used = jax.devices()[:devices]
            results = quiet(TRAININGS[name], GRID, DATA, layout=Layout(lanes), devices=devices_used)
            made[name, lanes, devices] = {key(result): result for result in results}
        return made[name, lanes, devices]

    return get


# Every training, number of lanes, of rounds and of devices.
NEIGHBOURS = [
    *[("plain", 1, 3, 1), ("bfloat16", 4, 3, 2), ("odd state", 2, 3, 4)],
    *[("dropout", 1, 3, 2), ("dropout", 4, 1, 4), ("dropout", 16, 3, 1)],
]


@pytest.mark.parametrize(
    "name, lanes, rounds, devices",
    [("plain", 4, 3, 1), *[pytest.param(*case, marks=slow) for case in NEIGHBOURS]],
)
def test_a_run_does_not_see_its_neighbours_chunk_lane_round_or_place(
    name, lanes, rounds, devices, reference
):
    """Bit for bit, in a part of the grid, in another order, beside runs that diverge."""
    layout = Layout(lanes, rounds)
    shuffle = np.random.default_rng([lanes, rounds, devices]).permutation
    rows = [*(GRID[i] for i in shuffle(len(GRID))[:9]), *WILD]
    rows = [rows[i] for i in shuffle(len(rows))]
    results = quiet(TRAININGS[name], rows, DATA, layout=layout, devices=jax.devices()[:devices])
    known = reference(name, lanes, min(devices, 2))
    compared = [result for result in results if key(result) in known]
    assert len(compared) == 9
    for result in compared:
        same(result, known[key(result)])
    if name != "odd state":
        assert "diverged" in {result.status for result in results}


@pytest.mark.parametrize("lanes", [4, pytest.param(1, marks=slow)])
def test_a_run_does_not_see_the_number_of_devices(lanes, reference):
    two, four = (reference("plain", lanes, devices) for devices in (2, 4))
    assert two.keys() == four.keys()
    for row in two:
        same(two[row], four[row])


@pytest.mark.parametrize(
    "layout", [Layout(1, 1), Layout(2, 1), Layout(1, 2), Layout(2, 2)], ids=str
)
@pytest.mark.parametrize("state", [lambda: jnp.zeros((0, 2)), lambda: None], ids=["empty", "none"])
@pytest.mark.parametrize("devices", [1, 2])
def test_a_state_without_a_number_is_a_state(state, layout, devices):
    run = Run(lambda h, key, d: (state(), h), lambda s, d: (s, s[1]["x"]), 2)
    results = quiet(run, product(x=[1, 2, 3, 4]), layout=layout, devices=jax.devices()[:devices])
    assert [result.final("metric") for result in results] == [1, 2, 3, 4]

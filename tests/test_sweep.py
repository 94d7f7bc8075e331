"""The engine with real training functions; what it promises of results, and its errors."""

import math
import os
import re
import subprocess
import sys
from typing import NamedTuple

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import adamw_jax as aj
from adamw_jax.sweep import (
    Halving,
    Layout,
    Progress,
    Result,
    Run,
    concatenated,
    product,
    sweep,
    to_table,
)
from adamw_jax.sweep.progress import line

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


def quiet(run, grid, data=None, **options):
    return sweep(run, grid, data, **{"layout": Layout(1, 1), "progress": False, **options})


def alone(run, row, data=None):
    """The metrics of a plain loop, stacked, by path."""
    start, advance = jax.jit(run.start), jax.jit(run.advance)
    numbers = {
        name: jnp.asarray(value, jnp.int32 if isinstance(value, int) else jnp.float32)
        for name, value in row.items()
        if name != "seed"
    }
    state, history = start(numbers, jax.random.key(row.get("seed", 0)), data), []
    for _ in range(run.length):
        state, metrics = advance(state, data)
        history.append(metrics)
    return jax.tree.map(lambda *parts: np.stack(parts), *history)


def same(one, other):
    """Whether two results are the same run, bit for bit."""
    chex.assert_trees_all_equal(one.metrics, other.metrics)
    chex.assert_trees_all_equal_dtypes(one.metrics, other.metrics)
    np.testing.assert_array_equal(one.advance, other.advance)
    assert one.status == other.status


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


# What follows needs no network: a few sums that compile in no time.


def start_counting(h, key, data):
    del data
    return {"h": h, "step": jnp.int32(0), "w": jax.random.normal(key, (3,))}


def count(state, data):
    """A step; the setting `at` says when the loss becomes NaN."""
    del data
    step, h = state["step"] + 1, state["h"]
    w = state["w"] * (1 - h.get("rate", jnp.float32(0.1)))
    loss = jnp.where(step == h.get("at", jnp.int32(0)), jnp.nan, (w**2).sum())
    return {**state, "step": step, "w": w}, {"loss": loss, "step": step, "w": w}


def counting(length=4, **metrics):
    """A run of `count`, with more metrics."""

    def advance(state, data):
        state, own = count(state, data)
        return state, {**own, **{name: of(state) for name, of in metrics.items()}}

    return Run(start_counting, advance, length)


class Pair(NamedTuple):
    first: jax.Array
    second: jax.Array


@pytest.mark.parametrize("layout", [Layout(1, 1), Layout(2, 1)], ids=str)
@pytest.mark.parametrize(
    "metrics, names",
    [
        (lambda s: s["w"][0], {"metric": ()}),
        (lambda s: Pair(s["w"][1], s["step"]), {"first": (), "second": ()}),
        (
            lambda s: {
                "a": [s["w"], {"b": jnp.outer(s["w"], s["w"][:2])}],
                "c": Pair(s["step"] > 1, 2.5),
            },
            {"a/0": (3,), "a/1/b": (3, 2), "c/first": (), "c/second": ()},
        ),
    ],
    ids=["a lone scalar", "a named tuple", "nested"],
)
def test_metrics_go_by_their_paths(metrics, names, layout):
    run = Run(start_counting, lambda s, d: (count(s, d)[0], metrics(count(s, d)[0])), 2)
    rows = product(rate=[0.1, 0.2, 0.3])
    for row, result in zip(rows, quiet(run, rows, layout=layout), strict=True):
        expected = jax.tree.leaves(alone(run, row))
        assert {n: m.shape for n, m in result.metrics.items()} == {
            n: (2, *shape) for n, shape in names.items()
        }
        for metric, values in zip(result.metrics.values(), expected, strict=True):
            np.testing.assert_allclose(metric, values, rtol=1e-6)
            assert metric.dtype == values.dtype


def test_metrics_of_one_path_are_both_there_or_refused():
    run = Run(start_counting, lambda s, d: (s, {"a/b": s["step"], "a": {"b": s["step"]}}), 2)
    with pytest.raises(ValueError, match="'a/b'"):
        quiet(run, product(rate=[0.1]))


NARROW = [jnp.bfloat16, jnp.float16, jnp.int8, jnp.uint32, jnp.bool, jnp.float8_e4m3fn]


@pytest.mark.parametrize("dtype", NARROW, ids=jnp.dtype)
def test_every_real_dtype_is_a_metric_and_a_column(dtype):
    values = np.arange(6).reshape(2, 3).astype(dtype)
    own = dict(run=0, settings={"seed": 0}, advance=np.arange(2) + 1, status="finished")
    rest = dict(lanes=1, device="cpu", seconds=0.0, compile_seconds=0.0)
    table = to_table([Result(metrics={"rank 1": values, "scalar": values[:, 1]}, **own, **rest)])
    for name, kept in ("rank 1", values), ("scalar", values[:, 1]):
        assert np.array_equal(np.array(table[name].to_pylist(), float), kept.astype(float))


def test_a_whole_training_keeps_its_curves():
    def train(h, key, data):
        losses = jax.lax.scan(lambda w, x: (w * h["rate"], w + x), jax.random.normal(key), data)[1]
        return {"losses": losses, "last": losses[-1]}

    run, data = Run.whole(train), np.arange(5, dtype=np.float32)
    rows = product(rate=[0.5, 0.9, 1.1], seed=range(2))
    for row, result in zip(rows, quiet(run, rows, data, layout=Layout(2)), strict=True):
        expected = train({"rate": jnp.float32(row["rate"])}, jax.random.key(row["seed"]), data)
        assert result.advance.tolist() == [1]
        assert result.metrics["losses"].shape == (1, 5)
        np.testing.assert_allclose(result.final("losses"), expected["losses"], rtol=1e-5)
        np.testing.assert_allclose(result.final("last"), expected["last"], rtol=1e-5)


@pytest.mark.parametrize(
    "layout", [Layout(1, 1), Layout(2, 1), Layout(1, 2), Layout(2, 2)], ids=str
)
@pytest.mark.parametrize("state", [lambda: jnp.zeros((0, 2)), lambda: None], ids=["empty", "none"])
@pytest.mark.parametrize("devices", [1, 2])
def test_a_state_without_a_number_is_a_state(state, layout, devices):
    run = Run(lambda h, key, d: (state(), h), lambda s, d: (s, s[1]["x"]), 2)
    results = quiet(run, product(x=[1, 2, 3, 4]), layout=layout, devices=jax.devices()[:devices])
    assert [result.final("metric") for result in results] == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_seed_makes_the_key_that_jax_makes_of_it(seed):
    run = Run(lambda h, key, d: key, lambda key, d: (key, jax.random.key_data(key)), 1)
    (result,) = quiet(run, [{"seed": seed}])
    np.testing.assert_array_equal(result.final("metric"), jax.random.key_data(jax.random.key(seed)))


def static_run(made):
    """A function to runs that notes what it is called with."""

    def run(fixed):
        made.append(dict(fixed))
        size = fixed.get("size", 1)
        return counting(
            2, number=lambda s: s["w"].sum() * size, sized=lambda s: jnp.ones(()) * size
        )

    return run


@pytest.mark.parametrize(
    "axes, static, made",
    [
        ({"rate": [0.1, 0.2]}, (), [{}]),
        ({"name": ["a", "b"], "rate": [0.1, 0.2]}, (), [{"name": "a"}, {"name": "b"}]),
        ({"shape": [(1, 2), (3,)]}, (), [{"shape": (1, 2)}, {"shape": (3,)}]),
        ({"flag": [True, False]}, (), [{"flag": True}, {"flag": False}]),
        ({"mix": [None, 1, 1.0, True]}, (), [{"mix": v} for v in (None, 1, 1.0, True)]),
        ({"rate": [0.1, 0.2], "size": [3, 5]}, ("size",), [{"size": 3}, {"size": 5}]),
        (
            {"rate": [0.1], "name": ["a", "b"], "flag": [True, False]},
            (),
            [{"name": n, "flag": f} for n in "ab" for f in (True, False)],
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_what_is_no_number_is_compiled_in(axes, static, made):
    calls = []
    rows = product(**axes)
    results = quiet(static_run(calls), rows, static=static)
    # As repr, since True equals 1.
    assert list(map(repr, calls)) == list(map(repr, made))
    assert [result.settings for result in results] == [{"seed": 0, **row} for row in rows]
    for row, result in zip(rows, results, strict=True):
        assert result.final("step") == 2
        if "size" in row:
            assert result.final("sized") == row["size"]


def compiled(events):
    return sum(event.endswith("backend_compile_duration") for event in events)


def test_one_program_serves_all_numbers_and_seeds(compilations):
    def cost(grid):
        before = compiled(compilations)
        quiet(static_run([]), grid, layout=Layout(2, 1), devices=jax.devices()[:1])
        return compiled(compilations) - before

    cost(product(rate=[0.1], seed=range(2)))  # NumPy-like helpers that JAX compiles but once
    one = cost(product(rate=[0.1], seed=range(2)))
    assert one == 2  # start and advance
    assert cost(product(rate=[0.2, 0.3, 0.4], seed=range(9, 12))) == one
    assert cost(product(rate=[0.5, -1.0, 2.0], seed=[5], name=["a", "b", "c"])) == 3 * one


def changes(**new):
    return Run(start_counting, lambda s, d: ({**s, **{k: f(s) for k, f in new.items()}}, 1.0), 2)


def measures(metrics):
    return Run(start_counting, lambda s, d: (s, metrics(s)), 2)


RATES = product(rate=[0.1, 0.2])


@pytest.mark.parametrize(
    "run, grid, options, told",
    [
        (counting(), product(name=["a"]), {}, "name must be compiled in, so `run` must be a func"),
        (counting(), product(rate=[1, None]), {}, "rate must be compiled in"),
        (counting(), RATES, {"static": ["rate"]}, "rate must be compiled in"),
        (counting(), RATES, {"static": ["rat"]}, "static names 'rat'; the settings are rate"),
        (counting(), product(at=[1, 2**31]), {}, "'at' has 2147483648, .* large for int32"),
        (counting(), product(at=[1, -(2**40)]), {}, "'at' has -1099511627776, which is too large"),
        (counting(), product(at=[0.5, 10**400]), {}, "'at'"),
        (counting(0), RATES, {}, "length is at least 1; got 0"),
        (counting(2.5), RATES, {}, "length is an integer; got 2.5"),
        (lambda fixed: counting(-1), product(name=["a"]), {}, "got -1 for {'name': 'a'}"),
        (counting(), [], {}, "the grid has no rows"),
        (changes(w=lambda s: s["w"][:2]), RATES, {}, r"\['w'\] .* float32\[3\] .* float32\[2\]"),
        (changes(step=lambda s: s["step"] * 1.5), RATES, {}, r"\['step'\] .*int32\[\] .*float32"),
        (changes(w=lambda s: s["w"].astype(jnp.bfloat16)), RATES, {}, r"\['w'\].* bfloat16\[3\]"),
        (changes(more=lambda s: 1.0), RATES, {}, r"structure that start returns.*\['more'\]"),
        (changes(w=lambda s: None), RATES, {}, r"structure that start returns.*\['w'\]"),
        (
            Run(lambda h, k, d: (1.0,), lambda s, d: ([s[0]], 1.0), 2),
            RATES,
            {},
            "structure .*containers",
        ),
        (measures(lambda s: {"z": s["w"] + 1j}), RATES, {}, "'z' is complex64; metrics are real"),
        (measures(lambda s: [jax.random.key(0)]), RATES, {}, r"'0' is key<fry>"),
        (measures(lambda s: {"e": s["w"][:0]}), RATES, {}, r"'e' is empty: its shape is \(0,\)"),
        (measures(lambda s: None), RATES, {}, "advance returns no metrics"),
        (measures(lambda s: {"rate": 1.0}), RATES, {}, "'rate' is both a setting and a metric"),
        (measures(lambda s: {"seed": 1.0}), RATES, {}, "'seed' is both a setting and a metric"),
        (measures(lambda s: {"status": 1.0}), RATES, {}, "'status' is the table's own"),
        (measures(lambda s: 1.0), product(lanes=[1, 2]), {}, "'lanes' is the table's own"),
        (counting(), RATES, {"watch": ["lost"]}, "watch names the metric 'lost'; .* loss, step, w"),
        (counting(), RATES, {"until": lambda m: m["loss"][:1] < 1}, r"bool\[2\].*bool\[1\]"),
        (counting(), RATES, {"until": lambda m: m["loss"]}, r"bool\[2\].*float32\[2\]"),
        (counting(), RATES, {"until": lambda m: True}, r"bool\[2\].*bool\[\]"),
        (counting(), RATES, {"until": lambda m: m["w"] < 1}, r"bool\[2\].*bool\[2, 3\]"),
        (counting(), RATES, {"halving": Halving("lost", (1,))}, "metric 'lost' is none of 'loss'"),
        (counting(), RATES, {"halving": Halving("w", (1,))}, "'w'"),
        *[
            (counting(), RATES, {"halving": Halving("loss", rungs)}, "rungs must be less than 4")
            for rungs in [(1, 4), (5,)]
        ],
        (Run(start_counting, lambda s, d: count(s, d)[0], 2), RATES, {}, "the state alone"),
        (Run(start_counting, lambda s, d: s["w"], 2), RATES, {}, r"an array float32\[3\]"),
        (Run(start_counting, lambda s, d: (s, 1.0, 2.0), 2), RATES, {}, "pair .*a tuple of 3"),
        (Run(lambda h, k, d: None, count, 2), RATES, {}, "start returns None; it must return the"),
        (counting(), RATES, {"devices": []}, r"devices is a list .*, not empty; got \[\]"),
        (counting(), RATES, {"devices": "cpu"}, "devices is a list .* got 'cpu'"),
        (counting(), RATES, {"static": "rate"}, "static is a sequence of names; got the string"),
        (counting(), RATES, {"watch": "loss"}, "watch is a sequence of names; got the string"),
        (counting(), RATES, {"identity": {"a": {1}}}, "identity must be JSON: .* set"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(run, grid, options, told):
    options = {"layout": Layout(2, 1), "devices": jax.devices()[:1], **options}
    with pytest.raises(ValueError, match=told):
        quiet(run, grid, **options)


@pytest.mark.parametrize(
    "run, grid, options, told",
    [
        (counting(), {"rate": [0.1]}, {}, "a grid is a sequence of rows, such as sweep.product"),
        (counting(), [0.1], {}, "a row of a grid is a dictionary of settings; got 0.1"),
        (counting(), 3, {}, "a grid is a sequence of rows; got 3"),
        (3, RATES, {}, "run must be a Run, or a function that returns one; got 3"),
        (lambda fixed: None, product(name=["a"]), {}, "function that returns one; got None"),
        (Run(None, count, 2), RATES, {}, "start and advance of a Run are functions"),
        (Run(lambda h, k, d: {"a": "b"}, count, 2), RATES, {}, r"state\['a'\] is 'b', which is no"),
        (counting(), RATES, {"data": ["x"]}, r"data\[0\] is 'x'; data is a pytree of arrays"),
        (counting(), RATES, {"layout": 16}, r"layout is a Layout, such as .*; got 16"),
        (counting(), RATES, {"halving": ("loss", (1,))}, r"halving is a Halving, .*; got \('loss"),
        (counting(), RATES, {"until": 1}, "until is a function of the metrics; got 1"),
        (counting(), RATES, {"watch": 1}, "watch is a sequence of names; got 1"),
        (counting(), RATES, {"static": 1}, "static is a sequence of names; got 1"),
        (counting(), RATES, {"identity": "x"}, "identity is a dictionary; got 'x'"),
        (counting(), RATES, {"devices": [1]}, "devices is a list of JAX's devices; 1 is in it"),
        (counting(), RATES, {"progress": 1.5}, "progress is a function .*; got 1.5"),
        (counting(), RATES, {"output": 3}, "output is a directory; got 3"),
    ],
)
def test_a_value_of_another_type_is_refused_by_the_name_of_its_argument(run, grid, options, told):
    with pytest.raises(TypeError, match=told):
        quiet(run, grid, **options)


def test_a_setting_that_is_missing_is_told_with_those_that_are_there():
    with pytest.raises(KeyError, match="decay") as raised:
        quiet(Run(lambda h, k, d: h["decay"], count, 2), RATES)
    assert "The grid has these settings that are numbers: rate" in raised.value.__notes__


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: Layout(0, 1), "a layout's lanes is an integer from 1 on; got 0"),
        (lambda: Layout(1, -1), "a layout's rounds is an integer from 1 on; got -1"),
        (lambda: Layout(2.0), r"lanes is an integer from 1 on; got 2\.0"),
        (lambda: Layout(True), "got True"),
        (lambda: Halving("loss", 3), "integers in a tuple; got 3"),
        (lambda: Halving("loss", (1.5,)), r"in a tuple; got \(1.5,\)"),
        *[
            (lambda rungs=rungs: Halving("loss", rungs), re.escape(f"from at least 1; got {rungs}"))
            for rungs in [(), (0,), (-1, 2), (2, 1), (1, 1)]
        ],
        *[
            (lambda keep=keep: Halving("loss", (1,), keep), f"keep must be in .* got {keep!r}")
            for keep in (0, 1, 1.5, -0.5, math.nan, "half")
        ],
    ],
)
def test_options_are_checked_when_they_are_made(make, told):
    with pytest.raises(ValueError, match=told):
        make()


@pytest.mark.parametrize("layout", [Layout(1, 1), Layout(4, 1), Layout(2, 2)], ids=str)
def test_a_run_that_diverges_ends_there_and_its_neighbours_do_not_see_it(layout):
    options = {"layout": layout, "devices": jax.devices()[:1]}
    rows = product(at=[0, 1, 3, 4, 9], rate=[0.1, 0.2])
    results = quiet(counting(), rows, **options)
    for row, result in zip(rows, results, strict=True):
        made = row["at"] if 0 < row["at"] <= 4 else 4
        assert result.status == ("diverged" if 0 < row["at"] <= 4 else "finished")
        assert result.advance.tolist() == list(range(1, made + 1))
        assert {len(values) for values in result.metrics.values()} == {made}
        assert np.isfinite(result.metrics["loss"][: made - 1]).all()
        assert np.isnan(result.final("loss")) == (result.status == "diverged")
    calm = [row for row in rows if row["at"] in (0, 9)]
    finished = [result for result in results if result.status == "finished"]
    for one, other in zip(finished, quiet(counting(), calm, **options), strict=True):
        same(one, other)


@pytest.mark.parametrize(
    "bad",
    [lambda s: jnp.inf, lambda s: -jnp.inf, lambda s: jnp.array([0, jnp.nan, 1])],
    ids=["inf", "-inf", "nan"],
)
@pytest.mark.parametrize(
    "watch, status",
    [(None, "diverged"), (("legit",), "diverged"), (("loss", "w"), "finished"), ((), "finished")],
)
def test_watch_says_what_counts_as_divergence(watch, status, bad):
    (result,) = quiet(counting(2, legit=bad), product(rate=[0.1]), watch=watch)
    assert result.status == status
    assert len(result.advance) == (1 if status == "diverged" else 2)
    assert not np.isfinite(result.final("legit")).all()


def test_until_stops_runs_one_by_one():
    def until(metrics):
        return metrics["step"] >= np.where(metrics["rate again"] > 0.25, 2, 3)

    run = counting(6, **{"rate again": lambda s: s["h"]["rate"]})
    rows = product(rate=[0.2, 0.3, 0.4], seed=[1, 2])[:-1]
    options = {"layout": Layout(4, 1), "devices": jax.devices()[:1]}
    whole = quiet(run, rows, **options)
    for row, result, full in zip(
        rows, quiet(run, rows, **options, until=until), whole, strict=True
    ):
        made = 2 if row["rate"] > 0.25 else 3
        assert result.status == "stopped" and full.status == "finished"
        assert result.advance.tolist() == list(range(1, made + 1))
        for name, values in result.metrics.items():
            np.testing.assert_array_equal(values, full.metrics[name][:made])


@pytest.mark.parametrize("ending", ["diverged", "stopped"])
def test_a_chunk_whose_runs_have_all_ended_makes_no_more_advances(ending):
    calls = []

    def advance(state, data):
        jax.debug.callback(lambda step: calls.append(int(step)), state["step"])
        return count(state, data)

    until = (lambda metrics: metrics["step"] >= 2) if ending == "stopped" else None
    rows = product(at=[2 if ending == "diverged" else 0], seed=range(3))
    run = Run(start_counting, advance, 50)
    results = quiet(run, rows, layout=Layout(1, 1), devices=jax.devices()[:1], until=until)
    jax.effects_barrier()
    assert [(result.status, len(result.advance)) for result in results] == [(ending, 2)] * 3
    # One more than two: the device works ahead of the host.
    assert 3 * 2 <= len(calls) <= 3 * 3


def told(run, grid, **options):
    heard = []
    quiet(run, grid, progress=heard.append, **options)
    return heard


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layout": Layout(2, 2)},
        {"until": lambda metrics: metrics["step"] >= 2},
        {"halving": Halving("loss", (1, 3))},
        {"layout": None},
    ],
    ids=["plain", "lanes", "until", "halving", "measured"],
)
def test_progress_rises_from_nothing_to_done(options):
    heard = told(counting(), product(rate=[0.1, 0.2, 0.3], at=[0, 2]), **options)
    shares = [progress.share for progress in heard]
    assert shares[0] == 0 and shares == sorted(shares) and shares[-1] == 1
    assert {progress.runs for progress in heard} == {6}
    finished = [progress.finished for progress in heard]
    assert finished[0] == 0 and finished == sorted(finished) and finished[-1] == 6
    words = [progress.doing for progress in heard]
    assert words[0] == "compiling" and words[-1] == "done" and words.count("done") == 1
    first = words.index("training")
    assert all(math.isnan(progress.seconds_left) for progress in heard[:first])
    assert all(0 <= progress.seconds_left < math.inf for progress in heard[first:])
    assert heard[-1].seconds_left == 0


def test_progress_counts_runs_as_their_chunks_end():
    heard = told(counting(2), product(rate=[0.1, 0.2, 0.3]), devices=jax.devices()[:1])
    training = [(p.finished, round(6 * p.share)) for p in heard if p.doing == "training"]
    assert training == [(0, 1), (0, 2), (1, 2), (1, 3), (1, 4), (2, 4), (2, 5), (2, 6), (3, 6)]


@pytest.mark.parametrize("progress", [False, None])
def test_progress_is_silent_where_none_is_asked_for(progress, capfd):
    quiet(counting(1), product(rate=[0.1]), progress=progress)
    assert capfd.readouterr() == ("", "")


def test_progress_is_a_line_on_stderr(capsys):
    sweep(counting(1), product(rate=[0.1]), layout=Layout(1, 1))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert 1 <= len(lines) <= 2 and lines[-1].rstrip() == "1/1 runs, 100 %  done"


@pytest.mark.parametrize(
    "progress, text",
    [
        (Progress(0, 10, 0.0, math.nan, "compiling"), "0/10 runs, 0 %  compiling"),
        (Progress(3, 10, 0.306, 12.4, "training"), "3/10 runs, 31 %, 12 s left  training"),
        (Progress(3, 10, 0.3, 600.0, "training"), "3/10 runs, 30 %, 10 min left  training"),
        (Progress(3, 10, 0.3, 7200.0, "training"), "3/10 runs, 30 %, 2.0 h left  training"),
        (Progress(10, 10, 1.0, 0.0, "done"), "10/10 runs, 100 %  done"),
        (Progress(1, 2, 0.5, math.nan, "x" * 99), f"1/2 runs, 50 %  {'x' * 62}"),
    ],
)
def test_a_line_of_progress(progress, text):
    assert line(progress) == text.ljust(78)


@pytest.mark.parametrize("runs, devices", [(1, 1), (3, 1), (3, 4), (20, 2)])
def test_a_measured_layout_fits_the_number_of_runs(runs, devices):
    rows = product(rate=[0.1], seed=range(runs))
    results = quiet(counting(2), rows, layout=None, devices=jax.devices()[:devices])
    assert len(results) == runs and len({result.lanes for result in results}) == 1
    assert 1 <= results[0].lanes * devices <= 4 * max(runs, devices)
    for row, result in zip(rows, results, strict=True):
        expected = alone(counting(2), row)
        for name, values in expected.items():
            np.testing.assert_allclose(result.metrics[name], values, rtol=1e-5)


@pytest.mark.parametrize(
    "layout, halves",
    [
        (Layout(8, 3), [Layout(4, 3), Layout(2, 3), Layout(1, 3), Layout(1, 1)]),
        (Layout(3, 1), [Layout(1, 1)]),
        (Layout(1, 4), [Layout(1, 2), Layout(1, 1)]),
    ],
)
def test_layouts_halve_until_a_single_run_is_left(layout, halves):
    for half in halves:
        layout = layout.halved()
        assert layout == half
    with pytest.raises(MemoryError, match="a single run does not fit"):
        layout.halved()


@pytest.mark.parametrize("runs", [1, 4, 5, 8, 9, 100])
@pytest.mark.parametrize("devices", [1, 2])
def test_rounds_fill_the_fewest_chunks_evenly(runs, devices):
    layout = Layout(4, 6).within(runs, devices)
    chunks = math.ceil(runs / Layout(4, 6).width(devices))
    assert layout.lanes == 4 and 1 <= layout.rounds <= 6
    assert math.ceil(runs / layout.width(devices)) == chunks
    # With a round less they would not fit.
    assert layout.rounds == 1 or chunks * (layout.rounds - 1) * 4 * devices < runs


def test_numbers_are_wide_under_x64():
    def advance(state, data):
        state, own = count(state, data)
        return state, {**own, "rate again": state["h"]["rate"], "at again": state["h"]["at"]}

    rows = product(rate=[1 / 3, 1e300], at=[2**40, 7], seed=[0, 2**32 - 1])
    with jax.enable_x64(True):
        results = quiet(Run(start_counting, advance, 1), rows, layout=Layout(2, 1))
        draws = [np.asarray(jax.random.normal(jax.random.key(row["seed"]), (3,))) for row in rows]
    for row, result, drawn in zip(rows, results, draws, strict=True):
        rate, at = result.final("rate again"), result.final("at again")
        assert (rate.dtype, at.dtype, result.final("w").dtype) == ("float64", "int64", "float64")
        assert (rate, at) == (row["rate"], row["at"])
        np.testing.assert_allclose(result.final("w"), drawn * (1 - row["rate"]), rtol=1e-12)


@pytest.mark.parametrize(
    "script",
    [
        """
import jax
before = dict(jax.config.values)
import adamw_jax
assert "pyarrow" not in sys.modules and "adamw_jax.sweep" not in sys.modules
import adamw_jax.sweep
assert "pyarrow" not in sys.modules
assert dict(jax.config.values) == before
""",
        """
sys.modules["pyarrow"] = None
from adamw_jax import sweep
run = sweep.Run(lambda h, key, data: h, lambda h, data: (h, h["x"] * data), 2)
halving = sweep.Halving("metric", (1,))
results = sweep.sweep(run, sweep.product(x=[1.0, 2.0]), 3.0, halving=halving, progress=False)
assert [r.metrics["metric"].tolist() for r in results] == [[3.0, 3.0], [6.0]], results
""",
        """
import jax, pyarrow
sys.modules["fcntl"] = None  # as on Windows
from adamw_jax import sweep
run = sweep.Run.whole(lambda h, key, data: h["x"])
grid = sweep.product(x=[1.0])
assert len(sweep.sweep(run, grid, progress=False)) == 1
try:
    sweep.sweep(run, grid, cache="cache", progress=False)
except sweep.StoreError as error:
    assert "needs file locks (Python's fcntl)" in str(error), error
    assert "without `output` and `cache`" in str(error).lower(), error
else:
    raise AssertionError("it was kept without a lock")
assert sweep.kept("cache", grid) is None
""",
    ],
    ids=["an import changes no settings", "no output takes no pyarrow", "no locks, no output"],
)
def test_in_a_process_of_its_own(script, tmp_path):
    command = [sys.executable, "-W", "error", "-c", f"import sys\n{script}"]
    path = {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    options = {"cwd": tmp_path, "env": os.environ | path}
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr

"""What a sweep refuses, and that it says by name what is wrong."""

import math
import re

import jax
import jax.numpy as jnp
import pytest
from sweep_counting import count, counting, quiet, start_counting

from adamw_jax.sweep import Halving, Layout, Run, product


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

"""Whose a directory is: another sweep, program or process is refused, the same one goes on."""

import json
import re

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from sweep_directories import (
    FEW,
    brought_to,
    compiling_once,  # noqa: F401  a fixture
    contents,
    edited,
    names,
    never,
    whole_sweeps,  # noqa: F401  a fixture
)
from sweep_program import GRID, HALVING, differing, go

from adamw_jax.sweep import Layout, Run, StoreError, product, sweep, work


def nothing(directory):
    pass


OTHERS = {
    "values": (nothing, {"grid": [r | {"warm": r["warm"] + 1} for r in GRID]}, "warm"),
    "other types": (nothing, {"grid": [r | {"warm": float(r["warm"])} for r in GRID]}, "grid"),
    "more seeds": (nothing, {"grid": [*GRID, *(r | {"seed": 2} for r in GRID[::2])]}, "seed"),
    "fewer rows": (nothing, {"grid": GRID[:-1]}, "runs is 32 there and 31 here"),
    "more settings": (nothing, {"grid": [r | {"decay": 0.1} for r in GRID]}, "decay"),
    "another order": (nothing, {"grid": GRID[::-1]}, "grid"),
    "length": (nothing, {"length": 7}, r"length.* \[6, 6\] there and \[7, 7\] here"),
    "halving": (nothing, {"halving": HALVING}, "halving is null there"),
    "static": (nothing, {"static": ["warm"]}, "static"),
    "watch": (nothing, {"watch": ["loss"]}, "watch"),
    "identity": (nothing, {"identity": {"data": "sin"}}, 'data is "noise" there and "sin" here'),
    "version of jax": (
        edited(lambda m: m["versions"].update(jax_version="0.0.1")),
        {},
        f'jax_version is "0.0.1" there and "{jax.__version__}" here',
    ),
    "version of the library": (
        edited(lambda m: m["versions"].update(adamw_jax_version="0.0.1")),
        {},
        'adamw_jax_version is "0.0.1" there',
    ),
    "format": (edited(lambda m: m.update(format=3)), {}, "format 3; this version of"),
}  # fmt: skip
IDENTITY = {"data": "noise"}


# The manifest is read before all else.
STATES = [(name, "finished") for name in OTHERS]
STATES += [(name, "begun") for name, (edit, *_) in OTHERS.items() if edit is nothing]


@pytest.mark.parametrize(("name", "state"), STATES)
def test_another_sweep_is_refused_and_nothing_changed(name, state, whole, tmp_path, monkeypatch):
    edit, options, told = OTHERS[name]
    brought_to(state, tmp_path, whole, identity=IDENTITY)
    edit(tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(work, "compile_variant", never)
    with pytest.raises(StoreError, match=re.escape(str(tmp_path)) + f".*{told}"):
        go(tmp_path, **{"identity": IDENTITY, **options})
    assert contents(tmp_path) == before


def test_a_table_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "results.parquet").write_bytes(b"of another program")
    with pytest.raises(
        StoreError, match="results.parquet is not known to be this sweep's; nothing"
    ):
        go(tmp_path)
    # The lock must be taken before anything is looked at.
    assert set(names(tmp_path)) - {".lock-0"} == {"results.parquet"}


def test_an_identity_may_hold_what_json_can(tmp_path):
    identity = {"list": [1, 2.5, None], "tuple": (1, 2), "nested": {"limit": float("inf")}}
    results = go(tmp_path, grid=FEW, identity=identity)
    assert differing(go(tmp_path, grid=FEW, identity=identity), results) == []


def test_a_call_that_failed_does_not_claim_the_directory(tmp_path):
    with pytest.raises(ValueError, match="watch names the metric 'los'"):
        go(tmp_path, watch=["los"])
    go(tmp_path, watch=["loss"])
    assert differing(tmp_path, go(watch=["loss"])) == []


def test_a_second_sweep_is_refused_while_the_first_goes_on(tmp_path):
    told = []

    def again(progress):
        with pytest.raises(StoreError, match=f"another process .* {tmp_path}; wait for it, or"):
            go(tmp_path, grid=FEW)
        told.append(progress.doing)

    results = go(tmp_path, grid=FEW, progress=again)
    assert set(told) == {"compiling", "training", "done"}
    assert differing(results, go(grid=FEW)) == []


# Programs


def scaled(factor):
    def train(h, key, data):
        return {"loss": factor * h["rate"] * data.sum() + jax.random.uniform(key)}

    return Run.whole(train)


def test_another_program_or_other_data_is_refused_and_the_same_one_made_anew_is_not(tmp_path):
    grid, data = product(rate=[1.0, 2.0]), np.arange(3.0, dtype=np.float32)
    layout = Layout(1, 1)

    def go_on(run, data):
        return sweep(run, grid, data, output=tmp_path, layout=layout, progress=False)

    first = go_on(scaled(3.0), data)
    before = contents(tmp_path)
    with pytest.raises(StoreError, match="another sweep: programs is"):
        go_on(scaled(4.0), data)
    with pytest.raises(StoreError, match="another sweep: data is"):
        go_on(scaled(3.0), data + 1)
    assert contents(tmp_path) == before
    again = go_on(scaled(3.0), data)
    assert [r.final("loss") for r in again] == [r.final("loss") for r in first]


def test_a_function_that_is_called_callback_is_known_all_the_same(tmp_path):
    def run(factor):
        @jax.jit
        def loss_callback(x):
            return factor * x

        return Run.whole(lambda h, key, data: {"loss": loss_callback(h["rate"])})

    sweep(run(1.0), product(rate=[1.0]), output=tmp_path, progress=False)
    with pytest.raises(StoreError, match="another sweep: programs is"):
        sweep(run(2.0), product(rate=[1.0]), output=tmp_path, progress=False)


def test_a_program_with_callbacks_goes_on(tmp_path):
    """Its text holds addresses, which are other ones in every process."""
    run = Run.whole(
        lambda h, key, data: jax.debug.callback(print, h["rate"]) or {"loss": h["rate"]}
    )
    for _ in range(2):
        results = sweep(run, product(rate=[1.0]), output=tmp_path, progress=False)
    assert results[0].status == "finished"
    assert json.loads((tmp_path / "sweep.json").read_text())["programs"] == ["has callbacks"]


def test_a_state_that_holds_functions_is_refused_with_advice():
    def start(h, key, data):
        model = nnx.Linear(2, 1, rngs=nnx.Rngs(key))
        return h, model, nnx.Optimizer(model, optax.sgd(h["rate"]), wrt=nnx.Param)

    run = Run(start, lambda state, data: (state, {"loss": state[0]["rate"]}), 1)
    with pytest.raises(ValueError, match="such as nnx.Optimizer, does that: keep its arrays"):
        sweep(run, product(rate=[0.1]), layout=Layout(1, 1), progress=False)

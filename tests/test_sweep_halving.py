"""Successive halving: who goes on, and that going on changes nothing."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adamw_jax.sweep import Halving, Layout, Result, Run, product, sweep
from adamw_jax.sweep.halving import rungs_of
from adamw_jax.sweep.results import Block
from adamw_jax.sweep.standing import Standing
from adamw_jax.sweep.store import Part

NAN, INF = math.nan, math.inf


def survivors(halving, *runs):
    """The runs that survive a first rung, from the values of each in every rung, and its status."""
    standing = Standing(len(runs), 2, halving)
    for number, rung in enumerate(rungs_of(halving)[:2]):
        results = []
        for i, (*values, status) in enumerate(runs):
            for value in values[number : number + 1]:
                advance = np.arange(rung.first + 1, rung.first + 1 + len(value), dtype=np.int32)
                metrics = {"loss": np.array(value, np.float32)}
                results.append(Result(i, {}, advance, metrics, status, 1, "cpu", 0.0, 0.0))
        if results:
            standing.add(Part(number, ""), Block.of(results))
    alive = standing.survivors(np.full(len(runs), True), rungs_of(halving)[0])
    return set(np.flatnonzero(alive).tolist())


@pytest.mark.parametrize(
    "halving, lasts, best",
    [
        (Halving("loss", (1,)), [4, 1, 3, 2], {1, 3}),
        (Halving("loss", (1,), largest=True), [4, 1, 3, 2], {0, 2}),
        (Halving("loss", (1,)), [1, 1, 1, 1], {0, 1}),
        (Halving("loss", (1,), largest=True), [1, 1, 1, 1], {0, 1}),
        (Halving("loss", (1,)), [2, 1, 1, 1, 0], {1, 2, 4}),
        (Halving("loss", (1,)), [3, 2, 1], {1, 2}),
        (Halving("loss", (1,), 0.1), [3, 2, 1], {2}),
        (Halving("loss", (1,), 0.34), [3, 2, 1], {1, 2}),
        (Halving("loss", (1,), 0.9), [3, 2, 1], {0, 1, 2}),
        (Halving("loss", (1,)), [5], {0}),
        (Halving("loss", (1,)), [NAN, 9, NAN, 8], {1, 3}),
        (Halving("loss", (1,)), [-INF, 9, INF, 8], {1, 3}),
        (Halving("loss", (1,), largest=True), [INF, 9, NAN, 8], {1, 3}),
        (Halving("loss", (1,)), [NAN, NAN, NAN, 8], {0, 3}),
        (Halving("loss", (1,)), [-1, -2, 3, 4], {0, 1}),
    ],
)
def test_the_best_go_on(halving, lasts, best):
    assert survivors(halving, *[([value], "running") for value in lasts]) == best
    assert halving.entrants(len(lasts)) == [len(lasts), len(best)]


def test_the_value_at_the_rung_counts():
    runs = ([9, 1], [9], "running"), ([1, 9], [1], "running")
    assert survivors(Halving("loss", (2,)), *runs) == {0}


def test_a_diverged_run_loses_whatever_its_metric():
    # Another metric may have been the one that diverged.
    runs = ([1], "diverged"), ([9, 9], "running"), ([8, 8], "running")
    assert survivors(Halving("loss", (2,), 0.6), *runs) == {1, 2}


def test_a_stopped_run_has_its_last_value():
    runs = ([1], "stopped"), ([9, 9], "running"), ([0, 8], "running")
    assert survivors(Halving("loss", (2,), 0.3), *runs) == {0}


@pytest.mark.parametrize("keep, runs, kept", [(0.55, 100, 55), (0.07, 100, 7), (0.28, 25, 7)])
def test_rounding_up_is_that_of_the_number_that_is_written(keep, runs, kept):
    # 0.07 * 100 is 7.000000000000001 in binary.
    halving = Halving("loss", (1,), keep)
    assert halving.entrants(runs) == [runs, kept]
    assert survivors(halving, *[([run], "running") for run in range(runs)]) == set(range(kept))


@given(
    st.lists(st.floats(width=32) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=12),
    st.floats(0.01, 0.99),
    st.booleans(),
)
def test_nobody_who_is_dropped_is_better_than_one_who_goes_on(values, keep, largest):
    runs = [([value], "running") for value in values]
    best = survivors(Halving("loss", (1,), keep, largest), *runs)
    assert len(best) == math.ceil(keep * len(values))

    def worth(run):
        value = values[run] if largest else -values[run]
        return (value if math.isfinite(values[run]) else -INF), -run

    dropped = set(range(len(values))) - best
    assert all(worth(run) > worth(other) for run in best for other in dropped)


def start(h, key, data):
    del data
    return {
        "h": h,
        "key": key,
        "step": 0,
        "w": jax.random.normal(key, (3,)),
        "narrow": jnp.ones(2, jnp.bfloat16),
        "flag": jnp.array([True, False]),
        "none": None,
    }


def advance(state, data):
    """Noisy steps that show every leaf of the state in a metric."""
    del data
    key, drawn = jax.random.split(state["key"])
    noise = jax.random.normal(drawn, (3,))
    w = state["w"] * 0.9 + state["h"]["rate"] * noise
    narrow = state["narrow"] * jnp.bfloat16(1.1) + noise[:2].astype(jnp.bfloat16)
    flag = state["flag"] ^ (noise[:2] > 0)
    step = state["step"] + 1
    loss = jnp.where(step == state["h"]["at"], jnp.nan, (w**2).sum())
    new = {**state, "key": key, "step": step, "w": w, "narrow": narrow, "flag": flag}
    metrics = {
        "loss": loss,
        "w": w,
        "narrow": narrow.astype(jnp.float32),
        "flag": flag,
        "step": step,
    }
    return new, {**metrics, "key": jax.random.key_data(key)}


RUN = Run(start, advance, 6)
# Sixteen runs, of which the first two diverge, before the first rung and behind it.
GRID = product(rate=[0.1, 0.3, 1.0, 3.0], at=[0], seed=range(4))
GRID = [{**row, "at": {0: 1, 1: 4}.get(i, 0)} for i, row in enumerate(GRID)]
HALVING = Halving("loss", (2, 4))


def quiet(run=RUN, grid=GRID, **options):
    options = {"layout": Layout(4), "devices": jax.devices()[:1], **options}
    return sweep(run, grid, progress=False, **options)


@pytest.fixture(scope="module")
def whole():
    """The runs without halving."""
    return quiet()


def expected_lengths(whole, halving, length):
    """How far each run gets, from histories without halving."""
    alive, made = list(range(len(whole))), [0] * len(whole)
    for rung in halving.rungs:
        for run in alive:
            made[run] = min(rung, len(whole[run].advance))

        def badness(run, rung=rung):
            values = whole[run].metrics[halving.metric][:rung]
            return values[-1] if np.isfinite(values[-1]) else INF

        # The sort is stable, so that ties go to the earlier one.
        alive = sorted(sorted(alive, key=badness)[: math.ceil(halving.keep * len(alive))])
    for run in alive:
        made[run] = min(length, len(whole[run].advance))
    return made, set(alive)


THIRDS = Halving("loss", (1, 2, 5), 0.3)


@pytest.mark.parametrize(
    "halving, layout, devices, stored",
    [
        (HALVING, Layout(4), 1, False),
        (THIRDS, Layout(4, 2), 1, True),
        pytest.param(HALVING, Layout(4), 2, True, marks=pytest.mark.slow),
        pytest.param(THIRDS, Layout(4), 2, False, marks=pytest.mark.slow),
    ],
    ids=["lanes in memory", "rounds on disk", "devices on disk", "devices in memory"],
)
def test_halving_changes_nothing_but_the_length(halving, layout, devices, stored, whole, tmp_path):
    results = quiet(
        halving=halving,
        layout=layout,
        devices=jax.devices()[:devices],
        output=tmp_path / "out" if stored else None,
    )
    made, survivors = expected_lengths(whole, halving, RUN.length)
    assert [len(r.advance) for r in results] == made
    for one, full, length in zip(results, whole, made, strict=True):
        assert one.advance.tolist() == list(range(1, length + 1))
        assert (one.run, one.settings, one.lanes) == (full.run, full.settings, full.lanes)
        cut = {name: values[:length] for name, values in full.metrics.items()}
        chex.assert_trees_all_equal(dict(one.metrics), cut)
        chex.assert_trees_all_equal_dtypes(dict(one.metrics), cut)
        ended = full.status == "diverged" and len(full.advance) == length
        word = "diverged" if ended else "finished" if one.run in survivors else "dropped"
        assert one.status == word
    assert {r.status for r in results} >= {"finished", "dropped", "diverged"}


def test_what_is_left_fills_the_lanes():
    sizes = []

    def until(metrics):
        sizes.append((int(metrics["step"].max()), len(metrics["step"])))
        return np.zeros(len(metrics["step"]), bool)

    grid = product(rate=[0.1, 0.3], at=[0], seed=range(8))
    quiet(grid=grid, halving=HALVING, until=until)
    # Four chunks of four in the first rung, then two, then one: never a lane without a run.
    assert sizes == 4 * [(1, 4), (2, 4)] + 2 * [(3, 4), (4, 4)] + [(5, 4), (6, 4)]


def test_runs_that_are_stopped_keep_their_place_and_make_no_more_advances():
    results = quiet(
        halving=HALVING,
        until=lambda metrics: (metrics["step"] >= 1) & (metrics["loss"] < 1),
    )
    stopped = [r for r in results if r.status == "stopped"]
    assert stopped
    for r in stopped:
        assert r.final("loss") < 1 and (r.metrics["loss"][:-1] >= 1).all()
    finished = sum(r.status in ("finished", "stopped", "diverged") for r in results)
    assert finished >= math.ceil(16 / 4)


def test_groups_of_other_lengths_are_halved_together():
    lengths = {"short": 3, "long": 5}
    grid = product(name=["short", "long"], rate=[0.1, 0.3], at=[0], seed=range(3))
    results = quiet(
        lambda fixed: Run(start, advance, lengths[fixed["name"]]),
        grid,
        halving=Halving("loss", (2,)),
    )
    assert sum(r.status == "finished" for r in results) == 6
    order = sorted(results, key=lambda r: r.metrics["loss"][1])
    for place, r in enumerate(order):
        finishes = place < 6
        assert r.status == ("finished" if finishes else "dropped")
        assert len(r.advance) == (lengths[r.settings["name"]] if finishes else 2)


@pytest.mark.parametrize("rungs", [(3,), (2, 4)])
def test_rungs_must_be_before_the_end_of_the_shortest(rungs):
    lengths = {"short": 3, "long": 5}
    grid = product(name=["short", "long"], rate=[0.1], at=[0])
    with pytest.raises(ValueError, match="less than 3, the shortest run's length"):
        quiet(
            lambda fixed: Run(start, advance, lengths[fixed["name"]]),
            grid,
            halving=Halving("loss", rungs),
        )

"""Memory that runs out: layouts are halved until they fit, and what is done is kept."""

import itertools

import jax
import pytest
from sweep_directories import (
    BOTH,
    compiling_once,  # noqa: F401  a fixture
    layouts,
    whole_sweeps,  # noqa: F401  a fixture
)
from sweep_program import GRID, differing, go

from adamw_jax.sweep import Layout, tune, work

OUT = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes."


@pytest.fixture
def small_memory(monkeypatch):
    """Lets programs of more than some lanes run out of memory, in one of their steps."""

    def install(lanes, step, calls=0, message=OUT):
        left = itertools.count(-calls)

        def failing(layout):
            # Only after so many calls: what else is on the device may grow.
            if layout.lanes * layout.rounds > lanes and next(left) >= 0:
                raise jax.errors.JaxRuntimeError(message)

        def in_step(name, compile_):
            def compiling(variant, machine, layout, *advance):
                if step == "compiling" and name == "advance":
                    failing(layout)
                compiled = compile_(variant, machine, layout, *advance)

                def called(*args):
                    failing(layout)
                    return getattr(compiled, name)(*args)

                return compiled._replace(**{name: called}) if step == name else compiled

            return compiling

        for name, compile_ in [("start", "compile_variant"), ("advance", "compile_advance")]:
            monkeypatch.setattr(work, compile_, in_step(name, getattr(work, compile_)))

    return install


@BOTH
@pytest.mark.parametrize("step", ["compiling", "start", "advance"])
@pytest.mark.parametrize(("told", "fits"), [((8, 1), (2, 1)), ((1, 4), (1, 2))])
def test_what_is_out_of_memory_is_halved(told, fits, step, halving, small_memory, whole, tmp_path):
    small_memory(fits[0] * fits[1], step)
    results = go(tmp_path, layout=told, halving=halving)
    assert {result.lanes for result in results} == {fits[0]}
    assert [lanes for lanes, _ in layouts(tmp_path)] == [fits[0]] * 2
    assert differing(results, whole(layout=fits, halving=halving)) == []
    assert differing(go(layout=told, halving=halving), results) == []


@pytest.mark.parametrize("step", ["compiling", "start", "advance"])
def test_a_measured_layout_is_one_that_fits(step, small_memory, tmp_path):
    small_memory(2, step)
    results = go(tmp_path, layout=None)
    assert len(results) == len(GRID) and {result.lanes for result in results} <= {1, 2}
    assert differing(results, go(layout=(results[0].lanes, 1))) == []


def test_runs_before_the_memory_went_out_are_kept(small_memory, tmp_path):
    lone, paired = go(layout=(1, 1)), go(layout=(2, 1))
    small_memory(1, "advance", calls=15)
    results = go(tmp_path, layout=(2, 1))
    assert [result.lanes for result in results] == [2] * 16 + [1] * 16
    assert layouts(tmp_path) == [[2, 1], [1, 1]]
    assert differing(results, [*paired[:16], *lone[16:]]) == []


@pytest.mark.parametrize("step", ["compiling", "start", "advance"])
def test_a_single_run_that_does_not_fit_is_a_memory_error(step, small_memory, tmp_path):
    small_memory(0, step)
    with pytest.raises(MemoryError, match="a single run does not fit"):
        go(tmp_path, layout=(4, 1))


@pytest.mark.parametrize("step", ["compiling", "start", "advance"])
@pytest.mark.parametrize("layout", [(4, 1), None], ids=["told", "measured"])
def test_other_errors_of_jax_come_through(layout, step, small_memory, tmp_path):
    small_memory(0, step, message="INTERNAL: the device is on fire")
    with pytest.raises(jax.errors.JaxRuntimeError, match="on fire"):
        go(tmp_path, layout=layout)


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize(
    "told", [(8, 1), pytest.param(None, marks=pytest.mark.slow)], ids=["told", "measured"]
)
def test_a_layout_fits_the_memory(told, lanes, monkeypatch, tmp_path):
    need = {}
    compile_variant = work.compile_variant

    def noted(variant, machine, layout, *advance):
        program = compile_variant(variant, machine, layout, *advance)
        need[layout] = program.bytes
        return program

    monkeypatch.setattr(work, "compile_variant", noted)
    go(grid=GRID[:1], layout=(lanes, 1))
    room = need.pop(Layout(lanes, 1))
    monkeypatch.setattr(tune, "available_bytes", lambda machine: room)
    results = go(tmp_path, layout=told)
    assert told is None or max(need.values()) > room  # some were too large
    for result in results:
        assert result.lanes == lanes if told else result.lanes <= lanes
    assert {lanes for lanes, _ in layouts(tmp_path)} == {result.lanes for result in results}
    assert differing(results, go(layout=(results[0].lanes, 1))) == []


@pytest.mark.parametrize("layout", [(8, 1), None], ids=["told", "measured"])
def test_no_memory_is_a_memory_error(layout, monkeypatch, tmp_path):
    monkeypatch.setattr(tune, "available_bytes", lambda machine: 100)
    with pytest.raises(MemoryError, match="a single run does not fit"):
        go(tmp_path, layout=layout)

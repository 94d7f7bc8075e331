"""Runs that end before the others: by divergence, as `watch` has it, or by `until`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sweep_counting import count, counting, quiet, same, start_counting

from adamw_jax.sweep import Layout, Run, product


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

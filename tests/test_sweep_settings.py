"""How a row's settings reach the run: as numbers, as its key, or compiled in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sweep_counting import count, counting, quiet, start_counting

from adamw_jax.sweep import Layout, Run, product


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_seed_makes_the_key_that_jax_makes_of_it(seed):
    run = Run(lambda h, key, d: key, lambda key, d: (key, jax.random.key_data(key)), 1)
    (result,) = quiet(run, [{"seed": seed}])
    np.testing.assert_array_equal(result.final("metric"), jax.random.key_data(jax.random.key(seed)))


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

"""A run of a few sums, which compiles in no time and needs no network; and ways to train runs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax.sweep import Layout, Run, sweep


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
    assert one.status == other.status, (one.status, other.status)

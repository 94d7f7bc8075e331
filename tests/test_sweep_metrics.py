"""What a run may measure: metrics in any structure, of any real type, and whole curves."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sweep_counting import alone, count, quiet, start_counting

from adamw_jax.sweep import Layout, Result, Run, product, to_table


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

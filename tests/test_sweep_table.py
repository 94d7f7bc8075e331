"""The table of a sweep: every kind of setting and metric, and who reads it."""

import duckdb
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from sweep_program import differing

from adamw_jax.sweep import Layout, Run, product, sweep, to_table
from adamw_jax.sweep.grid import normalized
from adamw_jax.sweep.table import COLUMNS, from_table

SETTINGS = {
    "integer": [1, 2, 3],
    "large": [0, 2**24 + 1, 2**31 - 1],
    "real": [0.1, 1e-30, float("inf")],
    "mixed": [1, 2.5, 3],
    "flag": [True, False, True],
    "word": ["a", "b, c", 'd"'],
    "word_or_none": ["a", None, "b"],
    "flag_or_none": [True, None, False],
    "none": [None, None, None],
    "pair": [(1, 2.5), ("x", None), (True, (1, 2))],
    "number_or_word": [1, "1", 2.5],
    "number_or_none": [0.5, None, 1],
}
# As they are in the table.
ENCODED = SETTINGS | {
    "pair": ["[1, 2.5]", '["x", null]', "[true, [1, 2]]"],
    "number_or_word": ["1", '"1"', "2.5"],
    "number_or_none": ["0.5", "null", "1"],
}
ROWS = [
    dict(zip(SETTINGS, values, strict=True)) | {"seed": seed}
    for values in zip(*SETTINGS.values(), strict=True)
    for seed in (0, 5)
]
METRICS = ["count", "flags", "infinite", "matrix", "undefined", "vector", "zero"]


def of_all_kinds(static):
    def start(numbers, key, data):
        del numbers, data
        return jax.random.normal(key, (2, 3)), jnp.zeros((), jnp.int32)

    def advance(state, data):
        del data
        matrix, count = state
        metrics = {
            "vector": matrix[:, 1],
            "matrix": matrix.at[0, 0].set(jnp.nan),
            "count": count,
            "flags": matrix[0] > 0,
            "undefined": jnp.float32(jnp.nan),
            "infinite": jnp.float32(-jnp.inf),
            "zero": jnp.float32(-0.0),
        }
        return (matrix * 2, count + 1), metrics

    return Run(start, advance, 2 + len(static["word"]))  # so that they are not equally long


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Results with settings and metrics of every kind, and their directory."""
    output = tmp_path_factory.mktemp("kinds")
    # 3 to 6 advances; watching a count, which never diverges.
    with_all = {"layout": Layout(), "watch": ["count"], "progress": None}
    return sweep(of_all_kinds, ROWS, output=output, **with_all), output


def same(ours, theirs):
    """Whether two results are equal, NaN to NaN and with their types."""
    assert ours.metrics.keys() == theirs.metrics.keys()
    arrays = {"advance": (ours.advance, theirs.advance)}
    arrays |= {name: (x, theirs.metrics[name]) for name, x in ours.metrics.items()}
    for name, (x, y) in arrays.items():
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes()), name
    assert ours._replace(advance=0, metrics=0) == theirs._replace(advance=0, metrics=0)


def test_results_survive_the_table(kinds):
    results, output = kinds
    for table in (to_table(results), pq.read_table(output / "results.parquet")):
        found = from_table(table, normalized(ROWS)).results()
        for ours, theirs in zip(found, results, strict=True):
            same(ours, theirs)


def test_the_table_has_a_row_for_every_advance_and_its_columns(kinds):
    results, output = kinds
    table = pq.read_table(output / "results.parquet")
    assert table.column_names[:2] == ["run", "seed"]
    assert set(table.column_names) == {*COLUMNS, *SETTINGS, "seed", *METRICS}
    assert len(set(table.column_names)) == len(table.column_names)
    assert table["run"].to_pylist() == [r.run for r in results for _ in r.advance]
    assert table["advance"].to_pylist() == [i for r in results for i in r.advance]
    assert {len(result.advance) for result in results} == {3, 4, 6}
    seconds = {r.run: r.seconds for r in results}
    assert table["seconds"].to_pylist() == [seconds[run] for run in table["run"].to_pylist()]
    assert set(table["jax_version"].to_pylist()) == {jax.__version__}


def plain(value):
    """A value of any library as Python's own; NaN in words, since it equals nothing."""
    if isinstance(value, list | tuple | np.ndarray | pl.Series):
        return [plain(x) for x in value]
    if isinstance(value, np.generic):
        value = value.item()
    return repr(value) if isinstance(value, float) else value


def with_pandas(path):
    frame = pd.read_parquet(path)
    # pandas has no None in columns of strings.
    words = {name for name in frame if isinstance(frame[name].dtype, pd.StringDtype)}
    return {
        name: [None if name in words and pd.isna(x) else x for x in frame[name]] for name in frame
    }


def with_polars(path):
    return pl.read_parquet(path).to_dict(as_series=False)


def with_duckdb(path):
    relation = duckdb.sql(f"SELECT * FROM read_parquet('{path}')")
    return dict(zip(relation.columns, zip(*relation.fetchall(), strict=True), strict=True))


def with_arrow(path):
    return pq.read_table(path).to_pydict()


@pytest.mark.parametrize("read", [with_pandas, with_polars, with_duckdb, with_arrow])
def test_every_reader_sees_the_same_values(read, kinds):
    results, output = kinds
    found = read(output / "results.parquet")
    for name in METRICS:
        values = [row for result in results for row in result.metrics[name]]
        assert plain(list(found[name])) == plain(values), name
    for name, values in {**ENCODED, "seed": None}.items():
        for run, value in zip(found["run"], found[name], strict=True):
            told = ROWS[run]["seed"] if name == "seed" else values[run // 2]
            # In a column of reals integers are reals; else types are kept, too.
            told = float(told) if name == "mixed" else told
            assert (plain(value), type(plain(value))) == (plain(told), type(plain(told))), name


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int16", "int32", "float16", "float32", "bfloat16"]
)
def test_a_metric_of_any_real_type_is_kept(dtype, tmp_path):
    run = Run.whole(lambda h, key, data: {"metric": (10 * h["x"]).astype(dtype)})
    grid = product(x=[0.0, 0.125, 1.0])
    results = sweep(run, grid, output=tmp_path, layout=Layout(), progress=None)
    assert [r.final("metric") for r in results] == [np.asarray(10 * r["x"], dtype) for r in grid]
    assert differing(results, sweep(run, grid, layout=Layout(), progress=None)) == []


@pytest.mark.parametrize(
    "metrics, told",
    [
        ({"a": {"loss": 1.0}, "b": {"loss": 1.0, "more": 2.0}}, "'more' is not there and float32"),
        ({"a": {"loss": 1.0, "more": 2.0}, "b": {"loss": 1.0}}, "'more' is float32.* and not th"),
        ({"a": {"w": np.ones(2)}, "b": {"w": np.ones(3)}}, r"'w' is float32\[2\] and float32\[3\]"),
    ],
)
def test_programs_of_one_table_have_the_same_metrics(metrics, told, tmp_path):
    """In memory they need not; the table says so before anything is trained."""

    def run(fixed):
        made = jax.tree.map(jnp.float32, metrics[fixed["kind"]])
        return Run.whole(lambda h, key, data: made)

    grid, layout = product(kind=["a", "b"]), Layout()
    with pytest.raises(ValueError, match=told):
        sweep(run, grid, output=tmp_path, layout=layout, progress=False)
    assert list(tmp_path.iterdir()) == []
    results = sweep(run, grid, layout=layout, progress=False)
    assert [set(r.metrics) for r in results] == [set(metrics[kind]) for kind in "ab"]
    with pytest.raises(ValueError, match=told):
        to_table(results)

"""A cache directory: many sweeps beside each other, each found again."""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sweep_program import GRID, HALVING, differing, go

from adamw_jax import sweep
from adamw_jax.sweep.directory import Directory
from adamw_jax.sweep.files import digest
from adamw_jax.sweep.manifest import name_of, read

FEW = GRID[:16:5]  # four runs of one program


def heard(**options):
    """A sweep's results, and what its listener was told."""
    told = []
    return go(grid=FEW, progress=told.append, **options), told


def test_each_sweep_has_its_place_and_the_same_one_is_found_again(tmp_path):
    first, told = heard(cache=tmp_path)
    assert {progress.kept for progress in told} == {0}
    (place,) = tmp_path.iterdir()
    assert len(place.name) == 12 and int(place.name, 16) >= 0
    heard(cache=tmp_path, identity={"data": "other"})
    heard(cache=tmp_path, length=3)
    assert len(list(tmp_path.iterdir())) == 3
    again, told = heard(cache=tmp_path)
    assert [(p.kept, p.finished, p.runs, p.doing) for p in told] == [(4, 4, 4, "done")]
    assert differing(again, first) == differing(place, first) == []
    assert len(list(tmp_path.iterdir())) == 3
    for table in tmp_path.glob("*/results.parquet"):
        os.utime(table, (1e9, 2e9 if '"lengths": [\n  3' in manifest_of(table) else 1e9))
    newest = sweep.kept(tmp_path, FEW)
    assert max(len(result.advance) for result in newest) == 3
    assert sweep.kept(tmp_path, FEW, {"data": "other"})
    assert sweep.kept(tmp_path, FEW, {"data": "third"}) is None


def manifest_of(table):
    return table.with_name("sweep.json").read_text()


def test_a_fresh_sweep_is_done_again(tmp_path):
    first, _ = heard(cache=tmp_path)
    again, told = heard(cache=tmp_path, fresh=True)
    assert {progress.kept for progress in told} == {0}
    assert differing(again, first) == []
    assert [r.seconds for r in again] != [r.seconds for r in first]
    (place,) = tmp_path.iterdir()
    assert [r.seconds for r in heard(output=place)[0]] == [r.seconds for r in again]


def test_kept_results_are_found_by_their_grid_alone(tmp_path, compilations):
    assert sweep.kept(tmp_path / "none", FEW) is None
    first = go(cache=tmp_path, grid=FEW)
    go(cache=tmp_path, grid=FEW[:3])
    assert sweep.kept(tmp_path, FEW[:2]) is None
    (manifest,) = (p for p in tmp_path.glob("*/sweep.json") if '"runs": 4' in p.read_text())
    compilations.clear()
    assert differing(sweep.kept(tmp_path, FEW), first) == []
    assert len(sweep.kept(tmp_path, FEW[:3])) == 3
    assert compilations == []
    assert json.loads(manifest.read_text())["programs"]


def test_output_and_cache_are_not_both_given(tmp_path):
    with pytest.raises(ValueError, match="output keeps one sweep .* cache keeps many"):
        go(tmp_path, cache=tmp_path)
    with pytest.raises(ValueError, match="fresh=True deletes what output or cache keeps"):
        go(fresh=True)


def test_a_damaged_table_is_not_taken(tmp_path):
    go(cache=tmp_path, grid=FEW)
    (table,) = tmp_path.glob("*/results.parquet")
    content = bytearray(table.read_bytes())
    content[-20] ^= 1
    table.write_bytes(content)
    with pytest.raises(sweep.StoreError, match="results.parquet is damaged"):
        sweep.kept(tmp_path, FEW)


def test_a_sweep_whose_manifest_is_lost_is_left_out_and_said(tmp_path):
    go(cache=tmp_path, grid=FEW)
    (manifest,) = tmp_path.glob("*/sweep.json")
    manifest.write_text("{}")
    with pytest.warns(UserWarning, match="is left out: it does not describe a sweep"):
        assert sweep.kept(tmp_path, FEW) is None
    with pytest.warns(UserWarning, match="written anew"):
        go(cache=tmp_path, grid=FEW)
    assert len(sweep.kept(tmp_path, FEW)) == len(FEW)


def kept_runs(**options):
    """A sweep in the cache, and how many of its runs others had trained."""
    told = []
    results = go(progress=told.append, **options)
    return results, told[0].kept


def test_rows_that_are_added_are_trained_alone(tmp_path):
    # Rows of both programs, in another order; the largest of the first is not in the second.
    first, more = [*GRID[2:12], *GRID[20:24]], [*GRID[22:8:-1], *GRID[0:9:2]]
    options = {"cache": tmp_path, "layout": (2, 1)}
    before, _ = kept_runs(grid=first, **options)
    results, kept = kept_runs(grid=more, **{**options, "layout": (1, 1)})
    same = [row for row in more if row in first]
    assert 8 < kept == len(same) < len(more)
    # The rest is trained in as many lanes, so that all results are those of one sweep.
    assert differing(results, go(grid=more, layout=(2, 1))) == []
    seconds = {str(result.settings): result.seconds for result in before}
    assert all(r.seconds == seconds[str(r.settings)] for r in results if r.settings in same)
    # A third sweep takes from both.
    assert kept_runs(grid=GRID, **options)[1] == len({str(row) for row in [*first, *more]})


def test_rows_of_another_sweep_are_not_taken(tmp_path):
    go(cache=tmp_path, grid=FEW)
    others = {"length": 3}, {"steps": 1}, {"identity": {"data": "other"}}, {"watch": ["loss"]}
    for options in *others, {"halving": HALVING}, {"fresh": True}:
        assert kept_runs(cache=tmp_path, grid=FEW[:3], **options)[1] == 0, options
    # As floats, the rows are the same numbers but the program is another.
    floats = [{**row, "warm": float(row["warm"])} for row in FEW[:2]]
    assert kept_runs(cache=tmp_path, grid=floats)[1] == 0
    assert kept_runs(cache=tmp_path, grid=FEW[1:])[1] == 3


def test_rows_of_a_sweep_with_halving_are_not_taken(tmp_path):
    go(cache=tmp_path, grid=GRID[:8], halving=HALVING)
    assert kept_runs(cache=tmp_path, grid=GRID[:6])[1] == 0


def test_a_damaged_sweep_is_no_obstacle_to_others(tmp_path):
    go(cache=tmp_path, grid=FEW)
    (table,) = tmp_path.glob("*/results.parquet")
    table.write_bytes(table.read_bytes()[:-9])
    with pytest.warns(UserWarning, match="is left out: .*results.parquet is damaged"):
        assert kept_runs(cache=tmp_path, grid=FEW[:3])[1] == 0


RESULTS = Path(__file__).parents[1] / "docs" / "results"


@pytest.mark.parametrize("cache", sorted(RESULTS.glob("*/sweeps/*")), ids=lambda path: path.name)
def test_the_results_in_the_documentation_are_found(cache):
    (place,) = cache.iterdir()
    manifest = read(Directory(place))
    assert name_of(manifest.description) == place.name
    assert digest((place / "results.parquet").read_bytes()) == manifest.table
    names = list(manifest.description["grid"]["values"])
    columns = pq.read_table(place / "results.parquet", columns=["run", *names]).to_pylist()
    rows = {row.pop("run"): row for row in columns}
    results = sweep.kept(cache, [rows[run] for run in sorted(rows)])
    assert len(results) == manifest.description["grid"]["runs"]
    assert {result.status for result in results} <= {"finished", "diverged"}

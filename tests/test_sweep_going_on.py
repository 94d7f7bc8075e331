"""A sweep goes on where it was: nothing that it keeps is done or measured again."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from sweep_directories import (
    BOTH,
    broken_off,
    brought_to,
    compiling_once,  # noqa: F401  a fixture
    contents,
    layouts,
    names,
    never,
    parts,
    stopping,
    whole_sweeps,  # noqa: F401  a fixture
)
from sweep_program import HALVING, differing, go

from adamw_jax.sweep import Layout, StoreError, tune, work
from adamw_jax.sweep.directory import Directory
from adamw_jax.sweep.files import digest
from adamw_jax.sweep.keeping import Kept
from adamw_jax.sweep.manifest import read


@BOTH
@pytest.mark.parametrize("calls", [1, 2, 15, 28, 45])
def test_an_interrupted_sweep_goes_on_where_it_was(calls, halving, whole, tmp_path, monkeypatch):
    kept = parts(broken_off(tmp_path, calls, halving=halving))
    assert not any(".tmp" in name for name in names(tmp_path))
    done = {(path.name[0], run) for path in kept for run in pq.read_table(path)["run"].to_pylist()}
    assert bool(done) == (calls > 2)
    again, write = set(), Kept.write

    def writes(store, rung, results, states):
        again.update((str(rung), run) for run in results.run.tolist())
        return write(store, rung, results, states)

    monkeypatch.setattr(Kept, "write", writes)
    go(tmp_path, halving=halving)
    assert again and not again & done
    assert differing(tmp_path, whole(halving=halving)) == []


@BOTH
def test_a_finished_sweep_compiles_and_changes_nothing(
    halving, whole, compilations, monkeypatch, tmp_path
):
    brought_to("finished", tmp_path, whole, halving=halving)
    before = contents(tmp_path)
    monkeypatch.setattr(work, "compile_variant", never)
    compilations.clear()
    results = go(tmp_path, halving=halving, layout=None)
    # The functions of both programs are lowered once, to see that they are the same.
    lowered = [event for event in compilations if "jaxpr_to_mlir" in event]
    assert len(lowered) <= 4
    assert not [event for event in compilations if "backend_compile" in event]
    assert differing(results, whole(halving=halving)) == []
    assert contents(tmp_path) == before


def test_a_run_that_is_kept_on_disk_between_rungs_is_the_same(whole):
    table = pq.read_table(whole(halving=HALVING) / "results.parquet").to_pandas()
    complete = pq.read_table(whole() / "results.parquet").to_pandas()
    both = table.merge(complete, on=["run", "advance"], suffixes=("", "_complete"))
    assert len(both) == len(table) < len(complete)
    assert set(table["status"]) == {"finished", "dropped", "diverged"}
    np.testing.assert_array_equal(both["loss"], both["loss_complete"])


# Layouts


@BOTH
def test_a_layout_is_kept_whatever_is_told_later(halving, whole, tmp_path):
    broken_off(tmp_path, 5, layout=(2, 2), halving=halving)
    assert layouts(tmp_path) == [[2, 2], [2, 2]]
    results = go(tmp_path, layout=(1, 1), halving=halving)
    assert {result.lanes for result in results} == {2}
    assert layouts(tmp_path) == [[2, 2], [2, 2]]
    assert differing(results, whole(layout=(2, 2), halving=halving)) == []


def test_a_measured_layout_is_not_measured_again(monkeypatch, tmp_path):
    monkeypatch.setattr(tune, "fastest", lambda *args: Layout(2, 3))
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, layout=None, progress=stopping(3, doing=("training",)))
    assert layouts(tmp_path) == [[2, 3]] * 2
    monkeypatch.setattr(tune, "fastest", never)
    results = go(tmp_path, layout=None)
    assert {result.lanes for result in results} == {2}
    assert layouts(tmp_path) == [[2, 3]] * 2


# Directories of the first format, which had no digests


def of_format_1(directory):
    """Turns a directory into one that the first version wrote."""
    path = directory / "sweep.json"
    content = json.loads(path.read_text())
    del content["digest"], content["table"]
    path.write_text(json.dumps({**content, "format": 1}))
    for file in directory.rglob("*.parquet"):
        plain = pq.read_table(file).replace_schema_metadata(None)
        file.unlink()
        pq.write_table(plain, file, write_page_checksum=True)
        if file.parent.name == "parts":
            name, _, _ = file.stem.rpartition("-")
            file.rename(file.with_stem(f"{name}-{digest(file.read_bytes())}"))


@pytest.mark.parametrize("state", ["finished", "begun"])
def test_a_directory_of_the_first_format_goes_on(state, whole, tmp_path):
    brought_to(state, tmp_path, whole)
    of_format_1(tmp_path)
    with pytest.raises(StoreError, match=r"another sweep: lengths is \[6, 6\] there"):
        go(tmp_path, length=7)
    go(tmp_path)
    assert differing(tmp_path, whole()) == []
    assert read(Directory(tmp_path)).table == digest((tmp_path / "results.parquet").read_bytes())


def test_a_lost_manifest_of_the_first_format_is_not_guessed(tmp_path):
    broken_off(tmp_path, 28)
    of_format_1(tmp_path)
    (tmp_path / "sweep.json").unlink()
    before = contents(tmp_path)
    with pytest.raises(StoreError, match="is missing, .* is not known to be this sweep's"):
        go(tmp_path)
    assert contents(tmp_path) == before

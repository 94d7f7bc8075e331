"""What is damaged or lost in a sweep's directory is noticed and named, and can be made again."""

import contextlib
import json
import random
import re
import warnings

import pytest
from sweep_directories import (
    broken_off,
    brought_to,
    compiling_once,  # noqa: F401  a fixture
    contents,
    edited,
    parts,
    stopping,
    whole_sweeps,  # noqa: F401  a fixture
)
from sweep_program import GRID, HALVING, differing, go

from adamw_jax.sweep import Halving, StoreError
from adamw_jax.sweep.directory import Directory
from adamw_jax.sweep.grid import normalized
from adamw_jax.sweep.keeping import Kept
from adamw_jax.sweep.manifest import read


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path):
    path.write_bytes(b"")


def zeroed(path):
    path.write_bytes(bytes(path.stat().st_size))


def overwritten(path):
    path.write_text("a note")


def turned(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 20 : len(content) // 10] = b"\xa5" * (len(content) // 20)
    path.write_bytes(bytes(content))


DAMAGES = pytest.mark.parametrize("damage", [cut, emptied, zeroed, overwritten, turned])


def check_is_named_and_made_again(path, damage, directory, whole):
    damage(path)
    with pytest.raises(StoreError, match=rf"(?s){re.escape(str(path))} is damaged.*delete it"):
        go(directory)
    path.unlink()
    go(directory)
    assert differing(directory, whole()) == []


@DAMAGES
def test_a_damaged_part_is_named_and_done_again(damage, whole, tmp_path):
    part = parts(broken_off(tmp_path, 28))[1]
    check_is_named_and_made_again(part, damage, tmp_path, whole)


@pytest.mark.parametrize("part", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize(
    ("rungs", "calls"),
    # In the first, second and last rung.
    [((2, 4), 15), ((2, 4), 30), ((2, 4), 45), ((1, 4), 8), ((1, 4), 20), ((1, 4), 29)],
)
def test_a_deleted_part_of_any_rung_is_done_again(rungs, calls, part, whole, tmp_path):
    halving = Halving("loss", rungs)
    parts(broken_off(tmp_path, calls, halving=halving))[part].unlink()
    go(tmp_path, halving=halving)
    assert differing(tmp_path, whole(halving=halving)) == []


@DAMAGES
def test_damaged_states_are_named(damage, tmp_path):
    broken_off(tmp_path, 30, halving=HALVING)
    states = sorted(tmp_path.glob("states/0-*"))
    assert states, "not in the second rung"
    for path in states:
        damage(path)
    with pytest.raises(StoreError, match="states"):
        go(tmp_path, halving=HALVING)


@DAMAGES
def test_a_damaged_table_is_named_and_made_again(damage, whole, tmp_path):
    brought_to("finished", tmp_path, whole)
    check_is_named_and_made_again(tmp_path / "results.parquet", damage, tmp_path, whole)


def flipped(content, places):
    """The content with one bit changed, in turn, at each of the places."""
    for place in places:
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        yield place, bytes(changed)


@pytest.mark.parametrize("file", ["parts/*.parquet", "results.parquet"])
def test_no_flipped_bit_of_results_goes_unnoticed(file, whole, tmp_path):
    """In the data, in the footer and in the metadata alike."""
    brought_to("finished" if file == "results.parquet" else "begun", tmp_path, whole)
    path = next(tmp_path.glob(file))
    content, description = path.read_bytes(), read(Directory(tmp_path)).description
    places = random.Random(0).sample(range(8 * len(content)), 300)
    with Kept(Directory(tmp_path), normalized(GRID), description) as store:

        def all_read():
            return list(store.finished() or store.read(store.parts()))

        all_read()
        for _place, changed in flipped(content, places):
            path.write_bytes(changed)
            with pytest.raises(StoreError, match=f"{re.escape(path.name)} is damaged"):
                all_read()


def test_no_flipped_bit_of_a_manifest_loses_results(whole, tmp_path):
    """It is noticed, or the content means the same; the manifest is then written anew."""
    brought_to("finished", tmp_path, whole, layout=(2, 2))
    path = tmp_path / "sweep.json"
    content, asked = path.read_bytes(), read(Directory(tmp_path))
    for place, changed in flipped(content, random.Random(1).sample(range(8 * len(content)), 300)):
        path.write_bytes(changed)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with Kept(Directory(tmp_path), normalized(GRID), asked.description) as store:
                assert store.manifest == asked, place
        noticed = "".join(str(warning.message) for warning in told)
        assert json.loads(changed_or(changed)) == json.loads(content) or "are kept" in noticed
        assert path.read_bytes() == content, place


def changed_or(content):
    """JSON that equals nothing, where the content is no JSON."""
    try:
        json.loads(content)
    except ValueError:
        return b"null"
    return content


# Manifests


FAULTS = {
    "missing": (lambda path: path.unlink(), "is missing"),
    "no JSON": (lambda path: path.write_text("runs: many"), "is damaged .*JSON"),
    "half": (lambda path: path.write_text('{"format": 2, "grid'), "is damaged .*JSON"),
    "binary": (lambda path: path.write_bytes(b"\xff\x00"), "is damaged .*JSON"),
    "empty": (emptied, "is damaged .*JSON"),
    "zeroed": (zeroed, "is damaged .*JSON"),
    "a list": (lambda path: path.write_text("[]"), "is damaged .*does not describe a sweep"),
    "a number": (lambda path: path.write_text("1"), "is damaged .*does not describe a sweep"),
    "another value": (
        lambda path: path.write_text(path.read_text().replace('"runs": 32', '"runs": 33')),
        "is damaged .*not what was written",
    ),
}


@pytest.mark.parametrize(
    ("fault", "state"),
    [*((fault, "finished") for fault in FAULTS), ("missing", "begun"), ("half", "begun")],
)
def test_a_lost_manifest_is_written_anew_and_all_results_are_kept(fault, state, whole, tmp_path):
    change, told = FAULTS[fault]
    brought_to(state, tmp_path, whole, calls=10, layout=(2, 2))
    manifest, held = contents(tmp_path)["sweep.json"], parts(tmp_path)
    change(tmp_path / "sweep.json")
    with pytest.raises(StoreError, match=f"{told}.* is not known to be this sweep's; nothing was"):
        go(tmp_path, length=7)
    files = len(held) or 1
    with (
        pytest.warns(UserWarning, match=f"{told}.* written anew: the {files} files .* are kept"),
        contextlib.suppress(KeyboardInterrupt),
    ):
        go(tmp_path, layout=(1, 1), progress=stopping(1, doing=("training", "done")))
    assert contents(tmp_path)["sweep.json"] == manifest
    assert set(held) <= set(parts(tmp_path))
    go(tmp_path, layout=(1, 1))
    assert differing(tmp_path, whole(layout=(2, 2))) == []


def test_a_damaged_manifest_beside_no_results_is_named(tmp_path):
    (tmp_path / "sweep.json").write_text("mine")
    with pytest.raises(StoreError, match="sweep.json is damaged .* no results beside it: delete"):
        go(tmp_path)
    assert (tmp_path / "sweep.json").read_text() == "mine"


@pytest.mark.parametrize("layouts", [{"a": [0, 1]}, {"a": None}, {"a": ["4", 1]}, {"a": 3}, [1], 2])
def test_layouts_that_cannot_be_are_damage(layouts, whole, tmp_path):
    brought_to("finished", tmp_path, whole)
    edited(lambda manifest: manifest.update(layouts=layouts))(tmp_path)
    with pytest.warns(UserWarning, match="its layouts are not pairs of integers from 1 on"):
        go(tmp_path)
    assert differing(tmp_path, whole()) == []

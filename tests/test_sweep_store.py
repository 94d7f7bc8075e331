"""A sweep's directory: what kills, full disks, other sweeps and damage do to it."""

import contextlib
import dataclasses
import errno
import functools
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
import warnings

import jax
import numpy as np
import optax
import pyarrow.parquet as pq
import pytest
from flax import nnx
from sweep_program import GRID, HALVING, begin, compiled_once, differing, go

from adamw_jax.sweep import Halving, Layout, Run, StoreError, product, sweep, tune, work
from adamw_jax.sweep.directory import Directory
from adamw_jax.sweep.files import digest
from adamw_jax.sweep.grid import normalized
from adamw_jax.sweep.keeping import Kept
from adamw_jax.sweep.manifest import name_of, read

BOTH = pytest.mark.parametrize("halving", [None, HALVING], ids=["plain", "halving"])


@pytest.fixture(autouse=True, scope="module")
def compiling_once():
    with compiled_once():
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Makes uninterrupted sweeps, one for each set of options."""
    made = {}

    def make(**options):
        key = repr(sorted(options.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("whole")
            go(made[key], **options)
        return made[key]

    return make


def stopping(calls, doing=("compiling", "training")):
    """A listener that raises at its nth call, where the host is between two advances."""
    left = itertools.count(calls - 1, -1)

    def listen(progress):
        if progress.doing in doing and next(left) == 0:
            raise KeyboardInterrupt

    return listen


def broken_off(output, calls, **options):
    """A directory in which a sweep was stopped."""
    with pytest.raises(KeyboardInterrupt):
        go(output, progress=stopping(calls), **options)
    return output


def contents(directory):
    """All bytes of a directory."""
    paths = sorted(directory.rglob("*"))
    return {str(p.relative_to(directory)): p.is_file() and p.read_bytes() for p in paths}


def names(directory):
    return sorted(contents(directory))


def parts(directory):
    return sorted(directory.glob("parts/*.parquet"))


def never(*args):
    raise AssertionError("this need not be done again")


# Kills


class Killed(BaseException):
    """What nothing catches."""


@dataclasses.dataclass
class Kill:
    """Lets files be changed so many times; then nothing more happens, as after a kill."""

    left: float = float("inf")
    opened: set = dataclasses.field(default_factory=set)

    def __call__(self, event, args):
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod")
        writes = event == "open" and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if changes or writes:
            self.left -= 1
            if self.left < 0:
                raise Killed
        # tempfile gives the folder's name to `open`.
        if writes and isinstance(args[0], str) and not os.path.isdir(args[0]):
            self.opened.add(os.path.basename(args[0]))

    def __bool__(self):
        return self.left < 0


@functools.cache
def kill_hook():
    # One for all tests, since Python removes none.
    kill = Kill()
    sys.addaudithook(kill)
    return kill


@pytest.fixture
def killed():
    """Calls a function and kills it before its nth change of a file; whether that came."""
    kill = kill_hook()

    def call(moment, function, *args):
        kill.left, kill.opened = moment, set()
        try:
            with contextlib.suppress(Killed):
                function(*args)
            # A kill may come in the midst of a write, so that nothing is written in its place.
            assert {x for x in kill.opened if not x.startswith((".tmp", ".lock"))} == set()
            return bool(kill)
        finally:
            kill.left = float("inf")

    return call


FEW = GRID[::8]  # four runs, in both programs
TWO = jax.local_devices()[:2]


@pytest.mark.parametrize(
    "halving", [None, pytest.param(HALVING, marks=pytest.mark.slow)], ids=["plain", "halving"]
)
def test_a_kill_at_any_moment_breaks_nothing(halving, killed, tmp_path):
    def run(output):
        return go(output, grid=FEW, halving=halving, devices=TWO)

    expected = run(tmp_path / "whole")
    draw = random.Random(0)
    for moment in itertools.count(step=3 if halving else 1):  # a file takes about five
        output = tmp_path / str(moment)
        if not killed(moment, run, output):
            break
        killed(draw.randrange(30), run, output)
        assert differing(run(output), expected) == [], moment
        assert differing(output, tmp_path / "whole") == [], moment
        assert names(output) == names(tmp_path / "whole"), moment
    assert moment > 30  # it was killed at all


def test_a_kill_while_a_sweep_is_made_fresh_breaks_nothing(killed, whole, tmp_path):
    begun = broken_off(tmp_path / "begun", 30, halving=HALVING)
    for moment in itertools.count(step=2):
        output = tmp_path / str(moment)
        shutil.copytree(begun, output)
        if not killed(moment, claimed_fresh, output):
            break
        if moment % 12 == 0:
            go(output, halving=HALVING)
            assert differing(output, whole(halving=HALVING)) == [], moment
    assert moment > 8
    assert names(output) == [".lock-0", "parts", "states", "sweep.json"]


def claimed_fresh(output):
    description = read(Directory(output)).description
    with Kept(Directory(output), normalized(GRID), description, fresh=True):
        pass


def test_a_run_that_is_kept_on_disk_between_rungs_is_the_same(whole):
    table = pq.read_table(whole(halving=HALVING) / "results.parquet").to_pandas()
    complete = pq.read_table(whole() / "results.parquet").to_pandas()
    both = table.merge(complete, on=["run", "advance"], suffixes=("", "_complete"))
    assert len(both) == len(table) < len(complete)
    assert set(table["status"]) == {"finished", "dropped", "diverged"}
    np.testing.assert_array_equal(both["loss"], both["loss_complete"])


def test_what_a_kill_leaves_behind_is_cleaned(whole, tmp_path):
    broken_off(tmp_path, 28, halving=HALVING)
    for name in (".tmp-1", "parts/.tmp-2", "states/.tmp-3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half of a fi")
    go(tmp_path, halving=HALVING)
    assert names(tmp_path) == names(whole(halving=HALVING))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


SEQUENCES = {
    "one lane": ("--layout", 1, 1),
    "rounds halving": ("--layout", 1, 3, "--devices", 2, "--halving", "--steps", 20),
}


@pytest.mark.slow
@pytest.mark.parametrize("options", SEQUENCES.values(), ids=SEQUENCES)
def test_a_sweep_that_is_killed_again_and_again_ends_as_the_uninterrupted(options, cache, tmp_path):
    process = begin(tmp_path / "whole", *options, cache=cache)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    draw, kills = random.Random(str(options)), 0
    output = tmp_path / "killed"
    while True:
        process = begin(output, *options, "--pause", 0.004 if kills < 4 else 0, cache=cache)
        assert process.stdout.readline() == "ready\n"
        # Small delays, too: they hit the manifest, compiling and the first chunks.
        time.sleep(1.5 * draw.random() ** 2)
        if kills == 4 or process.poll() is not None:
            break
        process.kill()
        process.communicate()
        kills += 1
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert kills >= 2
    assert differing(output, tmp_path / "whole") == []
    assert names(output) == names(tmp_path / "whole")


# Interruptions


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


def test_ctrl_c_leaves_a_directory_that_goes_on(cache, whole, tmp_path):
    process = begin(tmp_path, "--layout", 1, 1, "--pause", 0.01, cache=cache)
    while len(parts(tmp_path)) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert 3 <= len(parts(tmp_path)) < 32
    assert not any(".tmp" in name for name in names(tmp_path))
    # On four devices rather than one.
    go(tmp_path)
    assert differing(tmp_path, whole()) == []


@BOTH
def test_a_finished_sweep_compiles_and_changes_nothing(
    halving, whole, compilations, monkeypatch, tmp_path
):
    shutil.copytree(whole(halving=halving), tmp_path, dirs_exist_ok=True)
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


# Disks


@pytest.fixture
def disk():
    """A disk that holds only files of so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    @contextlib.contextmanager
    def limited(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.mark.parametrize(
    ("file", "halving"),
    [
        ("sweep.json", None),
        ("parts/", None),
        ("parts/", HALVING),
        ("states/", HALVING),
        ("results.parquet", None),
        ("results.parquet", HALVING),
    ],
)
def test_a_full_disk_is_told_and_keeps_what_is_done(file, halving, disk, whole, tmp_path):
    calls = {"parts/": 15, "states/": 15}.get(file)
    if calls:
        broken_off(tmp_path, calls, halving=halving)
    kept = contents(tmp_path)
    room = {"sweep.json": 100, "parts/": 4000, "states/": 1000}.get(file)
    room = room or (whole(halving=halving) / file).stat().st_size - 500  # times vary
    with disk(room), pytest.raises(OSError, match="File too large") as told:
        go(tmp_path, halving=halving)
    assert told.value.errno == errno.EFBIG
    assert str(tmp_path / file) in str(told.value)
    left = contents(tmp_path)
    assert not any(".tmp" in name for name in left)
    assert kept.items() <= left.items()
    go(tmp_path, halving=halving)
    assert differing(tmp_path, whole(halving=halving)) == []


def a_file(path):
    path.write_text("mine")


def a_folder(path):
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("output", a_file),
        ("output/parts", a_file),
        ("output/.lock-0", a_folder),
        ("output/sweep.json", a_folder),
    ],
)
def test_what_is_in_the_way_is_named(name, make, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    make(tmp_path / name)
    with pytest.raises((OSError, StoreError), match=re.escape(str(tmp_path / name))):
        go(tmp_path / "output", grid=FEW)


def test_an_output_is_made_with_the_folders_above_it(tmp_path):
    go(tmp_path / "new" / "and" / "deep", grid=FEW)
    assert differing(tmp_path / "new" / "and" / "deep", go(grid=FEW)) == []


# Other sweeps


def edited(change):
    """Changes a manifest as another version would have written it: with its digest."""

    def edit(directory):
        path = directory / "sweep.json"
        content = json.loads(path.read_text())
        del content["digest"]
        change(content)
        path.write_text(json.dumps({**content, "digest": name_of(content)}))

    return edit


def nothing(directory):
    pass


OTHERS = {
    "values": (nothing, {"grid": [r | {"warm": r["warm"] + 1} for r in GRID]}, "warm"),
    "other types": (nothing, {"grid": [r | {"warm": float(r["warm"])} for r in GRID]}, "grid"),
    "more seeds": (nothing, {"grid": [*GRID, *(r | {"seed": 2} for r in GRID[::2])]}, "seed"),
    "fewer rows": (nothing, {"grid": GRID[:-1]}, "runs is 32 there and 31 here"),
    "more settings": (nothing, {"grid": [r | {"decay": 0.1} for r in GRID]}, "decay"),
    "another order": (nothing, {"grid": GRID[::-1]}, "grid"),
    "length": (nothing, {"length": 7}, r"length.* \[6, 6\] there and \[7, 7\] here"),
    "halving": (nothing, {"halving": HALVING}, "halving is null there"),
    "static": (nothing, {"static": ["warm"]}, "static"),
    "watch": (nothing, {"watch": ["loss"]}, "watch"),
    "identity": (nothing, {"identity": {"data": "sin"}}, 'data is "noise" there and "sin" here'),
    "version of jax": (
        edited(lambda m: m["versions"].update(jax_version="0.0.1")),
        {},
        f'jax_version is "0.0.1" there and "{jax.__version__}" here',
    ),
    "version of the library": (
        edited(lambda m: m["versions"].update(adamw_jax_version="0.0.1")),
        {},
        'adamw_jax_version is "0.0.1" there',
    ),
    "format": (edited(lambda m: m.update(format=3)), {}, "format 3; this version of"),
}  # fmt: skip
IDENTITY = {"data": "noise"}


# The manifest is read before all else.
STATES = [(name, "finished") for name in OTHERS]
STATES += [(name, "begun") for name, (edit, *_) in OTHERS.items() if edit is nothing]


@pytest.mark.parametrize(("name", "state"), STATES)
def test_another_sweep_is_refused_and_nothing_changed(name, state, whole, tmp_path, monkeypatch):
    edit, options, told = OTHERS[name]
    if state == "finished":
        shutil.copytree(whole(identity=IDENTITY), tmp_path, dirs_exist_ok=True)
    else:
        broken_off(tmp_path, 28, identity=IDENTITY)
    edit(tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(work, "compile_variant", never)
    with pytest.raises(StoreError, match=re.escape(str(tmp_path)) + f".*{told}"):
        go(tmp_path, **{"identity": IDENTITY, **options})
    assert contents(tmp_path) == before


def test_a_table_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "results.parquet").write_bytes(b"of another program")
    with pytest.raises(
        StoreError, match="results.parquet is not known to be this sweep's; nothing"
    ):
        go(tmp_path)
    # The lock must be taken before anything is looked at.
    assert set(names(tmp_path)) - {".lock-0"} == {"results.parquet"}


def test_an_identity_may_hold_what_json_can(tmp_path):
    identity = {"list": [1, 2.5, None], "tuple": (1, 2), "nested": {"limit": float("inf")}}
    results = go(tmp_path, grid=FEW, identity=identity)
    assert differing(go(tmp_path, grid=FEW, identity=identity), results) == []


# Damage


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


@DAMAGES
def test_a_damaged_part_is_named_and_done_again(damage, whole, tmp_path):
    path = parts(broken_off(tmp_path, 28))[1]
    damage(path)
    with pytest.raises(StoreError, match=rf"(?s){re.escape(str(path))} is damaged.*delete it"):
        go(tmp_path)
    path.unlink()
    go(tmp_path)
    assert differing(tmp_path, whole()) == []


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
def test_a_damaged_table_is_named_and_made_again(damage, whole, tmp_path):
    shutil.copytree(whole(), tmp_path, dirs_exist_ok=True)
    path = tmp_path / "results.parquet"
    damage(path)
    with pytest.raises(StoreError, match=rf"(?s){re.escape(str(path))} is damaged.*delete it"):
        go(tmp_path)
    path.unlink()
    go(tmp_path)
    assert differing(tmp_path, whole()) == []


def flipped(content, places):
    """The content with one bit changed, in turn, at each of the places."""
    for place in places:
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        yield place, bytes(changed)


@pytest.mark.parametrize("file", ["parts/*.parquet", "results.parquet"])
def test_no_flipped_bit_of_results_goes_unnoticed(file, whole, tmp_path):
    """In the data, in the footer and in the metadata alike."""
    if file == "results.parquet":
        shutil.copytree(whole(), tmp_path, dirs_exist_ok=True)
    else:
        broken_off(tmp_path, 28)
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
    shutil.copytree(whole(layout=(2, 2)), tmp_path, dirs_exist_ok=True)
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
    if state == "finished":
        shutil.copytree(whole(layout=(2, 2)), tmp_path, dirs_exist_ok=True)
    else:
        broken_off(tmp_path, 10, layout=(2, 2))
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
    shutil.copytree(whole(), tmp_path, dirs_exist_ok=True)
    edited(lambda manifest: manifest.update(layouts=layouts))(tmp_path)
    with pytest.warns(UserWarning, match="its layouts are not pairs of integers from 1 on"):
        go(tmp_path)
    assert differing(tmp_path, whole()) == []


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
    if state == "finished":
        shutil.copytree(whole(), tmp_path, dirs_exist_ok=True)
    else:
        broken_off(tmp_path, 28)
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


@DAMAGES
def test_damaged_states_are_named(damage, tmp_path):
    broken_off(tmp_path, 30, halving=HALVING)
    states = sorted(tmp_path.glob("states/0-*"))
    assert states, "not in the second rung"
    for path in states:
        damage(path)
    with pytest.raises(StoreError, match="states"):
        go(tmp_path, halving=HALVING)


def test_states_that_a_kill_left_without_their_results_are_not_gone_on_from(whole, tmp_path):
    broken_off(tmp_path, 30, halving=HALVING)
    for path in sorted(tmp_path.glob("states/0-*")):
        arrays = dict(np.load(path))
        others = {name: np.zeros_like(x) for name, x in arrays.items() if name != "runs"}
        for name in "000000000000", "ffffffffffff":
            other = path.with_stem(f"{path.stem.rpartition('-')[0]}-{name}")
            np.savez(other, runs=arrays["runs"], **others)
    go(tmp_path, halving=HALVING)
    assert differing(tmp_path, whole(halving=HALVING)) == []


# Several processes


def test_a_second_sweep_is_refused_while_the_first_goes_on(tmp_path):
    told = []

    def again(progress):
        with pytest.raises(StoreError, match=f"another process .* {tmp_path}; wait for it, or"):
            go(tmp_path, grid=FEW)
        told.append(progress.doing)

    results = go(tmp_path, grid=FEW, progress=again)
    assert set(told) == {"compiling", "training", "done"}
    assert differing(results, go(grid=FEW)) == []


@pytest.mark.slow
def test_of_three_processes_at_once_one_does_the_work(cache, whole, tmp_path):
    started = [
        begin(tmp_path / "output", "--layout", 1, 1, "--pause", 0.02, cache=cache) for _ in range(3)
    ]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in started]
    assert [code for _, code in ends].count(0) >= 1
    for error, code in ends:
        assert code == 0 or "StoreError: another process is writing into" in error
    assert differing(tmp_path / "output", whole()) == []
    assert names(tmp_path / "output") == names(whole())


# Layouts


def layouts(directory):
    return list(json.loads((directory / "sweep.json").read_text())["layouts"].values())


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


OUT = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes."


@pytest.fixture
def small_memory(monkeypatch):
    """Lets programs of more than some lanes run out of memory, in one of their steps."""

    def install(lanes, step, calls=0, message=OUT):
        compile_variant, left = work.compile_variant, itertools.count(-calls)

        def compile_(variant, machine, layout, *advance):
            def failing(*args):
                # Only after so many calls: what else is on the device may grow.
                if layout.lanes * layout.rounds > lanes and next(left) >= 0:
                    raise jax.errors.JaxRuntimeError(message)

            if step == "compiling":
                failing()
            program = compile_variant(variant, machine, layout, *advance)

            def started(*args):
                failing()
                return program.start(*args)

            def advanced(*args):
                failing()
                return program.advance(*args)

            return program._replace(
                **{"compiling": {}, "start": {"start": started}, "advance": {"advance": advanced}}[
                    step
                ]
            )

        monkeypatch.setattr(work, "compile_variant", compile_)

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


# Programs


def scaled(factor):
    def train(h, key, data):
        return {"loss": factor * h["rate"] * data.sum() + jax.random.uniform(key)}

    return Run.whole(train)


def test_another_program_or_other_data_is_refused_and_the_same_one_made_anew_is_not(tmp_path):
    grid, data = product(rate=[1.0, 2.0]), np.arange(3.0, dtype=np.float32)
    layout = Layout(1, 1)

    def go_on(run, data):
        return sweep(run, grid, data, output=tmp_path, layout=layout, progress=False)

    first = go_on(scaled(3.0), data)
    before = contents(tmp_path)
    with pytest.raises(StoreError, match="another sweep: programs is"):
        go_on(scaled(4.0), data)
    with pytest.raises(StoreError, match="another sweep: data is"):
        go_on(scaled(3.0), data + 1)
    assert contents(tmp_path) == before
    again = go_on(scaled(3.0), data)
    assert [r.final("loss") for r in again] == [r.final("loss") for r in first]


def test_a_function_that_is_called_callback_is_known_all_the_same(tmp_path):
    def run(factor):
        @jax.jit
        def loss_callback(x):
            return factor * x

        return Run.whole(lambda h, key, data: {"loss": loss_callback(h["rate"])})

    sweep(run(1.0), product(rate=[1.0]), output=tmp_path, progress=False)
    with pytest.raises(StoreError, match="another sweep: programs is"):
        sweep(run(2.0), product(rate=[1.0]), output=tmp_path, progress=False)


def test_a_call_that_failed_does_not_claim_the_directory(tmp_path):
    with pytest.raises(ValueError, match="watch names the metric 'los'"):
        go(tmp_path, watch=["los"])
    go(tmp_path, watch=["loss"])
    assert differing(tmp_path, go(watch=["loss"])) == []


def test_what_others_keep_below_the_directory_is_left_alone(tmp_path):
    others = tmp_path / "other" / ".tmp-mine"
    others.parent.mkdir()
    others.write_text("mine")
    go(tmp_path)
    assert others.read_text() == "mine"


def test_a_program_with_callbacks_goes_on(tmp_path):
    """Its text holds addresses, which are other ones in every process."""
    run = Run.whole(
        lambda h, key, data: jax.debug.callback(print, h["rate"]) or {"loss": h["rate"]}
    )
    for _ in range(2):
        results = sweep(run, product(rate=[1.0]), output=tmp_path, progress=False)
    assert results[0].status == "finished"
    assert json.loads((tmp_path / "sweep.json").read_text())["programs"] == ["has callbacks"]


def test_a_state_that_holds_functions_is_refused_with_advice():
    def start(h, key, data):
        model = nnx.Linear(2, 1, rngs=nnx.Rngs(key))
        return h, model, nnx.Optimizer(model, optax.sgd(h["rate"]), wrt=nnx.Param)

    run = Run(start, lambda state, data: (state, {"loss": state[0]["rate"]}), 1)
    with pytest.raises(ValueError, match="such as nnx.Optimizer, does that: keep its arrays"):
        sweep(run, product(rate=[0.1]), layout=Layout(1, 1), progress=False)

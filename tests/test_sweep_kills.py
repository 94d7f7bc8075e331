"""A sweep that is killed at any moment, or begun twice at once, ends as the uninterrupted."""

import contextlib
import dataclasses
import functools
import itertools
import os
import random
import shutil
import signal
import sys
import time

import jax
import numpy as np
import pytest
from sweep_directories import (
    FEW,
    broken_off,
    compiling_once,  # noqa: F401  a fixture
    names,
    parts,
    whole_sweeps,  # noqa: F401  a fixture
)
from sweep_program import GRID, HALVING, begin, differing, go

from adamw_jax.sweep.directory import Directory
from adamw_jax.sweep.grid import normalized
from adamw_jax.sweep.keeping import Kept
from adamw_jax.sweep.manifest import read

TWO = jax.local_devices()[:2]


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


def test_what_a_kill_leaves_behind_is_cleaned(whole, tmp_path):
    broken_off(tmp_path, 28, halving=HALVING)
    for name in (".tmp-1", "parts/.tmp-2", "states/.tmp-3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half of a fi")
    go(tmp_path, halving=HALVING)
    assert names(tmp_path) == names(whole(halving=HALVING))


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


# Processes


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

"""Directories of the small sweep, whole and broken off: how they are made, read and edited."""

import itertools
import json
import shutil

import pytest
from sweep_program import GRID, HALVING, compiled_once, go

from adamw_jax.sweep.manifest import name_of

FEW = GRID[::8]  # four runs, in both programs
BOTH = pytest.mark.parametrize("halving", [None, HALVING], ids=["plain", "halving"])
WHOLE = {}  # the directories of uninterrupted sweeps, which all modules share


@pytest.fixture(autouse=True, scope="module")
def compiling_once():
    with compiled_once():
        yield


@pytest.fixture(name="whole", scope="module")
def whole_sweeps(tmp_path_factory):
    """Makes uninterrupted sweeps, one for each set of options."""

    def make(**options):
        key = repr(sorted(options.items()))
        if key not in WHOLE:
            WHOLE[key] = tmp_path_factory.mktemp("whole")
            go(WHOLE[key], **options)
        return WHOLE[key]

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


def brought_to(state, directory, whole, calls=28, **options):
    """A directory in which a sweep is "finished", or "begun" and stopped at some call."""
    if state == "finished":
        shutil.copytree(whole(**options), directory, dirs_exist_ok=True)
    else:
        broken_off(directory, calls, **options)


def contents(directory):
    """All bytes of a directory."""
    paths = sorted(directory.rglob("*"))
    return {str(p.relative_to(directory)): p.is_file() and p.read_bytes() for p in paths}


def names(directory):
    return sorted(contents(directory))


def parts(directory):
    return sorted(directory.glob("parts/*.parquet"))


def layouts(directory):
    return list(json.loads((directory / "sweep.json").read_text())["layouts"].values())


def edited(change):
    """Changes a manifest as another version would have written it: with its digest."""

    def edit(directory):
        path = directory / "sweep.json"
        content = json.loads(path.read_text())
        del content["digest"]
        change(content)
        path.write_text(json.dumps({**content, "digest": name_of(content)}))

    return edit


def never(*args):
    raise AssertionError("this need not be done again")

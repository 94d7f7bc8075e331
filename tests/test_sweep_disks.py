"""Full disks, what is in the way of a sweep's directory, and what others keep there."""

import contextlib
import errno
import re
import resource

import pytest
from sweep_directories import (
    FEW,
    broken_off,
    compiling_once,  # noqa: F401  a fixture
    contents,
    whole_sweeps,  # noqa: F401  a fixture
)
from sweep_program import HALVING, differing, go

from adamw_jax.sweep import StoreError


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


def test_what_others_keep_below_the_directory_is_left_alone(tmp_path):
    others = tmp_path / "other" / ".tmp-mine"
    others.parent.mkdir()
    others.write_text("mine")
    go(tmp_path)
    assert others.read_text() == "mine"

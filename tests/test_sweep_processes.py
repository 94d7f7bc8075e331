"""One sweep in several processes, which share its output."""

import random
import socket
import time

import pytest
from sweep_program import begin, differing, go

from adamw_jax.sweep import processes

LIMIT = 240


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def together(count, output, *options, cache=None):
    """Starts the processes of one sweep."""
    port = free_port()
    return [begin(output, *options, "--process", port, count, i, cache=cache) for i in range(count)]


def ended(processes):
    """Each one's code and errors."""
    errors = [process.communicate(timeout=LIMIT)[1] for process in processes]
    return [(process.returncode, error) for process, error in zip(processes, errors, strict=True)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, cache):
    """Makes sweeps of one process, one for each set of options."""
    made = {}

    def make(*options):
        if options not in made:
            made[options] = tmp_path_factory.mktemp("alone")
            assert ended(together(1, made[options], *options, cache=cache))[0][0] == 0
        return made[options]

    return make


LAYOUTS = {
    "lanes": ("--layout", 2, 1),
    "rounds": ("--layout", 1, 3, "--halving"),
}
CASES = [(2, "lanes"), pytest.param(4, "rounds", marks=pytest.mark.slow)]


@pytest.mark.parametrize(("count", "layout"), CASES)
def test_several_processes_make_the_table_of_one(count, layout, alone, cache, tmp_path):
    options = LAYOUTS[layout]
    for code, error in ended(together(count, tmp_path, *options, cache=cache)):
        assert code == 0, error
    assert differing(tmp_path, alone(*options)) == []
    left = sorted(path.name for path in tmp_path.rglob("*"))
    locks = [f".lock-{i}" for i in range(count)]
    assert left == [*locks, "results.parquet", "sweep.json"]


@pytest.mark.slow
@pytest.mark.parametrize(("counts", "layout"), [([2, 1], "lanes"), ([1, 3], "rounds")])
def test_a_killed_sweep_goes_on_with_another_number_of_processes(
    counts, layout, alone, cache, tmp_path
):
    options, draw = LAYOUTS[layout], random.Random(0)
    *killed, last = counts
    for count in killed:
        begun = together(count, tmp_path, *options, "--pause", 0.05, cache=cache)
        before = chunks(tmp_path)
        while len(chunks(tmp_path)) <= len(before):
            assert all(process.poll() is None for process in begun), ended(begun)
            time.sleep(0.01)
        time.sleep(draw.random() / 2)
        for process in begun:
            process.kill()
        ended(begun)
        assert not (tmp_path / "results.parquet").exists()  # in the midst of it
    for code, error in ended(together(last, tmp_path, *options, cache=cache)):
        assert code == 0, error
    assert differing(tmp_path, alone(*options)) == []
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".tmp")]


def chunks(directory):
    return list(directory.glob("parts/*.parquet"))


def test_several_processes_need_an_output(monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(ValueError, match="several processes need an output or a cache"):
        go()

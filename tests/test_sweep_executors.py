"""Chunks done elsewhere: by the executor that the page on scale shows, and by others."""

import contextlib
import importlib.util
import itertools
import math
import multiprocessing
import os
import random
import re
import signal
import sys
import threading
import time
from pathlib import Path

import cloudpickle
import jax
import jax.numpy as jnp
import pytest
from sweep_program import GRID, HALVING, differing, go

from adamw_jax.sweep import Layout, Lost, LostRunsError, Run, product, sweep, work

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
FEW = product(nesterov=[False], learning_rate=[0.1], warm=[0], seed=range(32))
HALVED = pytest.mark.parametrize("halving", [None, HALVING], ids=["plain", "halving"])


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The module that the page shows."""
    (code,) = re.findall(r"```python\n(import contextlib\n.*?)```", PAGE.read_text(), re.DOTALL)
    path = tmp_path_factory.mktemp("page") / "shown.py"
    path.write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)  # which spawned processes get, too
        spec = importlib.util.spec_from_file_location("shown", path)
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "shown", module)
        spec.loader.exec_module(module)
        yield module
    assert len(code.splitlines()) < 70


@pytest.fixture(autouse=True)
def no_orphans():
    """After each test, no worker is left."""
    yield
    deadline = time.monotonic() + 10
    while multiprocessing.active_children():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Shuffled:
    """Two workers in this process, each with a copy of the work; the last comes back first."""

    workers = 2

    def __init__(self, spoil=lambda task: None):
        self.spoil = spoil

    @contextlib.contextmanager
    def start(self, work):
        copies = [cloudpickle.loads(cloudpickle.dumps(work)) for _ in range(self.workers)]

        def done(tasks):
            while together := list(itertools.islice(tasks, self.workers)):
                for copy, task in reversed(list(zip(copies, together, strict=False))):
                    yield task, self.spoil(task) or copy(task)

        yield done


def here(**options):
    return go(devices=jax.devices()[:1], **options)


@pytest.mark.slow
def test_processes_whose_workers_are_killed_make_the_table_of_one(page, tmp_path):
    draw, calls, killed = random.Random(0), itertools.count(), []

    def kill(progress):
        if next(calls) in (1, 9, 10, 24):
            victim = draw.choice(multiprocessing.active_children())
            victim.kill()
            victim.join()
            killed.append(victim.pid)

    options = {"layout": (2, 1), "halving": HALVING, "steps": 1000}
    results = go(tmp_path, on=page.Processes(2), tries=99, progress=kill, **options)
    assert len(set(killed)) == 4
    expected = here(**options)
    assert differing(results, expected) == differing(tmp_path, expected) == []


@HALVED
def test_the_order_in_which_chunks_come_back_does_not_matter(halving, tmp_path):
    four = {"layout": (1, 1), "halving": halving}
    expected = go(**four)
    assert differing(go(tmp_path, on=Shuffled(), **four), expected) == []
    assert differing(tmp_path, expected) == []


def test_an_executor_measures_layouts_for_all_of_its_workers():
    results = go(on=Shuffled(), layout=None, grid=FEW[:8], length=1)
    # As few runs for two workers with four devices each: one lane.
    assert {result.lanes for result in results} == {1}


def test_chunks_that_are_too_large_for_their_workers_are_halved(monkeypatch, tmp_path):
    compile_variant = work.compile_variant

    def compile_(variant, machine, layout, *advance):
        program = compile_variant(variant, machine, layout, *advance)
        return program._replace(bytes=10**18) if layout.lanes > 2 else program

    monkeypatch.setattr(work, "compile_variant", compile_)
    results = go(tmp_path, grid=FEW, on=Shuffled(), layout=(4, 1))
    # Two chunks were too large, and the layout was halved once.
    assert {result.lanes for result in results} == {2}
    expected = go(grid=FEW, layout=(2, 1))
    assert differing(results, expected) == differing(tmp_path, expected) == []


def doomed(*seeds):
    """A run that ends its process at these seeds."""

    def start(h, key, data):
        return h["seed_"]

    def end(seed):
        if int(seed) in seeds:
            os._exit(7)

    def advance(seed, data):
        jax.debug.callback(end, seed)
        return seed, {"value": seed}

    return Run(start, advance, 2)


DOOMED = [{"seed_": seed} for seed in range(8)]


@pytest.mark.slow
def test_runs_that_end_their_workers_are_given_up_and_cost_no_others(page, tmp_path):
    options = {"output": tmp_path, "layout": Layout(2), "progress": None, "tries": 2}
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        for told in "its exit code was 7", "in earlier calls":
            with pytest.raises(LostRunsError, match=f"2 runs .* 4, 5: .* 2 times.* {told}") as lost:
                sweep(doomed(5), DOOMED, on=page.Processes(2), **options)
            assert lost.value.runs == [4, 5]
            assert [result.run for result in lost.value.results] == [0, 1, 2, 3, 6, 7]
        # The cause is removed; what the program is cannot be told, since it calls back.
        results = sweep(doomed(), DOOMED, on=page.Processes(1), **{**options, "tries": 3})
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert [int(result.final("value")) for result in results] == list(range(8))


@pytest.mark.parametrize("blame", [True, False])
def test_a_worker_that_is_taken_away_is_not_a_try(blame, tmp_path):
    lost = {}

    def spoil(task):
        name = str(task)
        lost[name] = lost.get(name, 0) + 1
        return Lost("it rained", blame) if lost[name] < 4 and "measuring" not in name else None

    options = {"grid": FEW, "layout": (1, 1), "on": Shuffled(spoil)}
    if blame:
        told = "32 runs .* 0, 1, 2, 3, 4, 5, 6, 7, ...: .* 3 times: it rained"
        with pytest.raises(LostRunsError, match=told):
            go(tmp_path, **options)
    else:
        assert differing(go(tmp_path, **options), go(grid=FEW)) == []


def test_a_worker_that_ends_while_it_measures_ends_the_sweep():
    on = Shuffled(lambda task: Lost("no memory"))
    with pytest.raises(RuntimeError, match="workers ended 3 times while measuring .*: no memory"):
        go(on=on)
    one = Run(lambda h, key, data: h, lambda h, data: (h, {"loss": h["a"]}), length=1)
    with pytest.raises(RuntimeError, match="while measuring layouts: no memory"):
        sweep(one, product(a=[0.0]), on=on)


@pytest.mark.slow
def test_an_error_in_a_worker_comes_through_and_ends_all(page):
    def start(h, key, data):
        return h["x"]

    def advance(x, data):
        def fail(x):
            if x < 3:
                raise ArithmeticError("this run fails")
            return x

        return jax.pure_callback(fail, x, x, vmap_method="sequential"), {"y": x}

    run = Run(start, advance, 1)
    with pytest.raises(jax.errors.JaxRuntimeError, match="this run fails"):
        sweep(run, [{"x": x} for x in (3, 4, 1)], on=page.Processes(2), progress=None)


@pytest.mark.slow
def test_ctrl_c_reaches_a_call_that_waits_and_leaves_no_worker(page):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    pressed = threading.Timer(4, os.kill, (os.getpid(), signal.SIGINT))
    pressed.start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            go(on=page.Processes(2), steps=2_000_000, length=1000)
    finally:
        pressed.cancel()
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 60


def test_progress_comes_from_all_workers():
    heard = []
    go(on=Shuffled(), progress=heard.append)
    shares = [progress.share for progress in heard]
    assert shares == sorted(shares) and shares[-1] == 1 and len(set(shares)) > 6
    assert all(math.isfinite(progress.seconds_left) for progress in heard)
    assert heard[-1].finished == len(GRID)


@pytest.mark.parametrize(
    "options, error, told",
    [
        ({"on": "ray"}, TypeError, "on is an executor, with `start` and `workers`; got 'ray'"),
        ({"on": Shuffled}, TypeError, "on is an executor, .*; got <class"),
        ({"on": Shuffled(), "devices": jax.devices()}, ValueError, "workers use all of theirs"),
        ({"tries": 0}, ValueError, "tries is an integer from 1 on; got 0"),
        ({"tries": True}, ValueError, "got True"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options, error, told):
    with pytest.raises(error, match=told):
        go(**options)


def test_a_worker_with_fewer_devices_says_so():
    one = work.Work([], jnp.zeros(1), None, jax.devices()[:1])
    with pytest.raises(ValueError, match="this worker has 1 devices; .* had 4"):
        one.machine(4)


def test_a_worker_has_the_settings_of_the_one_who_calls():
    theirs = cloudpickle.dumps(work.Work([], None, None))
    with jax.enable_x64(True):
        wide = cloudpickle.dumps(work.Work([], None, None))
    try:
        cloudpickle.loads(wide)
        assert jax.config.jax_enable_x64
    finally:
        cloudpickle.loads(theirs)
    assert not jax.config.jax_enable_x64


def test_a_worker_of_another_version_says_so(monkeypatch):
    ours = cloudpickle.dumps(work.Work([], None, None))
    monkeypatch.setattr(work, "dependencies", lambda: {"jax_version": "0.9"})
    with pytest.raises(RuntimeError, match="this worker's jax_version is 0.9, and the sweep's is"):
        cloudpickle.loads(ours)

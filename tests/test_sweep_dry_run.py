"""What a dry run says is what the sweep then does."""

import contextlib

import jax
import pytest
from sweep_program import GRID, HALVING, data, problem

from adamw_jax.sweep import Layout, Lost, Run, dry_run, sweep, tune, work
from adamw_jax.sweep.plan import Chunk


class Counting:
    """Does tasks here, and keeps those that it did."""

    workers = 1

    def __init__(self):
        self.tasks = []

    @contextlib.contextmanager
    def start(self, work):
        def done(tasks):
            for task in tasks:
                self.tasks.append(task)
                yield task, work(task)

        yield done

    def chunks(self):
        return [task for task in self.tasks if isinstance(task, Chunk)]


@pytest.mark.parametrize("halving", [None, HALVING], ids=["plain", "halving"])
def test_it_tells_the_programs_and_chunks_of_the_sweep(halving):
    options = {"layout": Layout(1, 1), "halving": halving}
    told, done = Counting(), Counting()
    grid = GRID[16:] if halving else GRID  # which of two programs loses more is not known before
    estimate = dry_run(problem(), grid, data(), on=told, **options)
    sweep(problem(), grid, data(), on=done, progress=None, **options)
    assert len(estimate.programs) == (1 if halving else 2)
    assert not told.chunks()
    for program in estimate.programs:
        mine = [task for task in done.chunks() if task.variant == program.settings]
        assert program.chunks == len(mine)
        assert program.runs == len({run for task in mine for run in task.members})
        assert program.layout == mine[0].layout


def test_memory_and_time_come_from_the_compiled_programs(monkeypatch):
    programs = []

    def compile_(*args):
        programs.append(compile_variant(*args)._replace(seconds=2.0))
        return programs[-1]

    compile_variant = work.compile_variant
    monkeypatch.setattr(work, "compile_variant", compile_)
    monkeypatch.setattr(tune, "times_of_advance", lambda program, state: [0.5])
    one = jax.devices()[:1]
    estimate = dry_run(problem(), GRID, data(), layout=Layout(2, 2), devices=one)
    assert [program.bytes for program in estimate.programs] == [p.bytes for p in programs]
    assert all(program.bytes > 0 for program in estimate.programs)
    # Four chunks of four runs make six advances each.
    assert [program.train_seconds for program in estimate.programs] == [4 * 6 * 0.5] * 2
    assert estimate.seconds == 2 * (12 + 2)
    head, first, second, last = str(estimate).splitlines()
    assert head.split() == ["program", "runs", "chunks", "lanes", "×", "rounds", "memory",
                            "compiling", "training"]  # fmt: skip
    assert first.startswith("{'nesterov': False}    16       4           2 × 2  ")
    assert first.endswith(" kB      2.0 s      12 s") and len(first) == len(second) == len(head)
    assert last.startswith("In all about 28 s on 1 × ") and last.endswith((" thread", " threads"))


def test_workers_share_the_chunks_and_each_compiles(monkeypatch):
    class Two(Counting):
        workers = 2

    monkeypatch.setattr(tune, "times_of_advance", lambda program, state: [0.5])
    estimate = dry_run(problem(), GRID, data(), layout=Layout(1, 1), on=Two())
    compiling = sum(program.compile_seconds for program in estimate.programs)
    training = sum(program.train_seconds for program in estimate.programs)
    assert training == 2 * 4 * 6 * 0.5  # chunks of four devices, advances
    assert estimate.seconds == pytest.approx(compiling + training / 2)
    assert "on 2 workers with 4 × " in str(estimate)


def test_a_layout_that_is_too_large_is_told_as_it_will_be(monkeypatch):
    monkeypatch.setattr(tune, "available_bytes", lambda machine: 3000)
    (program,) = dry_run(problem()({"nesterov": False}), FEW, data(), layout=Layout(8)).programs
    assert program.layout.lanes < 8 and program.bytes <= 3000
    monkeypatch.setattr(tune, "available_bytes", lambda machine: 1)
    with pytest.raises(MemoryError, match="a single run does not fit"):
        dry_run(problem()({"nesterov": False}), FEW, data())


FEW = [{"learning_rate": 0.1, "seed": seed} for seed in range(32)]


def test_a_worker_that_ends_says_so():
    class Gone(Counting):
        @contextlib.contextmanager
        def start(self, work):
            yield lambda tasks: ((task, Lost("no memory")) for task in tasks)

    with pytest.raises(RuntimeError, match="workers ended 3 times while measuring .*: no memory"):
        dry_run(problem(), GRID, data(), on=Gone())


def test_what_is_wrong_with_a_run_is_told_as_in_a_sweep():
    with pytest.raises(ValueError, match="start returns None"):
        dry_run(Run(lambda h, key, data: None, lambda state, data: state, 1), FEW)

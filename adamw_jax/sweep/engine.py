"""`sweep`: trains a whole grid of runs."""

import functools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adamw_jax.sweep import processes
from adamw_jax.sweep.chunk import Ends
from adamw_jax.sweep.executors import Executor, Here, Lost, LostRunsError, Outcomes
from adamw_jax.sweep.folder import opened
from adamw_jax.sweep.grid import Row, normalized
from adamw_jax.sweep.halving import Halving, Rung, rungs_of
from adamw_jax.sweep.interrupts import held, released
from adamw_jax.sweep.keeping import Kept
from adamw_jax.sweep.manifest import describe, name_of
from adamw_jax.sweep.plan import SAMPLE, Chunk, Measurement, Plan
from adamw_jax.sweep.program import Layout
from adamw_jax.sweep.progress import Listener, Meter, to_stderr
from adamw_jax.sweep.results import RUNNING, Block, Result, Results
from adamw_jax.sweep.reuse import take_over
from adamw_jax.sweep.run import Run
from adamw_jax.sweep.standing import Standing
from adamw_jax.sweep.store import InMemory, Store
from adamw_jax.sweep.table import check_alike, check_names
from adamw_jax.sweep.variants import Variant, variants
from adamw_jax.sweep.work import TooLarge, Trained, Work


def sweep(
    run: Run | Callable[[Row], Run],
    grid: Sequence[Row],
    data: Any = None,
    *,
    output: str | Path | None = None,
    cache: str | Path | None = None,
    fresh: bool = False,
    static: Sequence[str] = (),
    layout: Layout | None = None,
    halving: Halving | None = None,
    until: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None,
    watch: Sequence[str] | None = None,
    identity: Mapping[str, Any] | None = None,
    devices: Sequence[Any] | None = None,
    on: Executor | None = None,
    tries: int = 3,
    progress: Listener | bool | None = True,
) -> Sequence[Result]:
    """Trains every row of a grid.

    Settings whose values are numbers are data: arrays that the compiled program takes,
    so that one program serves all of them. Other settings (strings, bools, None, tuples)
    and those named in `static` are compiled in, with one program for each combination.

    As long as the number of lanes (`Result.lanes`) is the same, a run's result does not
    depend, to the bit, on its place or on the runs beside it; rounding differs between
    numbers of lanes, and between one device and several.

    Ctrl-C is raised between two advances or compilations, as one KeyboardInterrupt; finished
    chunks are kept.

    With several processes (`jax.distributed`), each makes this call with the same arguments
    and trains its part of the runs on its own devices; `output` or `cache` must then be a
    place that all of them see.

    Args:
      run: what to run; if there are static settings, a function from these to a `Run`.
      grid: rows of settings; see `product`. The key that a run starts with is made from its
        setting `seed`, by default 0; runs with the same seed start with the same key.
      data: a pytree of arrays that every run gets; there is one copy on each device.
      output: directory in which chunks are kept as they finish (this needs pyarrow), or an
        address in an object store, such as "s3://bucket/prefix" (this needs obstore, too). The
        same sweep continues in the same place; a different one is refused.
      cache: directory or address in which each sweep has a folder, named after its grid,
        options, program, data and versions: different sweeps stand side by side, and the same
        one is found again. One that differs from finished ones in its rows alone trains only
        those that are new. At most one of `output` and `cache` may be given.
      fresh: whether to delete first what is kept of this sweep.
      static: names of numeric settings that are compiled in.
      layout: lanes and rounds; by default the layout that is measured as fastest and fits
        into memory. A layout that runs out of memory nevertheless is halved.
      halving: drops the worse runs on the way.
      until: ends runs early: a function from metrics [runs, …] after an advance to
        bool[runs]. A chunk ends when all of its runs have ended.
      watch: metrics in which NaN or infinity means that a run has diverged, which ends it; by
        default all.
      identity: a JSON object that tells this sweep from others of the same grid, program and
        data.
      devices: by default all local ones.
      on: who trains the runs; by default this process. Anything with an `Executor`'s two
        attributes will do.
      tries: how many workers of `on` may end while they train a chunk, such as by a crash; its
        runs are then given up. A kept sweep counts those of all calls.
      progress: a listener, None or False for none; by default a line on stderr.

    Returns:
      A result for each row, in the order of the grid. It is made when it is asked for, so that the
      histories of a kept sweep, however large, need little memory.

    Raises:
      ValueError: the grid, the run or an option is not valid; the message names it.
      TypeError: an argument has the wrong type; the message names it.
      StoreError: another process is writing in the same place, it holds another sweep, or an
        object store cannot be used; finished chunks are kept.
      OSError: the directory cannot be written; finished chunks are kept.
      MemoryError: not even a single run fits into memory.
      LostRunsError: runs were given up; all others are done.
    """
    rows, ends = normalized(grid), Ends(until, watch)
    identity = _checked(layout, halving, identity, devices, progress)
    _check_executor(on, tries, devices)
    _check_place(output, cache, fresh)
    with held():
        found = variants(run, rows, static, data)
        for variant in found:
            check_names(rows[0], variant.metrics)
            ends.check(variant.metrics)
            if halving:
                halving.check(variant.metrics, min(other.run.length for other in found))
        store: Store = InMemory()
        if output is not None or cache is not None:
            check_alike(variant.metrics for variant in found)
            description = describe(
                rows,
                found,
                data,
                static=sorted(static),
                halving=halving and asdict(halving),
                watch=None if watch is None else sorted(watch),
                identity=identity,
            )
            place = opened(cache if cache is not None else output or "")
            place = place.within(name_of(description)) if cache is not None else place
            store = Kept(place, rows, description, fresh)
        with store:
            if isinstance(store, Kept) and cache is not None and halving is None:
                with processes.together("taking over what other sweeps have"):
                    if processes.index() == 0:
                        take_over(store, opened(cache), found)
            meter = Meter(to_stderr() if progress is True else progress or None, len(rows))
            work = Work(found, data, ends, devices)
            with processes.together("placing the data"):
                engine = Engine(rows, found, work, on or Here(meter), store, halving, tries, meter)
            return engine.results(layout)


def _checked(layout: Any, halving: Any, identity: Any, devices: Any, progress: Any) -> Any:
    """Checks the types of arguments; returns the identity as a dictionary."""
    if not isinstance(layout, Layout | None):
        raise TypeError(f"layout is a Layout, such as Layout(lanes=16); got {layout!r}")
    if not isinstance(halving, Halving | None):
        raise TypeError(f"halving is a Halving, such as Halving('loss', (10,)); got {halving!r}")
    if not isinstance(identity, Mapping | None):
        raise TypeError(f"identity is a dictionary; got {identity!r}")
    if not (isinstance(progress, bool | None) or callable(progress)):
        raise TypeError(f"progress is a function that takes a Progress; got {progress!r}")
    if devices is not None and (isinstance(devices, str) or not list(devices)):
        raise ValueError(f"devices is a list of JAX's devices, not empty; got {devices!r}")
    for device in devices or ():
        if not isinstance(device, jax.Device):
            raise TypeError(f"devices is a list of JAX's devices; {device!r} is in it")
    try:
        return json.loads(json.dumps(dict(identity or {})))
    except TypeError as error:
        raise ValueError(f"identity must be JSON: {error}") from error


def _check_executor(on: Any, tries: Any, devices: Any) -> None:
    if not isinstance(tries, int) or isinstance(tries, bool) or tries < 1:
        raise ValueError(f"tries is an integer from 1 on; got {tries!r}")
    if on is None:
        return
    if not (callable(getattr(on, "start", None)) and hasattr(on, "workers")):
        raise TypeError(f"on is an executor, with `start` and `workers`; got {on!r}")
    if devices is not None:
        raise ValueError("devices are those of this process; with on=, workers use all of theirs")
    if processes.count() > 1:
        raise ValueError("with on=, one process makes the call; jax.distributed has joined several")


def _check_place(output: Any, cache: Any, fresh: bool) -> None:
    for name, place in {"output": output, "cache": cache}.items():
        if not isinstance(place, str | Path | None):
            raise TypeError(f"{name} is a directory; got {place!r}")
    if output is not None and cache is not None:
        raise ValueError("output keeps one sweep in its directory, cache keeps many; give one")
    if output is None and cache is None and fresh:
        raise ValueError("fresh=True deletes what output or cache keeps; give one of them")
    if output is None and cache is None and processes.count() > 1:
        raise ValueError("several processes need an output or a cache, where their results meet")


class Engine:
    """Trains what is not yet trained, chunk by chunk.

    Args:
      rows: the grid.
      variants: the runs of each program.
      work: does the tasks.
      executor: has them done.
      store: where results are kept, including those of earlier calls.
      halving: drops the worse runs; None for none.
      tries: how many workers may end while they train a run, before it is given up.
      meter: counts advances and reports progress.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        variants: Sequence[Variant],
        work: Work,
        executor: Executor,
        store: Store,
        halving: Halving | None,
        tries: int,
        meter: Meter,
    ):
        self.rows, self.variants, self.work, self.store = rows, variants, work, store
        self.executor, self.halving, self.tries, self.meter = executor, halving, tries, meter
        self.rungs, self.reasons = rungs_of(halving), dict[int, str]()
        self.standing = Standing(len(rows), len(self.rungs), halving)
        self.here = isinstance(executor, Here)
        self.devices = work.machine().size if self.here else 0
        self.exit = ExitStack()

    def results(self, layout: Layout | None) -> Results:
        """Trains all runs and returns their results; without a layout, the fastest is used."""
        with processes.together("reading what is done"):
            kept = self.store.finished()
        if kept is not None:
            self.store.finish(iter(()))  # a kill may have left parts
            self.meter.expect(len(kept), len(kept), len(kept))
            self.meter.over()
            return kept
        with self.exit:
            return self._results(layout)

    def _results(self, layout: Layout | None) -> Results:
        self._read()
        self._expect()
        self._measure(layout)
        alive = np.ones(len(self.rows), bool)
        for rung in self.rungs:
            with processes.together("training"):
                self._train(rung, alive & self.standing.awaiting(rung))
            self._read()
            self.store.forget(rung.number - 1)
            alive = self.standing.survivors(alive, rung)
        if lost := [i for i in self._given_up() if alive[i] and self.standing.status[i] == RUNNING]:
            done = InMemory()
            done.finish(self._blocks())
            raise LostRunsError(lost, self.reasons.get(lost[0]), self.tries, done.finished() or [])
        with processes.together("writing the table"):
            self.store.finish(self._blocks())
        with processes.together("reading the table"):
            results = self.store.finished()
        assert results is not None
        self.meter.over()
        return results

    def _read(self) -> None:
        """Reads the parts of all processes; none continues before all have read them."""
        with processes.together("reading what is done"):
            new = [part for part in self.store.parts() if part not in self.standing.parts]
            for part, block in zip(new, self.store.read(new), strict=True):
                self.standing.add(part, block)

    def _blocks(self) -> Iterator[Block]:
        """All results; those of variants with other metrics in blocks of their own."""
        alike: dict[str, list[int]] = {}
        for variant in self.variants:
            alike.setdefault(str(variant.metrics), []).extend(variant.members)
        for members in alike.values():
            yield from self.standing.assembled(np.sort(members), self.store.read)

    def _given_up(self) -> list[int]:
        """The runs at which too many workers have ended."""
        return sorted(run for run, tries in self.store.tries.items() if tries >= self.tries)

    def _expect(self) -> None:
        """Tells the meter how many advances there are, and how many of them are done."""
        counts = self.halving.entrants(len(self.rows)) if self.halving else [len(self.rows)]
        advances = sum(
            len(variant.members) * count / len(self.rows) * len(rung.advances(variant.run.length))
            for variant in self.variants
            for rung, count in zip(self.rungs, counts, strict=True)
        )
        ended = int((self.standing.status != RUNNING).sum())
        made = int(self.standing.made.sum())
        self.meter.expect(advances / processes.count(), made / processes.count(), ended)

    def _measure(self, layout: Layout | None) -> None:
        """Gives a layout to each variant that has runs to train and no layout yet."""
        workers = processes.count() if self.here else self.executor.workers
        tasks = []
        for variant in self.variants:
            left = [i for i in variant.members if self.standing.status[i] == RUNNING]
            known = self.store.layouts.get(variant.name)
            if left and (known is None or not self.devices):
                share, rows = math.ceil(len(left) / workers), [self.rows[i] for i in left[:SAMPLE]]
                tasks.append(Measurement(variant.name, tuple(rows), share, known or layout))
        with processes.together("measuring layouts"):
            if processes.index() == 0:
                self._measured(tasks)
        self.store.refresh()

    def _measured(self, tasks: list[Measurement]) -> None:
        """Has measurements made, again if a worker ends."""
        ended = Counter[str]()
        while tasks:
            given, tasks = iter(tasks), []
            for task, found in self._outcomes(given):
                if isinstance(found, Lost):
                    tasks.append(task)
                    ended[task.variant] += found.blame
                    if ended[task.variant] >= self.tries:
                        raise RuntimeError(
                            f"workers ended {self.tries} times while {task}: {found.reason}"
                        )
                    continue
                self.devices = found.devices
                if task.variant not in self.store.layouts:
                    self.store.set_layout(task.variant, found.layout)

    def _train(self, rung: Rung, left: np.ndarray) -> None:
        """Takes runs, bool[runs], through a rung, chunk by chunk."""
        left[self._given_up()] = False
        by_variant = {
            variant.name: processes.own([i for i in variant.members if left[i]])
            for variant in self.variants
        }
        plan = Plan(rung, by_variant, self.rows, self.store, self.devices)
        lengths = {variant.name: variant.run.length for variant in self.variants}
        while plan:
            for chunk, outcome in self._outcomes(self._sent(plan)):
                advances, results = 0, None
                if isinstance(outcome, Trained):
                    results = outcome.results
                    part = self.store.write(rung.number, results, outcome.states)
                    self.standing.add(part, results)
                    advances = len(results.run) * len(rung.advances(lengths[chunk.variant]))
                elif isinstance(outcome, TooLarge):
                    self._halve(chunk)
                    plan.again(chunk)
                elif not self._lost(chunk, outcome):
                    plan.again(chunk)
                self.meter.returned(advances, results)

    def _sent(self, plan: Plan) -> Iterator[Chunk]:
        for chunk in plan.chunks():
            self.meter.sent()
            yield chunk

    def _halve(self, chunk: Chunk) -> None:
        """Halves the layout of a chunk that was too large, unless that has been done."""
        halved, now = chunk.layout.halved(), self.store.layouts[chunk.variant]
        if halved.width(1) < now.width(1):
            self.store.set_layout(chunk.variant, halved)

    def _lost(self, chunk: Chunk, lost: Lost) -> bool:
        """Notes that a worker has ended; returns whether the chunk is given up."""
        if lost.blame:
            self.store.count_try(chunk.members)
            self.reasons |= dict.fromkeys(chunk.members, lost.reason)
        return not set(self._given_up()).isdisjoint(chunk.members)

    @functools.cached_property
    def _does(self) -> Callable[[Iterator[Any]], Outcomes]:
        """Has tasks done. Workers are started when there is a task, and end with the sweep."""
        return self.exit.enter_context(self.executor.start(self.work))

    def _outcomes(self, tasks: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
        """Has tasks done; while others do them, Ctrl-C is raised at once."""
        waiting = nullcontext if self.here else released
        with closing(self._does(tasks)) as outcomes:
            while True:
                with waiting():
                    found = next(outcomes, None)
                if found is None:
                    return
                yield found

"""Brings the plan, the executor and the store of a sweep together."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from typing import Any

import numpy as np

from adamw_jax.sweep import processes
from adamw_jax.sweep.executors import Executor, Here, Lost, LostRunsError, Outcomes, repeated
from adamw_jax.sweep.grid import Row
from adamw_jax.sweep.halving import Halving, Rung, rungs_of
from adamw_jax.sweep.interrupts import released
from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.plan import SAMPLE, Chunk, Measurement, Plan
from adamw_jax.sweep.progress import Meter
from adamw_jax.sweep.results import RUNNING, Block, Results
from adamw_jax.sweep.standing import Standing
from adamw_jax.sweep.store import InMemory, Store
from adamw_jax.sweep.variants import Variant
from adamw_jax.sweep.work import TooLarge, Trained, Work


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
                for task, found in repeated(self._outcomes, tasks, self.tries):
                    self.devices = found.devices
                    if task.variant not in self.store.layouts:
                        self.store.set_layout(task.variant, found.layout)
        self.store.refresh()

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

    def _outcomes(self, tasks: Iterator[Any]) -> Outcomes:
        """Has tasks done; while others do them, Ctrl-C is raised at once."""
        waiting = nullcontext if self.here else released
        with closing(self._does(tasks)) as outcomes:
            while True:
                with waiting():
                    found = next(outcomes, None)
                if found is None:
                    return
                yield found

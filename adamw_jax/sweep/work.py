"""The work of a sweep: what is left, in which order, and where the results go."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from adamw_jax.sweep import processes, tune
from adamw_jax.sweep.chunk import Ends, States, advance_chunk, packed, unpacked
from adamw_jax.sweep.grid import Row
from adamw_jax.sweep.groups import Group, inputs
from adamw_jax.sweep.halving import Halving
from adamw_jax.sweep.lanes import Program, compile_run
from adamw_jax.sweep.layout import Layout, Machine
from adamw_jax.sweep.progress import Meter
from adamw_jax.sweep.results import DROPPED, RUNNING, Result, check_names
from adamw_jax.sweep.store import Memory


class Rung(NamedTuple):
    """A stretch of all runs, between two comparisons.

    Attributes:
      number: from 0.
      first: advances made before it.
      last: advances made after it; None for each run's length.
    """

    number: int
    first: int
    last: int | None


class Work:
    """What the steps of a sweep share.

    Attributes:
      rows: the grid.
      groups: the runs of each program.
      machine: devices and data.
      store: where results go, and what is there.
      halving: drops runs.
      ends: stops runs.
      meter: counts.
    """

    def __init__(
        self,
        *,
        rows: Sequence[Row],
        groups: Sequence[Group],
        machine: Machine,
        store: Memory,
        halving: Halving | None,
        ends: Ends,
        meter: Meter,
    ):
        self.rows, self.groups, self.machine, self.store = rows, groups, machine, store
        self.halving, self.ends, self.meter = halving, ends, meter
        ends_of_rungs = halving.rungs if halving else ()
        firsts = (0, *ends_of_rungs)
        self.rungs = [
            Rung(i, *bounds)
            for i, bounds in enumerate(zip(firsts, (*ends_of_rungs, None), strict=True))
        ]
        self.programs: dict[tuple[str, Layout], Program] = {}

    def results(self, told: Layout | None) -> list[Result]:
        """Does what is not yet done."""
        done, alive = self._known(), set(range(len(self.rows)))
        self._expect(done)
        self._plan(done, told)
        for rung in self.rungs:
            with processes.together("training"):
                for group in self.groups:
                    left = [i for i in group.members if i in alive and _goes_on(done.get(i), rung)]
                    self._advance(group, processes.share(left), rung)
            done = self._known()
            self.store.forget(rung.number - 1)
            if self.halving and rung.last:
                entrants = [done[i] for i in sorted(alive)]
                alive = self.halving.survivors(entrants, rung.last)
        results = [_settled(done[i]) for i in range(len(self.rows))]
        with processes.together("writing the table"):
            self.store.finish(results)
        self.meter.over()
        return results

    def _known(self) -> dict[int, Result]:
        """What all processes have done; none goes on before all know it."""
        with processes.together("reading what is done"):
            return {result.run: result for result in self.store.read()}

    def _expect(self, done: Mapping[int, Result]) -> None:
        """Tells the meter how much there is to do, and how much of that is done."""
        counts = self.halving.entrants(len(self.rows)) if self.halving else [len(self.rows)]
        advances = sum(
            len(group.members) * count / len(self.rows) * len(_advances(group, rung))
            for group in self.groups
            for rung, count in zip(self.rungs, counts, strict=True)
        )
        ended = sum(result.status != RUNNING for result in done.values())
        made = sum(len(result.advance) for result in done.values())
        self.meter.expect(advances / processes.count(), made / processes.count(), ended)

    def _plan(self, done: Mapping[int, Result], told: Layout | None) -> None:
        """Gives a layout to each group that has none and something to do."""
        with processes.together("measuring layouts"):
            for group in self.groups:
                left = [i for i in group.members if i not in done]
                if left and group.name not in self.store.layouts and processes.index() == 0:
                    self.store.set_layout(group.name, told or self._fastest(group, left))
        self.store.refresh()

    def _fastest(self, group: Group, left: Sequence[int]) -> Layout:
        return tune.fastest(
            lambda layout: self._compiled(group, layout),
            -(-len(left) // processes.count()),
            group.run.length,
            self.machine,
            lambda width: inputs(group, self.rows, left[:width], width),
        )

    def _compiled(self, group: Group, layout: Layout) -> Program:
        key = group.name, layout
        if key not in self.programs:
            self.meter.doing("compiling")
            program = compile_run(group.run, group.numbers, self.machine, layout)
            check_names(self.rows[0], program.metrics)
            self.ends.check(program.metrics)
            if self.halving:
                self.halving.check_metric(program.metrics)
            self.programs[key] = program
        return self.programs[key]

    def _advance(self, group: Group, left: Sequence[int], rung: Rung) -> None:
        """Takes runs of a group through a rung, chunk by chunk."""
        program = None
        while left:
            try:
                program = program or self._fitting(group, len(left))
                members = left[: program.width]
                results, states = self._chunk(program, group, members, rung)
            except (jax.errors.JaxRuntimeError, MemoryError) as error:
                if not tune.out_of_memory(error):
                    raise
                failed = program.layout if program else self.store.layouts[group.name]
                self.store.set_layout(group.name, failed.halved())
                program = None
                continue
            self.store.write(rung.number, results, states)
            self.meter.ended(sum(result.status != RUNNING for result in results))
            left = left[len(members) :]

    def _fitting(self, group: Group, runs: int) -> Program:
        """The program for so many runs, of the group's layout or what of it the memory holds."""
        layout = self.store.layouts[group.name].within(runs, self.machine.size)
        program = tune.fitting(lambda lay: self._compiled(group, lay), layout, self.machine)
        if program.layout.lanes < layout.lanes:
            self.store.set_layout(group.name, program.layout)
        return program

    def _chunk(
        self, program: Program, group: Group, members: Sequence[int], rung: Rung
    ) -> tuple[list[Result], States | None]:
        state = program.start(*inputs(group, self.rows, members, program.width))
        if rung.first:
            before = [self.store.state(rung.number - 1, i) for i in members]
            state = packed(before, state)
        advances = _advances(group, rung)
        state, history = advance_chunk(
            program, state, len(members), advances, group.run.length, self.ends, self.meter
        )
        results = [
            Result(
                run=run,
                settings=self.rows[run],
                advance=np.arange(rung.first + 1, rung.first + 1 + count, dtype=np.int32),
                metrics={
                    name: np.stack([metrics[name][lane] for metrics in history.metrics[:count]])
                    for name in program.metrics
                },
                status=history.status[lane],
                lanes=program.layout.lanes,
                device=self.machine.kind,
                seconds=history.seconds / len(members),
                compile_seconds=program.seconds,
            )
            for lane, (run, count) in enumerate(zip(members, history.counts, strict=True))
        ]
        return results, unpacked(state, len(members)) if rung.last else None


def _advances(group: Group, rung: Rung) -> range:
    return range(rung.first, rung.last or group.run.length)


def _goes_on(result: Result | None, rung: Rung) -> bool:
    """Whether a run has yet to make the rung's advances."""
    if result is None:
        return rung.first == 0
    return result.status == RUNNING and len(result.advance) == rung.first


def _settled(result: Result) -> Result:
    return result._replace(status=DROPPED) if result.status == RUNNING else result

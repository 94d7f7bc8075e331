"""`sweep`: trains a whole grid of runs."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adamw_jax.sweep import processes, tune
from adamw_jax.sweep.chunk import Ends, States, advance_chunk, packed, unpacked
from adamw_jax.sweep.grid import Row, normalized
from adamw_jax.sweep.halving import Halving, Rung, rungs_of
from adamw_jax.sweep.interrupts import held
from adamw_jax.sweep.manifest import describe, name_of
from adamw_jax.sweep.program import Layout, Machine, Program, compile_variant
from adamw_jax.sweep.progress import Listener, Meter, to_stderr
from adamw_jax.sweep.results import DROPPED, RUNNING, Result
from adamw_jax.sweep.run import Run
from adamw_jax.sweep.store import InMemory, OnDisk, Store
from adamw_jax.sweep.table import check_alike, check_names
from adamw_jax.sweep.variants import Variant, variants


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
    progress: Listener | bool | None = True,
) -> list[Result]:
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
    directory that all of them see.

    Args:
      run: what to run; if there are static settings, a function from these to a `Run`.
      grid: rows of settings; see `product`. The key that a run starts with is made from its
        setting `seed`, by default 0; runs with the same seed start with the same key.
      data: a pytree of arrays that every run gets; there is one copy on each device.
      output: directory in which chunks are kept as they finish (this needs pyarrow). The
        same sweep continues in the same directory; a different one is refused.
      cache: directory in which each sweep has a subdirectory, named after its grid, options,
        program, data and versions: different sweeps stand side by side, and the same one is
        found again. At most one of `output` and `cache` may be given.
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
      progress: a listener, None or False for none; by default a line on stderr.

    Returns:
      A result for each row, in the order of the grid.

    Raises:
      ValueError: the grid, the run or an option is not valid; the message names it.
      TypeError: an argument has the wrong type; the message names it.
      StoreError: another process is writing to the directory, or it holds another sweep.
      OSError: the directory cannot be written; finished chunks are kept.
      MemoryError: not even a single run fits into memory.
    """
    rows, ends = normalized(grid), Ends(until, watch)
    identity = _checked(layout, halving, identity, devices, progress)
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
            place = Path(cache) / name_of(description) if cache is not None else Path(output or "")
            store = OnDisk(place, rows, description, fresh)
        with store:
            with processes.together("placing the data"):
                machine = Machine.of(devices or jax.local_devices(), data)
            meter = Meter(to_stderr() if progress is True else progress or None, len(rows))
            return Engine(rows, found, machine, store, halving, ends, meter).results(layout)


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
      machine: devices and data.
      store: where results are kept, including those of earlier calls.
      halving: drops the worse runs; None for none.
      ends: what ends a run early.
      meter: counts advances and reports progress.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        variants: Sequence[Variant],
        machine: Machine,
        store: Store,
        halving: Halving | None,
        ends: Ends,
        meter: Meter,
    ):
        self.rows, self.variants, self.machine, self.store = rows, variants, machine, store
        self.halving, self.ends, self.meter = halving, ends, meter
        self.rungs = rungs_of(halving)
        self.programs: dict[tuple[str, Layout], Program] = {}

    def results(self, layout: Layout | None) -> list[Result]:
        """Trains all runs and returns their results; without a layout, the fastest is used."""
        done, alive = self._known(), set(range(len(self.rows)))
        self._expect(done)
        self._plan(done, layout)
        for rung in self.rungs:
            with processes.together("training"):
                for variant in self.variants:
                    left = [i for i in variant.members if i in alive and rung.awaits(done.get(i))]
                    self._advance(variant, processes.own(left), rung)
            done = self._known()
            self.store.forget(rung.number - 1)
            if self.halving and rung.last:
                entrants = [done[i] for i in sorted(alive)]
                alive = self.halving.survivors(entrants, rung.last)
        results = [done[i] for i in range(len(self.rows))]
        results = [r._replace(status=DROPPED) if r.status == RUNNING else r for r in results]
        with processes.together("writing the table"):
            self.store.finish(results)
        self.meter.over()
        return results

    def _known(self) -> dict[int, Result]:
        """The results so far of all processes; none continues before all have read them."""
        with processes.together("reading what is done"):
            return {result.run: result for result in self.store.read()}

    def _expect(self, done: Mapping[int, Result]) -> None:
        """Tells the meter how many advances there are, and how many of them are done."""
        counts = self.halving.entrants(len(self.rows)) if self.halving else [len(self.rows)]
        advances = sum(
            len(variant.members) * count / len(self.rows) * len(rung.advances(variant.run.length))
            for variant in self.variants
            for rung, count in zip(self.rungs, counts, strict=True)
        )
        ended = sum(result.status != RUNNING for result in done.values())
        made = sum(len(result.advance) for result in done.values())
        self.meter.expect(advances / processes.count(), made / processes.count(), ended)

    def _plan(self, done: Mapping[int, Result], layout: Layout | None) -> None:
        """Gives a layout to each variant that has runs to train and no layout yet."""
        with processes.together("measuring layouts"):
            for variant in self.variants:
                left = [i for i in variant.members if i not in done]
                if left and variant.name not in self.store.layouts and processes.index() == 0:
                    self.store.set_layout(variant.name, layout or self._fastest(variant, left))
        self.store.refresh()

    def _fastest(self, variant: Variant, left: Sequence[int]) -> Layout:
        return tune.fastest(
            lambda layout: self._compiled(variant, layout),
            -(-len(left) // processes.count()),
            variant.run.length,
            self.machine,
            lambda width: variant.inputs(self.rows, left[:width], width),
        )

    def _compiled(self, variant: Variant, layout: Layout) -> Program:
        key = variant.name, layout
        if key not in self.programs:
            self.meter.doing("compiling")
            self.programs[key] = compile_variant(variant, self.machine, layout)
        return self.programs[key]

    def _advance(self, variant: Variant, left: Sequence[int], rung: Rung) -> None:
        """Takes runs of a variant through a rung, chunk by chunk."""
        program = None
        while left:
            try:
                program = program or self._fitting(variant, len(left))
                members = left[: program.width]
                results, states = self._chunk(program, variant, members, rung)
            except (jax.errors.JaxRuntimeError, MemoryError) as error:
                if not tune.out_of_memory(error):
                    raise
                failed = program.layout if program else self.store.layouts[variant.name]
                self.store.set_layout(variant.name, failed.halved())
                program = None
                continue
            self.store.write(rung.number, results, states)
            self.meter.ended(sum(result.status != RUNNING for result in results))
            left = left[len(members) :]

    def _fitting(self, variant: Variant, runs: int) -> Program:
        """A program for some runs of a variant, in its layout, halved until it fits into memory."""
        layout = self.store.layouts[variant.name].within(runs, self.machine.size)
        program = tune.fitting(lambda half: self._compiled(variant, half), layout, self.machine)
        if program.layout.lanes < layout.lanes:
            self.store.set_layout(variant.name, program.layout)
        return program

    def _chunk(
        self, program: Program, variant: Variant, members: Sequence[int], rung: Rung
    ) -> tuple[list[Result], States | None]:
        """Takes runs through a rung. If another rung follows, their states are returned, too."""
        state = program.start(*variant.inputs(self.rows, members, program.width))
        if rung.first:
            before = [self.store.state(rung.number - 1, i) for i in members]
            state = packed(before, state)
        length = variant.run.length
        state, history = advance_chunk(
            program, state, len(members), rung.advances(length), length, self.ends, self.meter
        )
        results = [
            Result(
                run=run,
                settings=self.rows[run],
                advance=np.arange(rung.first + 1, rung.first + 1 + count, dtype=np.int32),
                metrics={
                    name: np.stack([metrics[name][lane] for metrics in history.metrics[:count]])
                    for name in variant.metrics
                },
                status=history.status[lane],
                lanes=program.layout.lanes,
                device=self.machine.device_kind,
                seconds=history.seconds / len(members),
                compile_seconds=program.seconds,
            )
            for lane, (run, count) in enumerate(zip(members, history.counts, strict=True))
        ]
        return results, unpacked(state, len(members)) if rung.last else None

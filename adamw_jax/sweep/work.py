"""Does the tasks of a sweep on this process's devices."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from adamw_jax.sweep import tune
from adamw_jax.sweep.chunk import Ends, advance_chunk, packed, unpacked
from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.machine import Machine
from adamw_jax.sweep.manifest import dependencies
from adamw_jax.sweep.plan import Chunk, Measured, Measurement, Task
from adamw_jax.sweep.program import Advance, Program, compile_advance, compile_variant
from adamw_jax.sweep.progress import Meter
from adamw_jax.sweep.results import Block
from adamw_jax.sweep.states import States
from adamw_jax.sweep.variants import Variant

# The settings of JAX on which results depend.
SETTINGS = (
    "jax_enable_x64", "jax_default_prng_impl", "jax_threefry_partitionable",
    "jax_default_matmul_precision", "jax_numpy_dtype_promotion", "jax_numpy_rank_promotion",
)  # fmt: skip


class Trained(NamedTuple):
    """What came of a chunk.

    Attributes:
      results: those of its runs in this rung.
      states: their states, stacked, if another rung follows.
    """

    results: Block
    states: States | None


class TooLarge(NamedTuple):
    """What came of a chunk that did not fit into memory."""

    chunk: Chunk


class Work:
    """A function that does tasks, and keeps the programs that it has compiled.

    A copy of it in another process (cloudpickle makes one) compiles its own. It makes the settings
    of JAX there those of this process, for which the run was traced.

    Args:
      variants: the variants whose runs it may be given.
      data: the data that every run gets.
      ends: what ends a run early.
      devices: the devices to use; by default all local ones.
    """

    def __init__(
        self,
        variants: Iterable[Variant],
        data: Any,
        ends: Ends,
        devices: Sequence[Any] | None = None,
    ):
        self.variants = {variant.name: variant._replace(members=[]) for variant in variants}
        self.data, self.ends, self.devices = data, ends, devices
        self.machines: dict[int, Machine] = {}
        self.advances: dict[tuple[str, Layout, int], Advance] = {}
        self.programs: dict[tuple[str, Layout, int], Program] = {}

    def __getstate__(self) -> dict[str, Any]:
        settings = {name: getattr(jax.config, name) for name in SETTINGS}
        own = {"devices": None, "machines": {}, "advances": {}, "programs": {}}
        return {"settings": settings, "versions": dependencies(), **vars(self), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        theirs, ours = state.pop("versions"), dependencies()
        if different := [name for name in ours if ours[name] != theirs[name]]:
            name = different[0]
            raise RuntimeError(
                f"this worker's {name} is {ours[name]}, and the sweep's is {theirs[name]}: install "
                "the same versions everywhere"
            )
        for name, value in state.pop("settings").items():
            if getattr(jax.config, name) != value:
                jax.config.update(name, value)
        vars(self).update(state)

    def __call__(self, task: Task, meter: Meter | None = None) -> Measured | Trained | TooLarge:
        """Does a task.

        Args:
          task: what to do.
          meter: told of what is done on the way; None for nobody.
        """
        meter = meter or Meter(None, 0)
        if isinstance(task, Measurement):
            return self._measured(task, meter)
        try:
            return self._trained(task, meter)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if not tune.out_of_memory(error):
                raise
            return TooLarge(task)

    def machine(self, devices: int | None = None) -> Machine:
        """The first so many of the devices, by default all, with the data on each.

        Raises:
          ValueError: there are not so many.
        """
        found = list(self.devices or jax.local_devices())
        devices = len(found) if devices is None else devices
        if devices not in self.machines:
            if devices > len(found):
                raise ValueError(
                    f"this worker has {len(found)} devices; the one that measured the layouts had "
                    f"{devices}. Let all workers have as many"
                )
            self.machines[devices] = Machine.of(found[:devices], self.data)
        return self.machines[devices]

    def _program(self, variant: Variant, layout: Layout, machine: Machine, meter: Meter) -> Program:
        key = variant.name, layout, machine.size
        if key not in self.programs:
            meter.doing("compiling")
            advance = self._advance(variant, layout, machine, meter)
            self.programs[key] = compile_variant(variant, machine, layout, advance)
        return self.programs[key]

    def _advance(self, variant: Variant, layout: Layout, machine: Machine, meter: Meter) -> Advance:
        key = variant.name, layout, machine.size
        if key not in self.advances:
            meter.doing("compiling")
            self.advances[key] = compile_advance(variant, machine, layout)
        return self.advances[key]

    def _measured(self, task: Measurement, meter: Meter) -> Measured:
        variant, machine = self.variants[task.variant], self.machine()
        layout = task.layout or self._fastest(task, variant, machine, meter)
        if not task.timed:
            return Measured(layout, machine.size, machine.device)
        layout = layout.within(task.runs, machine.size)
        program = tune.fitting(
            lambda layout: self._program(variant, layout, machine, meter), layout, machine
        )
        state = program.start(*variant.inputs(task.rows[: program.width], program.width))
        seconds = float(np.median(tune.times_of_advance(program, state)))
        return Measured(
            program.layout, machine.size, machine.device, seconds, program.seconds, program.bytes
        )

    def _fastest(
        self, task: Measurement, variant: Variant, machine: Machine, meter: Meter
    ) -> Layout:
        if not jax.tree.leaves(variant.state):  # by which lanes would be counted
            return Layout()

        def compile_(layout):
            return self._program(variant, layout, machine, meter)

        # All runs are started with one on each device: to compile what starts more at a time takes
        # longer than to compile what advances them.
        one, rows, started = tune.fitting(compile_, Layout(), machine), task.rows, list[States]()
        like = one.start(*variant.inputs(rows[: one.width], one.width))

        def state(width):
            while len(started) < min(width, len(rows)):
                some = rows[len(started) : len(started) + one.width]
                leaves = unpacked(one.start(*variant.inputs(some, one.width)), len(some))
                started.extend([leaf[i] for leaf in leaves] for i in range(len(some)))
            return packed([started[i % len(started)] for i in range(width)], like)

        layout = tune.fastest(
            lambda layout: self._advance(variant, layout, machine, meter),
            task.runs,
            variant.run.length,
            machine,
            state,
        )
        return tune.fitting(compile_, layout, machine).layout

    def _trained(self, chunk: Chunk, meter: Meter) -> Trained | TooLarge:
        variant, machine = self.variants[chunk.variant], self.machine(chunk.devices)
        rung, runs, length = chunk.rung, len(chunk.members), variant.run.length
        program = self._program(variant, chunk.layout, machine, meter)
        if program.bytes > tune.available_bytes(machine):
            return TooLarge(chunk)
        state = program.start(*variant.inputs(chunk.rows, program.width))
        if chunk.before is not None:
            state = packed(chunk.before, state)
        state, history = advance_chunk(
            program, state, runs, rung.advances(length), length, self.ends, meter
        )
        made = [np.arange(count) for count in history.counts]
        lanes = np.repeat(np.arange(runs), history.counts)
        results = Block(
            chunk.rows,
            np.array(chunk.members, np.int32),
            history.counts.astype(np.int32),
            np.concatenate([rung.first + 1 + each for each in made], dtype=np.int32),
            {
                name: np.stack([metrics[name] for metrics in history.metrics])[
                    np.concatenate(made), lanes
                ]
                for name in variant.metrics
            },
            np.array(history.status, object),
            np.full(runs, program.layout.lanes, np.int32),
            np.full(runs, machine.device, object),
            np.full(runs, history.seconds / runs),
            np.full(runs, program.seconds),
        )
        return Trained(results, unpacked(state, runs) if rung.last else None)

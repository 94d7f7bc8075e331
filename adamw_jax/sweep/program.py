"""A run compiled for a layout, which says how many runs a program advances and on which devices.

A lane is a run inside `vmap`. On every device, a program advances `lanes` runs side by side and
does so `rounds` times, one after another (`lax.map`): (1, 1) is one run at a time, (256, 1) is
256 side by side, and (16, 4) is between the two. The last bits of what a lane computes depend on
the number of lanes that the program is compiled for, but not on the other lanes.
"""

import functools
import math
import operator
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from adamw_jax.sweep.variants import Variant


@dataclass(frozen=True)
class Layout:
    """How many runs a device advances side by side, and how often in one call.

    Attributes:
      lanes: runs side by side on each device, at least 1.
      rounds: how many times a call does that, one after another, at least 1.

    Raises:
      ValueError: lanes or rounds is not an integer ≥ 1.
    """

    lanes: int = 1
    rounds: int = 1

    def __post_init__(self):
        for name in ("lanes", "rounds"):
            value = getattr(self, name)
            try:
                whole = operator.index(value)
            except TypeError:
                whole = 0
            if whole < 1 or isinstance(value, bool):
                raise ValueError(f"a layout's {name} is an integer from 1 on; got {value!r}")
            object.__setattr__(self, name, whole)

    def width(self, devices: int) -> int:
        """How many runs a call advances."""
        return devices * self.lanes * self.rounds

    def within(self, runs: int, devices: int) -> "Layout":
        """The same lanes, with no more rounds than spreading the runs evenly over chunks needs."""
        rounds = math.ceil(runs / (devices * self.lanes))
        return Layout(self.lanes, math.ceil(rounds / math.ceil(rounds / self.rounds)))

    def halved(self) -> "Layout":
        """Half the lanes or, if there is only one, half the rounds.

        Raises:
          MemoryError: the layout is a single run already.
        """
        if self.lanes > 1:
            return Layout(self.lanes // 2, self.rounds)
        if self.rounds > 1:
            return Layout(1, self.rounds // 2)
        raise MemoryError("a single run does not fit into the device's memory")


class Machine(NamedTuple):
    """The local devices, and the data on each of them.

    Attributes:
      mesh: the mesh of the devices, with one axis, "runs".
      data: the data, copied to every device.
    """

    mesh: Mesh
    data: Any

    @classmethod
    def of(cls, devices: Sequence[Any], data: Any) -> "Machine":
        """Copies the data onto the devices."""
        mesh = Mesh(np.array(devices), ("runs",))
        return cls(mesh, jax.device_put(data, NamedSharding(mesh, PartitionSpec())))

    @property
    def size(self) -> int:
        """The number of devices."""
        return self.mesh.size

    @property
    def device(self) -> str:
        """What the devices are, such as "NVIDIA H200"; for a CPU, its name and its threads."""
        device = self.mesh.devices.flat[0]
        return _cpu() if device.platform == "cpu" else device.device_kind

    @property
    def over_devices(self) -> NamedSharding:
        """How arrays [width, …] are distributed."""
        return NamedSharding(self.mesh, PartitionSpec("runs"))

    def place(self, tree: Any) -> Any:
        """Distributes arrays [width, …] over the devices."""
        return jax.device_put(tree, self.over_devices)

    def structs(self, one: Any, width: int) -> Any:
        """The types of arrays [width, …] as `place` returns them, from the types of one run."""
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((width, *x.shape), x.dtype, sharding=self.over_devices),
            one,
        )

    def over_runs(self, function: Callable[[Any, Any], Any], layout: Layout) -> Any:
        """Turns a function `(one run, data)` into one of `(runs [width], data)`, by the layout."""

        def local(runs, data):
            each = lambda run: function(run, data)  # noqa: E731
            if layout == Layout(1, 1):  # without vmap, which costs some programs their speed
                outputs = each(jax.tree.map(lambda x: x[0], runs))
                return jax.tree.map(lambda x: jnp.asarray(x)[None], outputs)
            if layout.rounds == 1:
                return jax.vmap(each)(runs)
            if layout.lanes == 1:
                return jax.lax.map(each, runs)
            # By hand, since lax.map(batch_size=) fails where a leaf has no elements.
            split, width = (layout.rounds, layout.lanes), layout.rounds * layout.lanes
            rounds = jax.tree.map(lambda x: x.reshape(*split, *x.shape[1:]), runs)
            outputs = jax.lax.map(jax.vmap(each), rounds)
            return jax.tree.map(lambda x: x.reshape(width, *x.shape[2:]), outputs)

        # With shard_map, unlike with sharded inputs, no device ever waits for another, whatever
        # the function does. check_vma is off, since what varies over devices does not matter.
        specs = PartitionSpec("runs"), PartitionSpec()
        return jax.shard_map(
            local, mesh=self.mesh, in_specs=specs, out_specs=specs[0], check_vma=False
        )


class Advance(NamedTuple):
    """The second function of a run, compiled.

    Attributes:
      advance: `state -> (state, metrics)`, metrics by name; the old state is consumed.
      layout: the layout that it is compiled for.
      width: how many runs a call takes, over all devices.
      bytes: the memory that it needs on each device, including the data.
      seconds: how long compiling it took.
    """

    advance: Callable[[Any], tuple[Any, dict[str, jax.Array]]]
    layout: Layout
    width: int
    bytes: int
    seconds: float


class Program(NamedTuple):
    """The two compiled functions of a run.

    Attributes:
      start: `(hyperparameters [width], seeds [width]) -> state`.
      advance, layout, width: as in `Advance`.
      bytes: the memory that the larger of the two needs on each device, including the data.
      seconds: how long compiling both took.
    """

    start: Callable[[Mapping[str, np.ndarray], np.ndarray], Any]
    advance: Callable[[Any], tuple[Any, dict[str, jax.Array]]]
    layout: Layout
    width: int
    bytes: int
    seconds: float


def compile_advance(variant: Variant, machine: Machine, layout: Layout) -> Advance:
    """Compiles the second function of a variant's run for a layout."""
    began, run = time.perf_counter(), variant.run.typed()
    advanced = _compiled(run.advance, variant.state, machine, layout, donate_argnums=0)

    def advance(state):
        state, metrics = advanced(state, machine.data)
        return state, dict(zip(variant.metrics, jax.tree.leaves(metrics), strict=True))

    width, seconds = layout.width(machine.size), time.perf_counter() - began
    return Advance(advance, layout, width, _bytes(advanced), seconds)


def compile_variant(
    variant: Variant, machine: Machine, layout: Layout, advance: Advance | None = None
) -> Program:
    """Compiles both functions, or the first where the second has been compiled for the layout."""
    advance = advance or compile_advance(variant, machine, layout)
    began, run = time.perf_counter(), variant.run.typed()
    one = {name: jax.ShapeDtypeStruct((), dtype) for name, dtype in variant.numbers.items()}

    def start(settings, data):
        numbers, seed = settings
        return run.start(numbers, jax.random.key(seed), data)

    settings = one, jax.ShapeDtypeStruct((), np.uint32)
    started = _compiled(start, settings, machine, layout)
    return Program(
        lambda numbers, seeds: started(machine.place((numbers, seeds)), machine.data),
        advance.advance,
        layout,
        advance.width,
        max(_bytes(started), advance.bytes),
        time.perf_counter() - began + advance.seconds,
    )


def _compiled(
    function: Callable[[Any, Any], Any], argument: Any, machine: Machine, layout: Layout, **options
) -> Any:
    # Without out_shardings, a leaf without elements would not come back as `place` distributes it.
    jitted = jax.jit(
        machine.over_runs(function, layout), out_shardings=machine.over_devices, **options
    )
    structs = machine.structs(argument, layout.width(machine.size))
    return jitted.lower(structs, machine.data).compile()


@functools.cache
def _cpu() -> str:
    """The processor's name, and how many threads XLA has: sums depend on both."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = (names or [platform.processor() or platform.machine()])[0]
    # XLA asks the same: NPROC, then the cores that this process may use.
    affinity = getattr(os, "sched_getaffinity", lambda pid: range(os.cpu_count() or 1))
    threads = int(os.environ.get("NPROC") or len(affinity(0)))
    return f"{name}, {threads} thread{'s' * (threads > 1)}"


def _bytes(compiled: Any) -> int:
    need = compiled.memory_analysis()
    if need is None:  # this backend does not say
        return 0
    own = need.output_size_in_bytes - need.alias_size_in_bytes
    return need.argument_size_in_bytes + own + need.temp_size_in_bytes

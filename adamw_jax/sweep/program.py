"""A run compiled for a layout: how many runs a program holds, and where they lie.

A lane is a run inside `vmap`. A program holds `lanes` of them on every device and does
that `rounds` times, one after another (`lax.map`): (1, 1) is one run at a time, (256, 1)
is all side by side, (16, 4) is between. What a lane computes depends, in the last bits, on the
number of lanes that it is compiled for, but not on the other lanes.
"""

import math
import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from adamw_jax.sweep.variants import Variant


@dataclass(frozen=True)
class Layout:
    """How runs fill a device.

    Attributes:
      lanes: runs side by side on each device, at least 1.
      rounds: how many times a call does that, at least 1.

    Raises:
      ValueError: lanes or rounds below 1, or not an integer.
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
        """The same lanes, in no more rounds than it takes to spread the runs evenly over chunks."""
        rounds = math.ceil(runs / (devices * self.lanes))
        return Layout(self.lanes, math.ceil(rounds / math.ceil(rounds / self.rounds)))

    def halved(self) -> "Layout":
        """Half the lanes or, where there is one, half the rounds.

        Raises:
          MemoryError: a single run is left.
        """
        if self.lanes > 1:
            return Layout(self.lanes // 2, self.rounds)
        if self.rounds > 1:
            return Layout(1, self.rounds // 2)
        raise MemoryError("a single run does not fit into the device's memory")


class Machine(NamedTuple):
    """The local devices, and the data on each of them.

    Attributes:
      mesh: of the devices, with the one axis "runs".
      data: on every device.
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
    def device_kind(self) -> str:
        """What the devices are, such as "cpu"."""
        return self.mesh.devices.flat[0].device_kind

    def place(self, tree: Any) -> Any:
        """Arrays [width, …], laid out over the devices."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec("runs")))

    def structs(self, one: Any, width: int) -> Any:
        """The types of arrays [width, …] that `place` has laid out, from the types of one run."""
        sharding = NamedSharding(self.mesh, PartitionSpec("runs"))
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((width, *x.shape), x.dtype, sharding=sharding), one
        )

    def over_runs(self, function: Callable[[Any, Any], Any], layout: Layout) -> Any:
        """`(runs [width], data)` from a function of one run, as the layout says."""

        def local(runs, data):
            each = lambda run: function(run, data)  # noqa: E731
            if layout == Layout(1, 1):  # without vmap, which costs some programs their speed
                outputs = each(jax.tree.map(lambda x: x[0], runs))
                return jax.tree.map(lambda x: jnp.asarray(x)[None], outputs)
            if layout.rounds == 1:
                return jax.vmap(each)(runs)
            if layout.lanes == 1:
                return jax.lax.map(each, runs)
            # What lax.map(batch_size=) does, which fails where a leaf has no elements.
            split, width = (layout.rounds, layout.lanes), layout.rounds * layout.lanes
            rounds = jax.tree.map(lambda x: x.reshape(*split, *x.shape[1:]), runs)
            outputs = jax.lax.map(jax.vmap(each), rounds)
            return jax.tree.map(lambda x: x.reshape(width, *x.shape[2:]), outputs)

        # shard_map rather than sharded inputs: no device then asks another for anything,
        # whatever the function does. It need not know what varies over the devices.
        specs = PartitionSpec("runs"), PartitionSpec()
        return jax.shard_map(
            local, mesh=self.mesh, in_specs=specs, out_specs=specs[0], check_vma=False
        )


class Program(NamedTuple):
    """The two compiled functions of a run.

    Attributes:
      start: `(hyperparameters [width], seeds [width]) -> state`.
      advance: `state -> (state, metrics)`, metrics by name; the old state is consumed.
      layout: what it is compiled for.
      width: how many runs a call takes, on all devices.
      bytes: memory that the larger function needs on each device, the data included.
      seconds: what compiling both took.
    """

    start: Callable[[Mapping[str, np.ndarray], np.ndarray], Any]
    advance: Callable[[Any], tuple[Any, dict[str, jax.Array]]]
    layout: Layout
    width: int
    bytes: int
    seconds: float


def compile_variant(variant: Variant, machine: Machine, layout: Layout) -> Program:
    """Compiles the run of a variant for a layout."""
    began, width, run = time.perf_counter(), layout.width(machine.size), variant.run.typed()
    one = {name: jax.ShapeDtypeStruct((), dtype) for name, dtype in variant.numbers.items()}
    settings = one, jax.ShapeDtypeStruct((), np.uint32)

    def start(settings, data):
        numbers, seed = settings
        return run.start(numbers, jax.random.key(seed), data)

    started, advanced = (
        jax.jit(machine.over_runs(function, layout), donate_argnums=donated)
        .lower(machine.structs(argument, width), machine.data)
        .compile()
        for function, argument, donated in ((start, settings, ()), (run.advance, variant.state, 0))
    )

    def advance_named(state):
        state, metrics = advanced(state, machine.data)
        return state, dict(zip(variant.metrics, jax.tree.leaves(metrics), strict=True))

    return Program(
        lambda numbers, seeds: started(machine.place((numbers, seeds)), machine.data),
        advance_named,
        layout,
        width,
        max(_bytes(started), _bytes(advanced)),
        time.perf_counter() - began,
    )


def _bytes(compiled: Any) -> int:
    need = compiled.memory_analysis()
    if need is None:  # a backend that does not tell
        return 0
    own = need.output_size_in_bytes - need.alias_size_in_bytes
    return need.argument_size_in_bytes + own + need.temp_size_in_bytes

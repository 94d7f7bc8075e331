"""The devices of a process, over which a program's runs are spread."""

import functools
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from adamw_jax.sweep.layout import Layout


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

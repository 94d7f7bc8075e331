"""How many runs a program holds, and how they are laid out over the devices.

A lane is a run inside `vmap`. A program holds `lanes` of them on every device and does
that `rounds` times one after another (`lax.map`): (1, 1) is one run at a time, (256, 1)
is all side by side, (16, 4) is between. What a lane computes depends on the number of
lanes that it is compiled for, in the last bits, but not on the other lanes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class Layout(NamedTuple):
    """How runs fill a device.

    Attributes:
      lanes: runs side by side on each device, at least 1.
      rounds: how many such groups follow one another in a call, at least 1.
    """

    lanes: int = 1
    rounds: int = 1

    def check(self) -> None:
        """Refuses what is below 1.

        Raises:
          ValueError: naming it.
        """
        if self.lanes < 1 or self.rounds < 1:
            raise ValueError(f"lanes and rounds are at least 1; got {self}")

    def width(self, devices: int) -> int:
        """Runs that a call advances."""
        return devices * self.lanes * self.rounds

    def within(self, runs: int, devices: int) -> "Layout":
        """As many rounds, or fewer, as fill the fewest chunks of so many runs evenly."""
        groups = math.ceil(runs / (devices * self.lanes))
        return self._replace(rounds=math.ceil(groups / math.ceil(groups / self.rounds)))

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
    """The local devices, and the data on each of them."""

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
    def kind(self) -> str:
        """What the devices are."""
        return self.mesh.devices.flat[0].device_kind

    def place(self, tree: Any) -> Any:
        """Arrays [width, …], laid out over the devices."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec("runs")))

    def structs(self, one: Any, width: int) -> Any:
        """Types of arrays [width, …] that `place` has placed, from the types of one run."""
        sharding = NamedSharding(self.mesh, PartitionSpec("runs"))
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((width, *x.shape), x.dtype, sharding=sharding), one
        )

    def over_runs(self, function: Callable[[Any, Any], Any], layout: Layout) -> Any:
        """`(runs [width], data)` from a function of one run, as the layout says."""

        def local(runs, data):
            each = lambda run: function(run, data)  # noqa: E731
            if layout == (1, 1):  # without vmap, which costs some programs their speed
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

"""What is to be done: the tasks of a sweep, each a value that can go to another process."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from adamw_jax.sweep.grid import Row
from adamw_jax.sweep.halving import Rung
from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.states import States
from adamw_jax.sweep.store import Store

SAMPLE = 256  # how many rows a worker that measures is sent; it repeats them


class Chunk(NamedTuple):
    """Runs of one variant, to be taken through a rung side by side.

    Attributes:
      variant: its name.
      members: the numbers of the runs.
      rows: their settings.
      rung: the advances to make.
      layout: the layout of the program.
      devices: how many devices the program uses.
      before: each run's state after the rung before; None in the first rung.
    """

    variant: str
    members: tuple[int, ...]
    rows: tuple[Row, ...]
    rung: Rung
    layout: Layout
    devices: int
    before: list[States] | None

    def __str__(self) -> str:
        first, last = self.members[0], self.members[-1]
        return f"run {first}" if first == last else f"the runs from {first} to {last}"


class Measurement(NamedTuple):
    """The layout of a variant, to be found by measuring.

    Attributes:
      variant: its name.
      rows: the settings of some runs.
      runs: how many runs are to be trained by each worker.
      layout: the layout to use; None if the fastest is to be found.
      timed: whether the program in this layout is to be timed, too.
    """

    variant: str
    rows: tuple[Row, ...]
    runs: int
    layout: Layout | None
    timed: bool = False

    def __str__(self) -> str:
        return f"measuring layouts for {self.variant}".removesuffix(" for {}")  # the only one


class Measured(NamedTuple):
    """What came of a measurement.

    Attributes:
      layout: the fastest layout.
      devices: how many devices the worker has.
      device: what they are.
      seconds: how long an advance takes, if that was asked.
      compile_seconds: how long the program took to compile, if that was asked.
      bytes: the memory that it needs on each device, if that was asked.
    """

    layout: Layout
    devices: int
    device: str
    seconds: float = math.nan
    compile_seconds: float = math.nan
    bytes: int = 0


Task = Chunk | Measurement


class Plan:
    """The chunks of a rung, made one by one, since a layout may turn out to be too large.

    Args:
      rung: the rung.
      left: the runs to take through it, by the names of their variants.
      rows: the grid.
      store: knows the layouts and the states of the rung before.
      devices: how many devices a worker has.
    """

    def __init__(
        self,
        rung: Rung,
        left: Mapping[str, Sequence[int]],
        rows: Sequence[Row],
        store: Store,
        devices: int,
    ):
        self.rung, self.rows, self.store, self.devices = rung, rows, store, devices
        self.left = {variant: deque(runs) for variant, runs in left.items()}

    def __bool__(self) -> bool:
        return any(self.left.values())

    def chunks(self) -> Iterator[Chunk]:
        """Takes chunks from what is left, in the order of the grid."""
        for variant, left in self.left.items():
            while left:
                layout = self.store.layouts[variant].within(len(left), self.devices)
                count = min(len(left), layout.width(self.devices))
                members = tuple(left.popleft() for _ in range(count))
                yield Chunk(
                    variant,
                    members,
                    tuple(self.rows[i] for i in members),
                    self.rung,
                    layout,
                    self.devices,
                    [self.store.state(self.rung.number - 1, i) for i in members]
                    if self.rung.first
                    else None,
                )

    def again(self, chunk: Chunk) -> None:
        """Puts the runs of a chunk back."""
        self.left[chunk.variant].extendleft(reversed(chunk.members))

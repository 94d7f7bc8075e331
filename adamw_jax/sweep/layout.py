"""A layout: how many runs a program advances at once on a device, and how.

A lane is a run inside `vmap`. On every device, a program advances `lanes` runs side by side and
does so `rounds` times, one after another (`lax.map`): (1, 1) is one run at a time, (256, 1) is
256 side by side, and (16, 4) is between the two. The last bits of what a lane computes depend on
the number of lanes that the program is compiled for, but not on the other lanes.
"""

import math
import operator
from dataclasses import dataclass


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
        """The same lanes, with the fewest rounds with which the runs take no more chunks."""
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

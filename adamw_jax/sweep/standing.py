"""How far each run of a sweep has come, and in which part its results are."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from adamw_jax.sweep.halving import Halving, Rung
from adamw_jax.sweep.results import DROPPED, RUNNING, Block
from adamw_jax.sweep.store import Part

# How many runs and advances a block of the finished table has at most, but at least one run.
RUNS, ADVANCES = 16_384, 1_000_000


class Standing:
    """The standing of every run; arrays, so that a million runs fit into little memory.

    Attributes:
      made: int32[runs], how many advances each run has made.
      status: object[runs], its status after them.

    Args:
      runs: how many runs there are.
      rungs: how many rungs.
      halving: compares runs; None for nothing.
    """

    def __init__(self, runs: int, rungs: int, halving: Halving | None):
        self.made, self.status = np.zeros(runs, np.int32), np.full(runs, RUNNING, object)
        self.halving = halving
        self.badness = np.full((rungs if halving else 0, runs), np.inf)
        self.parts: dict[Part, None] = {}
        self.where = np.full((rungs, runs), -1, np.int32)

    def add(self, part: Part, block: Block) -> None:
        """Takes note of a part, but not for runs that it does not continue."""
        number = len(self.parts)
        self.parts[part] = None
        first = block.advance[block.ends - block.counts]
        new = np.flatnonzero(self.made[block.run] == first - 1)
        runs = block.run[new]
        self.made[runs] += block.counts[new]
        self.status[runs] = block.status[new]
        self.where[part.rung, runs] = number
        if self.halving:
            # A run that has ended keeps its last value for later rungs.
            self.badness[part.rung :, runs] = self.halving.badness(block)[new]

    def awaiting(self, rung: Rung) -> np.ndarray:
        """Which runs have yet to make the advances of a rung, bool[runs]."""
        return (self.status == RUNNING) & (self.made == rung.first)

    def survivors(self, alive: np.ndarray, rung: Rung) -> np.ndarray:
        """Which of the runs that are left after a rung go on, bool[runs]."""
        if self.halving is None or rung.last is None:
            return alive
        entrants = np.flatnonzero(alive & (self.made > 0))
        best = self.halving.survivors(entrants, self.badness[rung.number, entrants])
        return np.isin(np.arange(len(alive)), best)

    def assembled(
        self, members: np.ndarray, read: Callable[[Sequence[Part]], Iterable[Block]]
    ) -> Iterator[Block]:
        """The results of some runs, in the order of the grid, block by block.

        Args:
          members: the numbers of the runs, in order; those without results are left out.
          read: reads parts.
        """
        members, parts = members[self.made[members] > 0], list(self.parts)
        step = max(1, min(RUNS, ADVANCES // max(self.made[members], default=1)))
        for begin in range(0, len(members), step):
            runs, pieces = members[begin : begin + step], []
            for where in self.where:
                numbers = [number for number in np.unique(where[runs]).tolist() if number >= 0]
                blocks = read([parts[number] for number in numbers])
                for number, block in zip(numbers, blocks, strict=True):
                    within = (block.run >= runs[0]) & (block.run <= runs[-1])
                    mine = within & (where[block.run] == number)
                    pieces.append(block.taken(np.flatnonzero(mine)))
            block = Block.joined(pieces)
            yield block._replace(status=np.where(block.status == RUNNING, DROPPED, block.status))

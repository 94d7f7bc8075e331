"""Where results and states are while a sweep runs; in memory, if they are not kept."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, Self

from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.results import Block, Results
from adamw_jax.sweep.states import States


class Part(NamedTuple):
    """A finished chunk, as a store keeps it.

    Attributes:
      rung: the number of its rung.
      name: its name in the store.
    """

    rung: int
    name: str


class Store(Protocol):
    """What the engine needs of a store, which is used as a context manager."""

    def __enter__(self) -> Self:
        """Opens the store."""
        ...

    def __exit__(self, *error: object) -> None:
        """Closes the store."""

    @property
    def layouts(self) -> Mapping[str, Layout]:
        """The layouts of the variants that have one, by name."""
        ...

    def set_layout(self, variant: str, layout: Layout) -> None:
        """Keeps the layout of a variant, for every process and every later call."""

    def refresh(self) -> None:
        """Reads the layouts that other processes have set."""

    @property
    def tries(self) -> Mapping[int, int]:
        """How many workers have ended while they trained a run; only runs with at least one."""
        ...

    def count_try(self, runs: Iterable[int]) -> None:
        """Counts a worker that has ended while it trained these runs."""

    def write(self, rung: int, results: Block, states: States | None) -> Part:
        """Keeps a chunk's results and, if there are any, its runs' final states, stacked."""
        ...

    def parts(self) -> Sequence[Part]:
        """All finished chunks, in the order of their rungs."""
        ...

    def read(self, parts: Sequence[Part]) -> Iterator[Block]:
        """The results of some chunks, one after another."""
        ...

    def state(self, rung: int, run: int) -> States:
        """The leaves of a run's state at the end of a rung."""
        ...

    def forget(self, rung: int) -> None:
        """Deletes the states of a rung."""

    def finish(self, blocks: Iterator[Block]) -> None:
        """Keeps the results of all runs, which ends the sweep.

        Args:
          blocks: the results, in the order of the grid.
        """

    def finished(self) -> Results | None:
        """The results of a sweep that has ended; None if it has not."""
        ...


class InMemory:
    """Keeps everything for as long as the call lasts."""

    def __init__(self):
        self.kept: dict[Part, Block] = {}
        self.results: Results | None = None
        self.layouts: dict[str, Layout] = {}
        self.tries: dict[int, int] = {}
        self.states: dict[tuple[int, int], States] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        del error

    def set_layout(self, variant: str, layout: Layout) -> None:
        """See `Store`."""
        self.layouts[variant] = layout

    def refresh(self) -> None:
        """Does nothing: there is one process."""

    def count_try(self, runs: Iterable[int]) -> None:
        """See `Store`."""
        self.tries |= {run: self.tries.get(run, 0) + 1 for run in runs}

    def write(self, rung: int, results: Block, states: States | None) -> Part:
        """See `Store`."""
        part = Part(rung, str(results.run[0]))
        self.kept[part] = results
        for i, run in enumerate(results.run.tolist() if states else ()):
            self.states[rung, run] = [leaf[i] for leaf in states or ()]
        return part

    def parts(self) -> list[Part]:
        """See `Store`."""
        return list(self.kept)

    def read(self, parts: Sequence[Part]) -> Iterator[Block]:
        """See `Store`."""
        return map(self.kept.__getitem__, parts)

    def state(self, rung: int, run: int) -> States:
        """See `Store`."""
        return self.states[rung, run]

    def forget(self, rung: int) -> None:
        """See `Store`."""
        self.states = {key: state for key, state in self.states.items() if key[0] != rung}

    def finish(self, blocks: Iterator[Block]) -> None:
        """See `Store`."""
        found = list(blocks)
        self.results = Results(found.__getitem__, [block.run for block in found])

    def finished(self) -> Results | None:
        """See `Store`."""
        return self.results

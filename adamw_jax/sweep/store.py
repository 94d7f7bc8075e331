"""Where results and states are kept while a sweep runs: in memory or on disk.

On disk there is one file per finished chunk, so that a kill loses only the unfinished one. A
sweep's directory holds

    sweep.json       the manifest, which says which sweep this is
    parts/*.parquet  finished chunks, until the sweep is finished
    states/*.npz     states between two rungs of halving
    results.parquet  all results in one table, once the sweep is finished

Each file of results says which sweep it belongs to and has a digest: that of a part is in its
name, that of the table in sweep.json.
"""

import importlib.util
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, Self

from adamw_jax.sweep import manifest, processes, table
from adamw_jax.sweep.chunk import States, read_states, write_states
from adamw_jax.sweep.directory import Files, claim
from adamw_jax.sweep.files import StoreError, digest, locked, write_whole
from adamw_jax.sweep.grid import Row
from adamw_jax.sweep.manifest import Manifest, name_of
from adamw_jax.sweep.program import Layout
from adamw_jax.sweep.results import Result, joined


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

    def write(self, rung: int, results: Sequence[Result], states: States | None) -> None:
        """Keeps a chunk's results and, if there are any, its runs' final states, stacked."""

    def read(self) -> list[Result]:
        """All results so far, joined by run."""
        ...

    def state(self, rung: int, run: int) -> States:
        """The leaves of a run's state at the end of a rung."""
        ...

    def forget(self, rung: int) -> None:
        """Deletes the states of a rung."""

    def finish(self, results: Sequence[Result]) -> None:
        """Keeps the results of all runs, which ends the sweep."""


class InMemory:
    """Keeps everything for as long as the call lasts."""

    def __init__(self):
        self.parts: list[Result] = []
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

    def write(self, rung: int, results: Sequence[Result], states: States | None) -> None:
        """See `Store`."""
        self.parts += results
        for i, result in enumerate(results if states else ()):
            self.states[rung, result.run] = [leaf[i] for leaf in states or ()]

    def read(self) -> list[Result]:
        """See `Store`."""
        return joined(self.parts)

    def state(self, rung: int, run: int) -> States:
        """See `Store`."""
        return self.states[rung, run]

    def forget(self, rung: int) -> None:
        """See `Store`."""
        self.states = {key: state for key, state in self.states.items() if key[0] != rung}

    def finish(self, results: Sequence[Result]) -> None:
        """Does nothing: the caller has the results."""


class OnDisk:
    """Keeps results in a directory that only one sweep at a time may use.

    Args:
      directory: the directory of the results, which is created if needed.
      rows: the grid.
      description: what identifies the sweep.
      fresh: whether to delete first what is kept of the sweep.

    Raises:
      ImportError: pyarrow is not installed.
    """

    def __init__(
        self,
        directory: Path,
        rows: Sequence[Row],
        description: Mapping[str, Any],
        fresh: bool = False,
    ):
        if importlib.util.find_spec("pyarrow") is None:
            raise ImportError("keeping a sweep needs pyarrow: pip install 'adamw_jax[sweep]'")
        self.directory, self.rows, self.fresh = directory, rows, fresh
        self.name = name_of(description)
        self.manifest = Manifest(dict(description), {})
        self.files = Files(directory)
        self.first = processes.index() == 0
        self.exit = ExitStack()
        self.loaded: dict[int, dict[int, States]] = {}

    def __enter__(self) -> Self:
        """Opens the directory.

        Raises:
          StoreError: another process is writing there, or it holds another sweep's results.
          OSError: the directory cannot be created or written.
        """
        with processes.together("opening the output"), ExitStack() as opening:
            self.directory.mkdir(parents=True, exist_ok=True)
            opening.enter_context(locked(self.directory / f".lock-{processes.index()}"))
            if self.first:
                self.manifest = claim(self.files, self.manifest, self.fresh)
            self.exit = opening.pop_all()
        self.refresh()
        return self

    def __exit__(self, *error: object) -> None:
        self.exit.close()

    @property
    def layouts(self) -> Mapping[str, Layout]:
        """See `Store`."""
        return self.manifest.layouts

    def set_layout(self, variant: str, layout: Layout) -> None:
        """See `Store`."""
        layouts = {**self.layouts, variant: layout}
        self.manifest = self.manifest._replace(layouts=layouts)
        if self.first:
            manifest.write(self.files.manifest, self.manifest)

    @property
    def tries(self) -> Mapping[int, int]:
        """See `Store`."""
        return self.manifest.tries

    def count_try(self, runs: Iterable[int]) -> None:
        """See `Store`."""
        tries = {**self.tries, **{run: self.tries.get(run, 0) + 1 for run in runs}}
        self.manifest = self.manifest._replace(tries=tries)
        manifest.write(self.files.manifest, self.manifest)

    def refresh(self) -> None:
        """See `Store`."""
        self.manifest = manifest.read(self.files.manifest)

    def write(self, rung: int, results: Sequence[Result], states: States | None) -> None:
        """See `Store`; states are written first, because the results imply that they are there."""
        name = f"{rung}-{results[0].run:07d}"
        if states is not None:
            runs = [result.run for result in results]
            write_states(self.files.states / f"{name}.npz", runs, states)
        content = self._encoded(results)
        write_whole(self.files.parts / f"{name}-{digest(content)}.parquet", content)

    def _encoded(self, results: Sequence[Result]) -> bytes:
        layouts = {name: (lay.lanes, lay.rounds) for name, lay in self.layouts.items()}
        return table.encoded(results, {"sweep": self.name, "layouts": layouts})

    def read(self) -> list[Result]:
        """See `Store`."""
        if self.files.table.exists():
            return table.read(self.files.table, self.manifest.table, self.rows)
        paths = sorted(self.files.parts.glob("*.parquet"))
        digests = [path.stem.split("-")[-1] for path in paths]
        parts = [table.read(path, d, self.rows) for path, d in zip(paths, digests, strict=True)]
        return joined(result for part in parts for result in part)

    def state(self, rung: int, run: int) -> States:
        """See `Store`."""
        if rung not in self.loaded:
            paths = sorted(self.files.states.glob(f"{rung}-*.npz"))
            self.loaded = {rung: {k: v for path in paths for k, v in read_states(path).items()}}
        if run not in self.loaded[rung]:
            raise StoreError(
                f"{self.files.states} has no state of run {run}; delete {self.directory} and "
                "start again"
            )
        return self.loaded[rung][run]

    def forget(self, rung: int) -> None:
        """See `Store`."""
        self.loaded.clear()
        if self.first:
            for path in self.files.states.glob(f"{rung}-*.npz"):
                path.unlink()

    def finish(self, results: Sequence[Result]) -> None:
        """Writes the table of all results, which replaces the parts."""
        if self.first:
            if not self.files.table.exists():
                content = self._encoded(results)
                # The manifest comes first, so that there is never a table without a digest.
                self.manifest = self.manifest._replace(table=digest(content))
                manifest.write(self.files.manifest, self.manifest)
                write_whole(self.files.table, content)
            for folder in (self.files.parts, self.files.states):
                shutil.rmtree(folder, ignore_errors=True)

"""Keeps a sweep's results and states in a folder, on a disk or in an object store.

There is one file per finished chunk, so that a kill loses only the unfinished one. The folder of a
sweep holds

    sweep.json       the manifest, which says which sweep this is
    parts/*.parquet  finished chunks, until the sweep is finished
    states/*.npz     states between two rungs of halving
    results.parquet  all results in one table, once the sweep is finished

Each file of results says which sweep it belongs to and has a digest: that of a part is in its
name, that of the table in sweep.json.
"""

import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

import numpy as np

from adamw_jax.sweep import manifest, parquet, processes, table
from adamw_jax.sweep.claim import PARTS, STATES, TABLE, claim
from adamw_jax.sweep.files import StoreError, digest
from adamw_jax.sweep.folder import Folder
from adamw_jax.sweep.grid import Row
from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.manifest import Manifest, name_of
from adamw_jax.sweep.results import Block, Results
from adamw_jax.sweep.states import States, decoded_states, encoded_states
from adamw_jax.sweep.store import Part


class Kept:
    """Keeps results in a folder that only one sweep at a time may use.

    Args:
      folder: the folder of the results.
      rows: the grid.
      description: what identifies the sweep.
      fresh: whether to delete first what is kept of the sweep.

    Raises:
      ImportError: pyarrow is not installed.
    """

    def __init__(
        self,
        folder: Folder,
        rows: Sequence[Row],
        description: Mapping[str, Any],
        fresh: bool = False,
    ):
        if importlib.util.find_spec("pyarrow") is None:
            raise ImportError("keeping a sweep needs pyarrow: pip install 'adamw_jax[sweep]'")
        self.folder, self.rows, self.fresh = folder, rows, fresh
        self.name = name_of(description)
        self.manifest = Manifest(dict(description), {})
        self.first = processes.index() == 0
        self.exit = ExitStack()
        self.loaded: dict[int, dict[int, States]] = {}

    def __enter__(self) -> Self:
        """Opens the folder.

        Raises:
          StoreError: another process is writing there, or it holds another sweep's results.
          OSError: the folder cannot be created or written.
        """
        with processes.together("opening the output"), ExitStack() as opening:
            opening.enter_context(self.folder.locked(processes.index()))
            if self.first:
                self.manifest = claim(self.folder, self.manifest, self.fresh)
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
            manifest.write(self.folder, self.manifest)

    @property
    def tries(self) -> Mapping[int, int]:
        """See `Store`."""
        return self.manifest.tries

    def count_try(self, runs: Iterable[int]) -> None:
        """See `Store`."""
        tries = {**self.tries, **{run: self.tries.get(run, 0) + 1 for run in runs}}
        self.manifest = self.manifest._replace(tries=tries)
        manifest.write(self.folder, self.manifest)

    def refresh(self) -> None:
        """See `Store`."""
        self.manifest = manifest.read(self.folder)

    def write(self, rung: int, results: Block, states: States | None) -> Part:
        """See `Store`; states are written first, because the results imply that they are there."""
        settings = table.setting_columns(results.rows)
        rows = table.block_table(results, settings, np.arange(len(results.run)))
        content = self._encoded([rows])
        name = f"{rung}-{results.run[0]:07d}-{digest(content)}"
        if states is not None:
            self.folder.create(f"{STATES}/{name}.npz", encoded_states(results.run, states))
        self.folder.create(f"{PARTS}/{name}.parquet", content)
        return Part(rung, f"{PARTS}/{name}.parquet")

    def _encoded(self, tables: Iterable[Any]) -> bytes:
        layouts = {name: (lay.lanes, lay.rounds) for name, lay in self.layouts.items()}
        return parquet.encoded(tables, {"sweep": self.name, "layouts": layouts})

    def parts(self) -> list[Part]:
        """See `Store`. Where a run was done twice, the first part in order of names counts."""
        names = [name for name in self.folder.names(PARTS) if name.endswith(".parquet")]
        found = [Part(int(name.removeprefix(f"{PARTS}/").split("-")[0]), name) for name in names]
        return sorted(found)

    def read(self, parts: Sequence[Part]) -> Iterator[Block]:
        """See `Store`."""
        names = [part.name for part in parts]
        for name, content in zip(names, self.folder.read_all(names), strict=True):
            told, path = name.removesuffix(".parquet").split("-")[-1], self.folder.path(name)
            yield parquet.decoded(content, path, told, self.rows, self.name)

    def state(self, rung: int, run: int) -> States:
        """See `Store`."""
        if rung not in self.loaded:
            self.loaded = {rung: self._states(rung)}
        if run not in self.loaded[rung]:
            raise StoreError(
                f"{self.folder.path(STATES)} has no state of run {run}; delete "
                f"{self.folder.path()} and start again"
            )
        return self.loaded[rung][run]

    def _states(self, rung: int) -> dict[int, States]:
        """A rung's states by run: of several, those beside the part that counts.

        States without a part are left by a kill; their runs were done again, perhaps in another
        layout.
        """
        parts = {name.split("/")[-1].removesuffix(".parquet") for name in self.folder.names(PARTS)}
        written = self._of(rung)
        beside = [n for n in written if n.split("/")[-1].removesuffix(".npz") in parts]
        lone = [name for name in written if name not in beside]
        found: dict[int, States] = {}
        names = lone + beside[::-1]  # what comes later counts
        for name, content in zip(names, self.folder.read_all(names), strict=True):
            found |= decoded_states(content, self.folder.path(name))
        return found

    def _of(self, rung: int) -> list[str]:
        """The names of a rung's states."""
        return [name for name in self.folder.names(STATES) if name.startswith(f"{STATES}/{rung}-")]

    def forget(self, rung: int) -> None:
        """See `Store`."""
        self.loaded.clear()
        if self.first:
            self.folder.delete(self._of(rung))

    def finish(self, blocks: Iterator[Block]) -> None:
        """Writes the table of all results, which replaces the parts."""
        if self.first:
            if not self.folder.has(TABLE):
                settings = table.setting_columns(self.rows)
                content = self._encoded(table.block_table(b, settings, b.run) for b in blocks)
                # The manifest comes first, so that there is never a table without a digest.
                self.manifest = self.manifest._replace(table=digest(content))
                manifest.write(self.folder, self.manifest)
                self.folder.replace(TABLE, content)
            for group in (PARTS, STATES):
                self.folder.clear(group)

    def finished(self) -> Results | None:
        """See `Store`."""
        if not self.folder.has(TABLE):
            return None
        self.refresh()
        content, path = self.folder.read(TABLE), self.folder.path(TABLE)
        return parquet.results(content, path, self.manifest.table, self.rows)

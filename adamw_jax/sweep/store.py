"""Results on disk: one file per finished chunk, so that a kill loses only the one begun.

A sweep's directory holds

    sweep.json       which sweep this is, with its layouts
    parts/*.parquet  finished chunks, until the sweep is finished
    states/*.npz     states between two rungs of halving
    results.parquet  all of it in one table, once the sweep is finished
"""

import hashlib
import importlib.util
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from adamw_jax.sweep import processes
from adamw_jax.sweep.chunk import States
from adamw_jax.sweep.files import StoreError, locked, write_whole
from adamw_jax.sweep.grid import Row
from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.results import Result, dependencies, from_table, joined, to_table

FORMAT = 1


def description(rows: Sequence[Row], **rest: Any) -> dict[str, Any]:
    """What makes a sweep this one, as JSON: the grid, the versions and the rest."""
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    # Values are there to be read and compared by people; the digest decides.
    values = {name: list(dict.fromkeys(row[name] for row in rows)) for name in rows[0]}
    grid = {"values": values, "runs": len(rows), "digest": digest}
    described = {"format": FORMAT, "grid": grid, **rest, "versions": dependencies()}
    return json.loads(json.dumps(described))


def name_of(described: Mapping[str, Any]) -> str:
    """Twelve hex digits that stand for a description."""
    described = {name: value for name, value in described.items() if name != "format"}
    return _digest(json.dumps(described, sort_keys=True).encode())


class Memory:
    """Keeps results and states for the time of the call; what `Store` is without a disk."""

    def __init__(self, rows: Sequence[Row]):
        self.rows = rows
        self.parts: list[Result] = []
        self.layouts: dict[str, Layout] = {}
        self.states: dict[tuple[int, int], States] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        del error

    def write(self, rung: int, results: Sequence[Result], states: States | None) -> None:
        """Keeps a chunk's results and the states that they end in, stacked by run."""
        self.parts += results
        for i, result in enumerate(results if states else ()):
            self.states[rung, result.run] = [leaf[i] for leaf in states or ()]

    def read(self) -> list[Result]:
        """All results so far, joined by run."""
        return joined(self.parts)

    def state(self, rung: int, run: int) -> States:
        """The state of a run at the end of a rung, leaf by leaf."""
        return self.states[rung, run]

    def set_layout(self, group: str, layout: Layout) -> None:
        """Notes how a group of runs is laid out."""
        self.layouts[group] = layout

    def refresh(self) -> None:
        """Takes over what other processes noted."""

    def forget(self, rung: int) -> None:
        """Drops the states of a rung."""
        self.states = {key: state for key, state in self.states.items() if key[0] != rung}

    def finish(self, results: Sequence[Result]) -> None:
        """Nothing is left to be done."""


class Store(Memory):
    """A directory of results, held by one sweep at a time.

    Args:
      directory: of the results; made if need be.
      rows: the grid.
      described: what `description` says of the sweep.
      fresh: whether what is kept of the sweep is deleted first.
    """

    def __init__(
        self,
        directory: Path,
        rows: Sequence[Row],
        described: Mapping[str, Any],
        fresh: bool = False,
    ):
        super().__init__(rows)
        if importlib.util.find_spec("pyarrow") is None:
            raise ImportError(
                "a sweep with an output needs pyarrow: pip install 'adamw_jax[sweep]'"
            )
        self.directory = directory
        self.described = dict(described)
        self.fresh = fresh
        self.first = processes.index() == 0
        self.exit = ExitStack()
        self.loaded: dict[int, dict[int, States]] = {}

    def __enter__(self) -> Self:
        """Opens the directory.

        Raises:
          StoreError: another process writes here, or another sweep's results are here.
          OSError: the directory cannot be made or written.
        """
        with processes.together("opening the output"), ExitStack() as opening:
            self.directory.mkdir(parents=True, exist_ok=True)
            opening.enter_context(locked(self.directory / f".lock-{processes.index()}"))
            if self.first:
                self._identify()
                for folder in (self.directory, *self._folders):
                    for left in folder.glob(".tmp-*"):  # by a kill
                        left.unlink()
            self.exit = opening.pop_all()
        self.refresh()
        return self

    def __exit__(self, *error: object) -> None:
        self.exit.close()

    @property
    def _manifest(self) -> Path:
        return self.directory / "sweep.json"

    @property
    def _folders(self) -> list[Path]:
        return [self.directory / name for name in ("parts", "states")]

    def _held(self) -> Iterator[Path]:
        """Results, whole or in parts."""
        yield from self.directory.glob("results.parquet")
        for folder in self._folders:
            yield from (path for path in folder.glob("*") if not path.name.startswith(".tmp-"))

    def _identify(self) -> None:
        held = next(self._held(), None)
        found = _manifest(self._manifest) if self._manifest.exists() else None
        if found is None and held:
            name = held.relative_to(self.directory)
            raise StoreError(f"{self.directory} holds {name} of something else; {MEND}")
        layouts = found.pop("layouts", None) if found else None
        if found is None or (layouts is not None and not held):
            # A manifest without results claims nothing: the call that wrote it may have failed.
            if found != self.described:
                self._write_manifest()
            return
        self._compare(found)
        if self.fresh:
            self._write_manifest()
            for path in self._held():
                path.unlink()

    def _compare(self, found: Mapping[str, Any]) -> None:
        if found != self.described:
            raise StoreError(
                f"{self.directory} holds the results of another sweep: "
                f"{_difference(found, self.described)}; {MEND}"
            )

    def _write_manifest(self) -> None:
        content = {**self.described, "layouts": self.layouts}
        write_whole(self._manifest, json.dumps(content, indent=1).encode())

    def refresh(self) -> None:
        """Takes over what the first process noted."""
        layouts = _manifest(self._manifest).get("layouts", {})
        self.layouts = {group: Layout(*layout) for group, layout in layouts.items()}

    def set_layout(self, group: str, layout: Layout) -> None:
        """Notes how a group of runs is laid out, for every process and every resumption."""
        super().set_layout(group, layout)
        if self.first:
            self._write_manifest()

    def write(self, rung: int, results: Sequence[Result], states: States | None) -> None:
        """Puts a chunk on disk: the states first, since only results say that it is done."""
        name = f"{rung}-{results[0].run:07d}"
        if states is not None:
            content = io.BytesIO()
            runs = np.array([result.run for result in results])
            leaves: dict[str, Any] = {f"leaf{i}": leaf for i, leaf in enumerate(states)}
            np.savez(content, runs=runs, **leaves)
            write_whole(self.directory / "states" / f"{name}.npz", content.getvalue())
        content = _parquet(results)
        # The digest in the name tells of damage, of which Parquet does not always.
        path = self.directory / "parts" / f"{name}-{_digest(content)}.parquet"
        write_whole(path, content)

    def read(self) -> list[Result]:
        """All results so far, joined by run."""
        whole = self.directory / "results.parquet"
        paths = [whole] if whole.exists() else sorted(self.directory.glob("parts/*.parquet"))
        return joined(result for path in paths for result in self._read_table(path))

    def _read_table(self, path: Path) -> list[Result]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        content = path.read_bytes()
        with _damage(path, "its runs are done again"):
            *_, digest = path.stem.split("-")
            if path.parent.name == "parts" and digest != _digest(content):
                raise ValueError("it is not what was written")
            file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
            return from_table(file.read(), self.rows)

    def state(self, rung: int, run: int) -> States:
        """The state of a run at the end of a rung, leaf by leaf."""
        if rung not in self.loaded:
            paths = sorted((self.directory / "states").glob(f"{rung}-*.npz"))
            self.loaded = {rung: {run: s for path in paths for run, s in self._read_states(path)}}
        if run not in self.loaded[rung]:
            raise StoreError(
                f"{self.directory}/states has no state of run {run}; delete {self.directory} and "
                "start again"
            )
        return self.loaded[rung][run]

    def _read_states(self, path: Path) -> Iterator[tuple[int, States]]:
        with _damage(path, "start again"), path.open("rb") as file:
            arrays = dict(np.load(file))
            leaves = [arrays[f"leaf{i}"] for i in range(len(arrays) - 1)]
            states = [[leaf[i] for leaf in leaves] for i in range(len(arrays["runs"]))]
            runs = arrays["runs"].tolist()
        yield from zip(runs, states, strict=True)

    def forget(self, rung: int) -> None:
        """Drops the states of a rung."""
        self.loaded.clear()
        if self.first:
            for path in (self.directory / "states").glob(f"{rung}-*.npz"):
                path.unlink()

    def finish(self, results: Sequence[Result]) -> None:
        """Writes the table of all results, which takes the place of the parts."""
        if self.first:
            whole = self.directory / "results.parquet"
            if not whole.exists():
                write_whole(whole, _parquet(results))
            for folder in self._folders:
                shutil.rmtree(folder, ignore_errors=True)


MEND = "nothing was changed. Choose another output, or delete that directory"


def _parquet(results: Sequence[Result]) -> bytes:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(to_table(results), buffer, write_page_checksum=True)
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


@contextmanager
def _damage(path: Path, then: str) -> Iterator[None]:
    """Says of whatever goes wrong in reading a file that the file is damaged."""
    try:
        yield
    except Exception as error:  # what a damaged file makes its reader raise is anyone's guess
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise StoreError(f"{path} is damaged ({reason}); delete it, and {then}") from error


def _manifest(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        if isinstance(found, dict):
            return found
        reason = "it holds no object"
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        reason = str(error)
    raise StoreError(f"{path.parent} holds a {path.name} that is not a sweep's: {reason}; {MEND}")


def _difference(found: Mapping[str, Any], asked: Mapping[str, Any], of: str = "") -> str:
    """The first place where two descriptions differ, in words."""
    for name in {**asked, **found}:
        there, here = found.get(name), asked.get(name)
        if there == here:
            continue
        if isinstance(there, dict) and isinstance(here, dict):
            return _difference(there, here, f"{of}{name}: ")
        if name == "digest":
            return "the rows of the grid are combined or ordered otherwise, or of other types"
        return f"{of}{name} is {_short(there)} there and {_short(here)} here"
    return "they differ"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""The files in a sweep's directory, and whether they belong to this sweep."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adamw_jax.sweep import manifest, table
from adamw_jax.sweep.files import StoreError, digest
from adamw_jax.sweep.manifest import Manifest, ManifestError, name_of
from adamw_jax.sweep.program import Layout

MEND = "nothing was changed. Choose another directory, or delete this one"


class Files:
    """The files of a sweep's directory."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.manifest = directory / "sweep.json"
        self.table = directory / "results.parquet"
        self.parts, self.states = directory / "parts", directory / "states"

    def held(self) -> list[Path]:
        """The files that hold results or states."""
        files = [self.table, *self.parts.glob("*"), *self.states.glob("*")]
        return [path for path in files if path.exists() and not path.name.startswith(".tmp-")]

    def clean(self) -> None:
        """Deletes the half-written files that a kill has left."""
        for folder in (self.directory, self.parts, self.states):
            for path in folder.glob(".tmp-*"):
                path.unlink()


def claim(files: Files, asked: Manifest, fresh: bool) -> Manifest:
    """Takes a directory for a sweep, with the results of that sweep that it holds.

    Args:
      files: the files of the directory.
      asked: the sweep's manifest as it is before the sweep begins.
      fresh: whether to delete the sweep's results.

    Returns:
      The manifest that is now in the directory.

    Raises:
      StoreError: the results belong to another sweep, or it is not known to which.
    """
    held = files.held()
    found = _found(files, held, asked)
    if found and held and found.description != asked.description:
        told = manifest.difference(found.description, asked.description)
        raise StoreError(f"{files.directory} holds the results of another sweep: {told}; {MEND}")
    # A manifest without results claims nothing: the call that wrote it may have failed.
    if found and found.description == asked.description and not fresh:
        asked = found
    if files.table.exists() and not asked.table and not fresh:
        asked = asked._replace(table=digest(files.table.read_bytes()))
    # Results are deleted before their states and before the manifest with their layouts is
    # replaced, so that a kill in between leaves a sweep that can continue.
    for path in held if fresh else ():
        path.unlink()
    manifest.write(files.manifest, asked)
    files.clean()
    return asked


def _found(files: Files, held: Sequence[Path], asked: Manifest) -> Manifest | None:
    """The manifest in the directory, rebuilt if it is lost or damaged; None if there is none."""
    try:
        return manifest.read(files.manifest)
    except FileNotFoundError:
        return _rebuilt(files, held, asked, "is missing") if held else None
    except ManifestError as error:
        if held:
            return _rebuilt(files, held, asked, f"is damaged ({error})")
        raise StoreError(
            f"{files.manifest} is damaged ({error}). There are no results beside it: delete it, "
            "or choose another directory"
        ) from error


def _rebuilt(files: Files, held: Sequence[Path], asked: Manifest, fault: str) -> Manifest:
    """The manifest, rebuilt if all results say that they belong to this sweep.

    Raises:
      StoreError: a file of results does not say so.
    """
    origins = {path: _origin(path) for path in held if path.suffix == ".parquet"}
    name = name_of(asked.description)
    strange = [path for path, origin in origins.items() if origin.get("sweep") != name]
    if strange or not origins:
        path = (strange or held)[0]
        raise StoreError(
            f"{files.manifest} {fault}, and {path} is not known to be this sweep's; {MEND}"
        )
    warnings.warn(
        f"{files.manifest} {fault}. It is written anew: the {len(origins)} files of results in "
        f"{files.directory} are this sweep's, and are kept",
        stacklevel=2,
    )
    layouts: dict[str, Layout] = {}
    for origin in origins.values():
        for variant, sides in origin["layouts"].items():
            # The smallest layout is the latest, since layouts are only ever halved.
            known = layouts.get(variant, Layout(*sides))
            layouts[variant] = min(known, Layout(*sides), key=lambda layout: layout.width(1))
    return asked._replace(layouts=layouts)


def _origin(path: Path) -> dict[str, Any]:
    """The sweep and layouts that a file of results names; empty if it cannot be read."""
    try:
        return table.read_origin(path)
    except StoreError:
        return {}

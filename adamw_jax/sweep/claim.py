"""Takes a folder for a sweep, with what it holds of that sweep."""

import warnings
from collections.abc import Sequence
from typing import Any

from adamw_jax.sweep import manifest, parquet
from adamw_jax.sweep.files import StoreError, digest
from adamw_jax.sweep.folder import Folder
from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.manifest import Manifest, ManifestError, name_of

MEND = "nothing was changed. Choose another place, or delete what is there"

TABLE, PARTS, STATES = "results.parquet", "parts", "states"


def claim(folder: Folder, asked: Manifest, fresh: bool) -> Manifest:
    """Takes a folder for a sweep, with the results of that sweep that it holds.

    Args:
      folder: the folder, which is locked.
      asked: the sweep's manifest as it is before the sweep begins.
      fresh: whether to delete the sweep's results.

    Returns:
      The manifest that is now in the folder.

    Raises:
      StoreError: the results belong to another sweep, or it is not known to which.
    """
    groups = [[TABLE] if folder.has(TABLE) else [], folder.names(PARTS), folder.names(STATES)]
    held = [name for group in groups for name in group]
    found = _found(folder, held, asked)
    if found and held and found.description != asked.description:
        told = manifest.difference(found.description, asked.description)
        raise StoreError(f"{folder.path()} holds the results of another sweep: {told}; {MEND}")
    # A manifest without results claims nothing: the call that wrote it may have failed.
    if found and found.description == asked.description and not fresh:
        asked = found
    if TABLE in held and not asked.table and not fresh:
        asked = asked._replace(table=digest(folder.read(TABLE)))
    # Results are deleted before their states and before the manifest with their layouts is
    # replaced, so that a kill in between leaves a sweep that can continue.
    for group in groups if fresh else ():
        folder.delete(group)
    manifest.write(folder, asked)
    folder.clean()
    return asked


def _found(folder: Folder, held: Sequence[str], asked: Manifest) -> Manifest | None:
    """The manifest in the folder, rebuilt if it is lost or damaged; None if there is none."""
    try:
        return manifest.read(folder)
    except FileNotFoundError:
        return _rebuilt(folder, held, asked, "is missing") if held else None
    except ManifestError as error:
        if held:
            return _rebuilt(folder, held, asked, f"is damaged ({error})")
        raise StoreError(
            f"{folder.path(manifest.NAME)} is damaged ({error}). There are no results beside it: "
            "delete it, or choose another place"
        ) from error


def _rebuilt(folder: Folder, held: Sequence[str], asked: Manifest, fault: str) -> Manifest:
    """The manifest, rebuilt if all results say that they belong to this sweep.

    Raises:
      StoreError: a file of results does not say so.
    """
    path = folder.path(manifest.NAME)
    origins = {name: _origin(folder, name) for name in held if name.endswith(".parquet")}
    name = name_of(asked.description)
    strange = [each for each, origin in origins.items() if origin.get("sweep") != name]
    if strange or not origins:
        other = folder.path((strange or held)[0])
        raise StoreError(f"{path} {fault}, and {other} is not known to be this sweep's; {MEND}")
    warnings.warn(
        f"{path} {fault}. It is written anew: the {len(origins)} files of results in "
        f"{folder.path()} are this sweep's, and are kept",
        stacklevel=2,
    )
    layouts: dict[str, Layout] = {}
    for origin in origins.values():
        for variant, sides in origin["layouts"].items():
            # The smallest layout is the latest, since layouts are only ever halved.
            known = layouts.get(variant, Layout(*sides))
            layouts[variant] = min(known, Layout(*sides), key=lambda layout: layout.width(1))
    return asked._replace(layouts=layouts)


def _origin(folder: Folder, name: str) -> dict[str, Any]:
    """The sweep and layouts that a file of results names; empty if it cannot be read."""
    try:
        return parquet.read_origin(folder, name)
    except StoreError:
        return {}

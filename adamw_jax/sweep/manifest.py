"""The manifest of a sweep, `sweep.json`, which says which sweep a directory holds.

It holds the description of the sweep (grid, options, versions, digests of programs and data),
its layouts, the digest of the finished table, and a digest of all these. Format 1, which can
still be read, has no digest of the table and none of the whole.
"""

import hashlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax.sweep.files import StoreError, digest
from adamw_jax.sweep.folder import Folder
from adamw_jax.sweep.grid import Row
from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.variants import Variant
from adamw_jax.version import __version__

NAME = "sweep.json"
FORMAT = 2
CALLBACKS = "has callbacks"


class ManifestError(StoreError):
    """A manifest cannot be read; the message says what is wrong with it."""


class Manifest(NamedTuple):
    """What is known of a sweep besides its results.

    Attributes:
      description: what identifies the sweep, as JSON.
      layouts: the layouts of the variants that have one, by name.
      table: the digest of the finished table; None if there is no table yet.
      tries: how many workers have ended while they trained a run, for runs with at least one.
    """

    description: dict[str, Any]
    layouts: Mapping[str, Layout]
    table: str | None = None
    tries: Mapping[int, int] = MappingProxyType({})

    def encoded(self) -> bytes:
        """The file's content."""
        layouts = {name: [lay.lanes, lay.rounds] for name, lay in self.layouts.items()}
        content = {"format": FORMAT, **self.description, "layouts": layouts, "table": self.table}
        if self.tries:
            content["tries"] = {str(run): count for run, count in self.tries.items()}
        return json.dumps({**content, "digest": name_of(content)}, indent=1).encode()


def read(folder: Folder) -> Manifest:
    """Reads a folder's manifest.

    Raises:
      ManifestError: the file is damaged, or does not describe a sweep.
      StoreError: a later version of the library wrote it.
      FileNotFoundError: there is none.
    """
    content = folder.read(NAME)
    try:
        found = json.loads(content)
    except ValueError as error:  # also raised for a wrong encoding
        raise ManifestError(f"it is not JSON: {error}") from error
    if not isinstance(found, dict) or not {"format", "grid"} <= found.keys():
        raise ManifestError("it does not describe a sweep")
    own, written = found.pop("digest", None), found["format"]
    if written != 1 and own != name_of(found):
        raise ManifestError("it is not what was written")
    if written not in (1, FORMAT):
        raise StoreError(
            f"{folder.path(NAME)} has format {written!r}; this version of adamw_jax reads 1 and 2"
        )
    del found["format"]
    layouts, table = found.pop("layouts", {}), found.pop("table", None)
    tries = {int(run): count for run, count in found.pop("tries", {}).items()}
    return Manifest(found, _layouts(layouts), table, tries)


def write(folder: Folder, content: Manifest) -> None:
    """Writes a folder's manifest, unless it is that one already."""
    encoded = content.encoded()
    if not folder.has(NAME) or folder.read(NAME) != encoded:
        folder.replace(NAME, encoded)


def _layouts(found: Any) -> dict[str, Layout]:
    try:
        return {name: Layout(lanes, rounds) for name, (lanes, rounds) in found.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ManifestError(f"its layouts are not pairs of integers from 1 on: {found}") from error


def name_of(description: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that identify a description."""
    return digest(json.dumps(description, sort_keys=True).encode())


def describe(
    rows: Sequence[Row], variants: Sequence[Variant], data: Any, **options: Any
) -> dict[str, Any]:
    """What identifies a sweep, as JSON.

    Args:
      rows: the grid.
      variants: the variants, each of which has a program.
      data: the data that all runs get.
      options: the other arguments of `sweep` that affect its results.
    """
    described = {
        "grid": describe_grid(rows),
        **options,
        "lengths": [variant.run.length for variant in variants],
        "versions": dependencies(),
        "programs": [digest_of_program(variant, data) for variant in variants],
        "data": digest_of_data(data),
    }
    return json.loads(json.dumps(described))


def describe_grid(rows: Sequence[Row]) -> dict[str, Any]:
    """The grid's values, for people to read, and its digest, by which grids are compared."""
    values = {name: list(dict.fromkeys(row[name] for row in rows)) for name in rows[0]}
    whole = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return json.loads(json.dumps({"values": values, "runs": len(rows), "digest": whole}))


def difference(found: Mapping[str, Any], asked: Mapping[str, Any], of: str = "") -> str:
    """The first place where two descriptions differ, in words."""
    for name in {**asked, **found}:
        there, here = found.get(name), asked.get(name)
        if there == here:
            continue
        if isinstance(there, dict) and isinstance(here, dict):
            return difference(there, here, f"{of}{name}: ")
        if name == "digest":
            return "the rows of the grid have another order or other types"
        return f"{of}{name} is {_short(there)} there and {_short(here)} here"
    return "they differ"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def dependencies() -> dict[str, str]:
    """The versions of the packages that affect a result."""
    return {
        "jax_version": jax.__version__,
        "jaxlib_version": version("jaxlib"),
        "adamw_jax_version": __version__,
    }


def versions() -> dict[str, str]:
    """The version of Python, and those in `dependencies`."""
    return {"python_version": platform.python_version(), **dependencies()}


def digest_of_program(variant: Variant, data: Any) -> str:
    """Sixteen hexadecimal digits that identify a run's two functions, as given to the compiler.

    They change with what is computed and with the names of jitted functions, but not with
    comments. A program that calls back into Python contains the address of the Python
    function, which differs from process to process, so all such programs get the same text
    instead.
    """
    numbers = {name: jax.ShapeDtypeStruct((), dtype) for name, dtype in variant.numbers.items()}
    start, advance = jax.jit(variant.run.start), jax.jit(variant.run.advance)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(start, numbers, key, data)
    text = start.lower(numbers, key, data).as_text() + advance.lower(state, data).as_text()
    calls_back = re.search(r"custom_call @\w*callback", text)
    return CALLBACKS if calls_back else hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_of_data(data: Any) -> str:
    """Sixteen hexadecimal digits that identify all arrays, their shapes and dtypes."""
    found = hashlib.sha256(str(jax.tree.structure(data)).encode())
    for leaf in map(jnp.asarray, jax.tree.leaves(data)):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        found.update(f"{leaf.dtype}{leaf.shape}".encode())
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()[:16]

"""Where a sweep's files are: in a directory, or below an address of an object store."""

import importlib.util
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from adamw_jax.sweep.directory import Directory

SCHEMES = ("s3", "gs", "az")


class Folder(Protocol):
    """A folder of named files, each of which is there whole or not at all.

    A name may have one slash, as in "parts/0-12.parquet". All methods raise StoreError or
    OSError with a message that names the file.
    """

    def path(self, name: str = "") -> str:
        """The full path or address of a file, or of the folder, for people to read."""
        ...

    def within(self, name: str) -> "Folder":
        """A folder in this one."""
        ...

    def holding(self, name: str) -> Sequence["Folder"]:
        """The folders in this one that have a file of that name, the newest such file last."""
        ...

    def locked(self, process: int) -> AbstractContextManager[None]:
        """Keeps other sweeps out, which would use the same number of a process.

        Raises:
          StoreError: another process keeps this one out.
        """
        ...

    def clean(self) -> None:
        """Deletes what a kill in the midst of writing has left."""

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        ...

    def names(self, group: str) -> Sequence[str]:
        """The names, in order, of all files whose names begin with `group` and a slash."""
        ...

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
          FileNotFoundError: there is no such file.
        """
        ...

    def read_all(self, names: Sequence[str]) -> Iterator[bytes]:
        """The contents of files, in the order of the names."""
        ...

    def create(self, name: str, content: bytes) -> None:
        """Writes a file whose name is that of no other content."""

    def replace(self, name: str, content: bytes) -> None:
        """Writes a file, whatever it held before."""

    def delete(self, names: Iterable[str]) -> None:
        """Deletes files."""

    def clear(self, group: str) -> None:
        """Deletes all files whose names begin with `group` and a slash."""


def opened(place: str | Path) -> Folder:
    """The folder at a path, or at an address such as "s3://bucket/prefix".

    Raises:
      ValueError: it is an address of another kind, or not written as one.
      ImportError: obstore is not installed.
    """
    scheme, is_address, rest = str(place).partition("://")
    if isinstance(place, Path) or not is_address:
        if isinstance(place, Path) and re.match(rf"({'|'.join(SCHEMES)}):/", place.as_posix()):
            raise ValueError(f"an address is given as a string, not as a Path; got {place!r}")
        return Directory(Path(place))
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise ValueError(
            f"results are kept in a directory or at an address that begins with {known}; got one "
            f"that begins with {scheme}://"
        )
    if not rest.strip("/") or set(rest) & set("@?#") or "//" in rest:
        raise ValueError(
            f"an address of results is {scheme}://bucket/prefix, without user, query or fragment"
        )
    if importlib.util.find_spec("obstore") is None:
        raise ImportError(
            f"keeping a sweep at {scheme}:// needs obstore: pip install 'adamw_jax[objects]'"
        )
    from adamw_jax.sweep.bucket import Bucket

    return Bucket(str(place))

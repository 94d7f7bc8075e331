"""A folder on this machine's disk, or on one that is mounted."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from adamw_jax.sweep.files import locked, write_whole


class Directory:
    """See `Folder`; files are synced and renamed, and a lock is one of the operating system."""

    def __init__(self, directory: Path):
        self.directory = directory

    def path(self, name: str = "") -> str:
        """See `Folder`."""
        return str(self.directory / name)

    def within(self, name: str) -> "Directory":
        """See `Folder`."""
        return Directory(self.directory / name)

    def holding(self, name: str) -> list["Directory"]:
        """See `Folder`."""
        paths = sorted(self.directory.glob(f"*/{name}"), key=lambda path: path.stat().st_mtime)
        return [Directory(path.parent) for path in paths]

    @contextmanager
    def locked(self, process: int) -> Iterator[None]:
        """See `Folder`; creates the directory."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with locked(self.directory / f".lock-{process}"):
            yield

    def clean(self) -> None:
        """See `Folder`."""
        for pattern in (".tmp-*", "parts/.tmp-*", "states/.tmp-*"):
            for path in self.directory.glob(pattern):
                path.unlink()

    def has(self, name: str) -> bool:
        """See `Folder`."""
        return (self.directory / name).exists()

    def names(self, group: str) -> list[str]:
        """See `Folder`; half-written files are left out."""
        paths = sorted((self.directory / group).glob("*"))
        return [f"{group}/{path.name}" for path in paths if not path.name.startswith(".tmp-")]

    def read(self, name: str) -> bytes:
        """See `Folder`."""
        return (self.directory / name).read_bytes()

    def read_all(self, names: Sequence[str]) -> Iterator[bytes]:
        """See `Folder`."""
        return map(self.read, names)

    def create(self, name: str, content: bytes) -> None:
        """See `Folder`."""
        write_whole(self.directory / name, content)

    def replace(self, name: str, content: bytes) -> None:
        """See `Folder`."""
        write_whole(self.directory / name, content)

    def delete(self, names: Iterable[str]) -> None:
        """See `Folder`."""
        for name in names:
            (self.directory / name).unlink()

    def clear(self, group: str) -> None:
        """See `Folder`."""
        shutil.rmtree(self.directory / group, ignore_errors=True)

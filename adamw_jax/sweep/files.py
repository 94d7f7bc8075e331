"""Files that are there whole or not at all."""

import errno
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None


class StoreError(RuntimeError):
    """A directory of results cannot be used; the message says why and what to do."""


def digest(content: bytes) -> str:
    """Twelve hex digits that change with any change of the content."""
    return hashlib.sha256(content).hexdigest()[:12]


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file under another name, syncs it and renames it.

    A full disk or a kill leaves the older file as it was.

    Raises:
      OSError: naming the file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as file:
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).chmod(0o644)
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the name, too
        finally:
            os.close(directory)
    except OSError as error:  # which does not always name the file
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock on a file; it ends with the process, however that ends.

    Raises:
      StoreError: another process holds the lock, or this system has no such locks.
      OSError: the file cannot be opened; the error names it.
    """
    if fcntl is None:
        raise StoreError(
            f"results cannot be kept in {path.parent}: this needs file locks (Python's fcntl), "
            f"which {sys.platform} does not have. Without `output` and `cache` a sweep runs in "
            "memory"
        )
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise StoreError(
            f"another process is writing into {path.parent}; wait for it, or choose another "
            "directory"
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def damage(path: Path, then: str) -> Iterator[None]:
    """Says of whatever goes wrong in reading a file that the file is damaged.

    Args:
      path: of the file.
      then: what happens once the file is deleted.

    Raises:
      StoreError: in the place of any other error.
    """
    try:
        yield
    except Exception as error:  # what a damaged file makes its reader raise is anyone's guess
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise StoreError(f"{path} is damaged ({reason}); delete it, and {then}") from error

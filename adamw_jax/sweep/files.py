"""Files that are written whole or not at all, locks, and errors for damaged files."""

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
    """Twelve hexadecimal digits that change with the content."""
    return hashlib.sha256(content).hexdigest()[:12]


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name, syncs it and renames it.

    If the disk is full or the process is killed, the older file stays as it was.

    Raises:
      OSError: the file cannot be written; the error names it.
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
            os.fsync(directory)  # so that the name is on disk, too
        finally:
            os.close(directory)
    except OSError as error:  # raised anew, since it does not always name the file
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock on a file, which is released when the process ends, in whatever way.

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
def damage(path: str, then: str) -> Iterator[None]:
    """Turns any error in reading a file into one that says that the file is damaged.

    Args:
      path: the file's path or address.
      then: what to do, or what happens, once the file is deleted; ends the message.

    Raises:
      StoreError: instead of any other error.
    """
    try:
        yield
    except Exception as error:  # a reader may raise anything on a damaged file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise StoreError(f"{path} is damaged ({reason}); delete it, and {then}") from error

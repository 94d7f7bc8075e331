"""Files that are there whole or not at all."""

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StoreError(RuntimeError):
    """A directory of results that cannot be used; the message says why and what to do."""


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file beside its place, syncs it and moves it there.

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
    except OSError as error:  # which does not always know the file
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a file's lock, which ends with the process, however that ends.

    Raises:
      StoreError: another process holds it.
      OSError: naming the file, which cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise StoreError(
            f"another process is writing into {path.parent}; wait for it, or choose another output"
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)

"""A folder below an address of an object store, which is reached by obstore.

There are no locks and no renames here. Instead, every write has a condition: that there is no such
object yet, or that it is the version that was seen before. One process at a time holds a lease;
another that lost it while it was stopped cannot overwrite anything.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import obstore

from adamw_jax.sweep import connection
from adamw_jax.sweep.connection import answered, connected, got, listed, told, version_of
from adamw_jax.sweep.files import StoreError
from adamw_jax.sweep.lease import Conflict, Lease, Version, leased

AHEAD = 16  # how many files are requested at a time


class Bucket:
    """See `Folder`; credentials come from the environment and stay in obstore."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.quick = connected(self.url, connection.QUICK)
        self.patient = connected(self.url, connection.PATIENT)
        self.lease: Lease | None = None

    def __reduce__(self):
        raise TypeError("an object store is not pickled: it may hold credentials")

    def path(self, name: str = "") -> str:
        """See `Folder`."""
        return f"{self.url}/{name}" if name else self.url

    def within(self, name: str) -> "Bucket":
        """See `Folder`."""
        return Bucket(self.path(name))

    def holding(self, name: str) -> list["Bucket"]:
        """See `Folder`."""
        self._reach()
        found = [each for each in self._listed() if each["path"].partition("/")[2] == name]
        found.sort(key=lambda each: each["last_modified"])
        return [self.within(each["path"].partition("/")[0]) for each in found]

    @contextmanager
    def locked(self, process: int) -> Iterator[None]:
        """See `Folder`; waits for a lease of a process that was killed to run out."""
        self._reach()
        with leased(self, f".lease-{process}") as lease:
            self.lease = lease
            try:
                yield
            finally:
                self.lease = None

    def clean(self) -> None:
        """Does nothing: an object is there whole or not at all."""

    def has(self, name: str) -> bool:
        """See `Folder`."""
        return self._version(name) is not None

    def names(self, group: str) -> list[str]:
        """See `Folder`."""
        return sorted(each["path"] for each in self._listed(group))

    def read(self, name: str) -> bytes:
        """See `Folder`."""
        with told(self.path(name)):
            return answered(got, self.patient, name)[0]

    def read_all(self, names: Sequence[str]) -> Iterator[bytes]:
        """See `Folder`; some are requested ahead, at the same time."""
        with ThreadPoolExecutor(AHEAD) as pool:
            ahead = deque[Future[bytes]]()
            for name in names:
                ahead.append(pool.submit(self.read, name))
                if len(ahead) == AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def create(self, name: str, content: bytes) -> None:
        """See `Folder`."""
        self._write(name, content, None)

    def replace(self, name: str, content: bytes) -> None:
        """See `Folder`."""
        self._write(name, content, self._version(name))

    def delete(self, names: Iterable[str]) -> None:
        """See `Folder`."""
        if names := list(names):
            # Stores delete without a condition. What is deleted is superfluous even to a process
            # that takes the lease over after this look, except if a sweep is made fresh.
            self._check()
            with suppress(FileNotFoundError), told(self.url):
                answered(obstore.delete, self.quick, names)

    def clear(self, group: str) -> None:
        """See `Folder`."""
        self.delete(self.names(group))

    def current(self, name: str) -> tuple[bytes, Version]:
        """A small object's content, and its version."""
        with told(self.path(name)):
            return answered(got, self.quick, name)

    def put(self, name: str, content: bytes, expected: Version) -> Version:
        """Writes an object if it is in the expected version; returns the new one.

        Raises:
          Conflict: it is in another version, or this write took place and the answer was lost.
        """
        client = self.quick if len(content) < 2**16 else self.patient
        mode: Any = "create" if expected is None else expected
        with told(self.path(name)):
            return version_of(answered(obstore.put, client, name, content, mode=mode))

    def _write(self, name: str, content: bytes, seen: Version) -> None:
        # The version was seen before the lease is checked. So if another process takes the lease
        # over after that, and writes, then the version has changed, and this write fails.
        self._check()
        try:
            self.put(name, content, seen)
        except Conflict:
            if self.read(name) != content:
                raise StoreError(
                    f"{self.path(name)} was written by another process; what was there is kept"
                ) from None

    def _check(self) -> None:
        if self.lease:
            self.lease.check()

    def _reach(self) -> None:
        """Makes a first request, whose failure is soon told."""
        first = connected(self.url, connection.QUICK, connection.FIRST_RETRIES)
        with suppress(FileNotFoundError), told(self.url):
            answered(obstore.get, first, "sweep.json")

    def _version(self, name: str) -> Version:
        with suppress(FileNotFoundError), told(self.path(name)):
            return version_of(answered(obstore.head, self.quick, name))
        return None

    def _listed(self, group: str | None = None) -> list[Any]:
        with told(self.path(group or "")):
            return answered(listed, self.quick, group)

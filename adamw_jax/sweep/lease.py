"""A lease: who may write below an address of an object store, where there are no locks.

An object names its holder, who writes it anew every few seconds. A process that has seen it
unchanged for as long as the lease lasts takes it over, under the condition that it is unchanged
still. Durations are measured by each process alone, so that clocks need not agree.
"""

import json
import os
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple, Protocol

from adamw_jax.sweep.files import StoreError, damage
from adamw_jax.sweep.interrupts import raise_noted

LASTS = 30.0  # seconds without a sign of the holder, after which the lease is anyone's

# What a store says of an object's content at a time, such as its ETag; None if there is none.
Version = Mapping[str, str] | None


class Conflict(Exception):
    """An object is not in the version that was the condition of a write."""


class Objects(Protocol):
    """What a lease needs of a store."""

    def path(self, name: str) -> str:
        """An object's full address."""
        ...

    def current(self, name: str) -> tuple[bytes, Version]:
        """An object's content, and its version."""
        ...

    def put(self, name: str, content: bytes, expected: Version) -> Version:
        """Writes an object if it is in the expected version; returns the new one.

        Raises:
          Conflict: it is not.
        """
        ...


class Holder(NamedTuple):
    """What is in the object.

    Attributes:
      token: random, a different one for each lease; None if nobody holds it.
      process: the process, for people.
      lasts: how many seconds the lease lasts from now on.
      renewed: counts renewals, so that each has another content.
    """

    token: str | None
    process: str
    lasts: float
    renewed: int


class Lease:
    """A lease that this process holds.

    Raises:
      StoreError: another process holds it, or the store ignores conditions.
    """

    def __init__(self, objects: Objects, name: str):
        self.objects, self.name, self.ended = objects, name, threading.Event()
        process = f"process {os.getpid()} on {socket.gethostname()}"
        self.mine = Holder(uuid.uuid4().hex, process, LASTS, 0)
        self.version: Version = None
        self._take()
        self._check_conditions()
        self.thread = threading.Thread(target=self._renew, name=name, daemon=True)
        self.thread.start()

    def check(self) -> None:
        """Checks that this process still holds the lease.

        Raises:
          StoreError: it does not.
        """
        holder, _ = self._found()
        if holder.token != self.mine.token:
            raise StoreError(
                f"{holder.process} has taken over {self.objects.path('')}, since nothing was heard "
                f"of this process for {self.mine.lasts:g} seconds; what it wrote is kept"
            )

    def release(self) -> None:
        """Ends the lease; if the store cannot be reached, it runs out by itself."""
        self.ended.set()
        self.thread.join()
        with suppress(StoreError):
            self._write(self.mine._replace(token=None))

    def _found(self) -> tuple[Holder, Version]:
        try:
            content, version = self.objects.current(self.name)
        except FileNotFoundError:
            return Holder(None, "somebody", 0, 0), None
        with damage(self.objects.path(self.name), "start again"):
            return Holder(**json.loads(content)), version

    def _put(self, holder: Holder) -> None:
        content = json.dumps(holder._asdict()).encode()
        self.version = self.objects.put(self.name, content, self.version)

    def _take(self) -> None:
        while True:
            try:
                return self._put(self.mine)
            except Conflict:
                holder, self.version = self._found()
                if holder.token == self.mine.token:  # the answer to the first attempt was lost
                    return
                if holder.token is not None:
                    self._wait(holder)

    def _wait(self, holder: Holder) -> None:
        """Waits until the lease of another process is released or has run out.

        Raises:
          StoreError: it is renewed.
        """
        place = self.objects.path("")
        warnings.warn(
            f"{holder.process} may be writing into {place}: waiting up to {holder.lasts:g} seconds "
            "for a sign of it",
            stacklevel=2,
        )
        until = time.monotonic() + holder.lasts
        while time.monotonic() < until:
            time.sleep(holder.lasts / 30)
            raise_noted()
            other, version = self._found()
            if version != self.version and other.token is not None:
                raise StoreError(
                    f"another process is writing into {place} ({other.process}); wait for it, or "
                    "choose another place"
                )
            if version != self.version:
                self.version = version
                return

    def _check_conditions(self) -> None:
        """Checks that the store obeys conditions, without which nothing here would be safe."""
        outdated, now = self.version, self.mine._replace(renewed=1)
        self._write(now)
        for version in None, outdated:
            with suppress(Conflict):
                self.objects.put(self.name, json.dumps(now._asdict()).encode(), version)
                raise StoreError(
                    f"{self.objects.path('')} is in a store that ignores the conditions of writes "
                    "(If-None-Match and If-Match), without which two sweeps would mix; choose "
                    "another store"
                )

    def _renew(self) -> None:
        renewed = 1
        while not self.ended.wait(self.mine.lasts / 3):
            renewed += 1
            # If the store cannot be reached, the next time may come before the lease runs out.
            with suppress(StoreError):
                if not self._write(self.mine._replace(renewed=renewed)):
                    return

    def _write(self, holder: Holder) -> bool:
        """Writes the object if the lease is this process's; returns whether it is."""
        for _ in range(2):
            try:
                self._put(holder)
                return True
            except Conflict:  # or the answer to an earlier write was lost
                found, version = self._found()
                if found.token != self.mine.token:
                    return False
                self.version = version
        return True


@contextmanager
def leased(objects: Objects, name: str) -> Iterator[Lease]:
    """Holds a lease within the block."""
    lease = Lease(objects, name)
    try:
        yield lease
    finally:
        lease.release()

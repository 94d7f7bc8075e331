"""Several processes of one sweep, started with `jax.distributed`."""

from collections.abc import Sequence
from typing import TypeVar

import jax
from jax.experimental import multihost_utils

T = TypeVar("T")


def index() -> int:
    """This process's number."""
    return jax.process_index()


def count() -> int:
    """How many there are."""
    return jax.process_count()


def wait(name: str) -> None:
    """Until every process is here; `name` tells the places apart."""
    if count() > 1:
        multihost_utils.sync_global_devices(f"adamw_jax.sweep {name}")


def share(items: Sequence[T]) -> Sequence[T]:
    """The part of the items that is this process's: each takes about as many, in order."""
    size, i, n = len(items), index(), count()
    return items[size * i // n : size * (i + 1) // n]

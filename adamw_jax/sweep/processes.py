"""The processes of one sweep, where `jax.distributed` has joined several."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from adamw_jax.sweep.files import StoreError

T = TypeVar("T")


def index() -> int:
    """This process's number."""
    return jax.process_index()


def count() -> int:
    """How many processes work on the sweep."""
    return jax.process_count()


@contextmanager
def together(doing: str) -> Iterator[None]:
    """A piece of work that no process leaves before all have done it.

    Args:
      doing: what the work is, for the message.

    Raises:
      StoreError: it failed in another process, for which all others would wait otherwise.
    """
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        if count() == 1:
            raise
        error = raised
    if count() > 1:
        failed = multihost_utils.process_allgather(np.array(error is not None))
        if error is not None:
            raise error
        if np.any(failed):
            raise StoreError(f"another process failed in {doing}; its own message says why")


def own(items: Sequence[T]) -> Sequence[T]:
    """This process's part of the items, which are divided evenly and in order."""
    size, i, n = len(items), index(), count()
    return items[size * i // n : size * (i + 1) // n]

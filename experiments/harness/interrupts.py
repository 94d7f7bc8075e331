"""Ctrl-C at the command line: one line in words and exit status 130, at any moment.

Python's own KeyboardInterrupt may be raised anywhere: in a half-finished import, in a callback
that swallows it, in the middle of a compilation. So the process of a command line ends in the
signal's handler itself. Nothing is lost by that: files are written whole, and a sweep survives
a kill at any moment.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

STATUS = 128 + signal.SIGINT

_kept: list[Callable[[], str]] = []


def end_process() -> None:
    """Makes Ctrl-C end this process from now on, unless it was started so as to ignore Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def ignore() -> None:
    """Makes Ctrl-C do nothing from now on: all is done, but Python takes a moment to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def keeping(what: Callable[[], str]) -> Iterator[None]:
    """Within the block, Ctrl-C also says what is kept and how to go on."""
    _kept.append(what)
    try:
        yield
    finally:
        _kept.pop()


def _end(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    # os.write, because the signal may have come while Python's own streams were writing.
    if os.isatty(1):
        os.write(1, b"\n\x1b[?25h")  # below the progress bar, which hides the cursor
    kept = _kept[-1]() if _kept else "no report was written"
    os.write(2, f"error: stopped; {kept}\n".encode())
    os._exit(STATUS)

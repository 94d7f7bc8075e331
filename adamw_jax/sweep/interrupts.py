"""Ctrl-C, raised where nothing swallows it.

Python raises KeyboardInterrupt wherever the main thread happens to be. In a callback of the
garbage collector (JAX has one) the exception is printed and lost; in an import or a compilation
it leaves something half done, which may fail later. So the signal is only noted while such work
goes on, and the exception is raised at the next point between two pieces of work:

    with held():
        for piece in work:
            piece()
            raise_noted()
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_noted = False


@contextmanager
def held() -> Iterator[None]:
    """Notes the first Ctrl-C within the block; `raise_noted` or the block's end raises it.

    A second Ctrl-C is raised at once. Blocks may be nested. This does nothing outside the main
    thread, or if the program has its own handler for SIGINT.

    Raises:
      KeyboardInterrupt: at the end, if Ctrl-C was noted; any other exception becomes its context.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        raise_noted()
        return
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise_noted()


@contextmanager
def released() -> Iterator[None]:
    """Within `held`, lets Ctrl-C be raised at once, in a block that only waits for others."""
    ours = signal.getsignal(signal.SIGINT) is _note
    raise_noted()
    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, _note)


def raise_noted() -> None:
    """Raises the KeyboardInterrupt that was held back, if there is one."""
    global _noted
    if _noted and threading.current_thread() is threading.main_thread():
        _noted = False
        raise KeyboardInterrupt


def _note(signal_number: int, frame: object) -> None:
    del signal_number, frame
    global _noted
    if _noted:
        raise KeyboardInterrupt
    _noted = True

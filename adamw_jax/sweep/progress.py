"""The progress of a sweep: how it is measured, shown and passed to listeners."""

import math
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from adamw_jax.sweep.interrupts import raise_noted
from adamw_jax.sweep.results import RUNNING, Block


class Progress(NamedTuple):
    """How far a sweep has come.

    Attributes:
      finished: how many runs have ended, including those of earlier calls.
      runs: how many runs there are.
      share: the fraction of this process's work that is done, in [0, 1].
      seconds_left: estimated from the speed so far; NaN before there is any.
      doing: "compiling", "training" or "done".
      kept: how many runs had ended before this call; all of them if nothing is left to train.
    """

    finished: int
    runs: int
    share: float
    seconds_left: float
    doing: str
    kept: int = 0


Listener = Callable[[Progress], None]


class Meter:
    """Counts advances and tells a listener of the progress.

    Args:
      listener: told of every change; None for none.
      runs: how many runs there are.
    """

    def __init__(self, listener: Listener | None, runs: int):
        self.listener = listener or (lambda progress: None)
        self.runs, self.finished, self.kept = runs, 0, 0
        self.total = self.done = 0.0
        # The number of advances that were timed, and the seconds that they took.
        self.measured, self.spent = 0, 0.0
        # How many chunks are being trained, and how many of their advances are known to be made.
        self.chunks, self.told = 0, 0

    def expect(self, total: float, done: float, ended: int) -> None:
        """Sets how many advances there are, how many are done, and how many runs have ended."""
        self.total, self.done, self.finished, self.kept = total, done, ended, ended

    def doing(self, what: str) -> None:
        """Tells the listener what is being done, and raises a Ctrl-C that was held back."""
        done = min(self.done + self.told, self.total)
        each = self.spent / self.measured if self.measured else math.nan
        seconds = (self.total - done) * each / max(self.chunks, 1)
        share = done / self.total if self.total else 0.0
        self.listener(Progress(self.finished, self.runs, share, seconds, what, self.kept))
        raise_noted()

    def advanced(self, runs: int, seconds: float) -> None:
        """Counts one advance of `runs` runs, which took `seconds`."""
        self.told += runs
        self.measured += runs
        self.spent += seconds
        self.doing("training")

    def sent(self) -> None:
        """Counts a chunk that is about to be trained."""
        self.chunks += 1

    def returned(self, advances: int, results: Block | None) -> None:
        """Counts a chunk of so many advances, whether or not all were made, and its results."""
        if results and not self.told:  # it was trained where nobody told of single advances
            self.measured += len(results.advance)
            self.spent += float(results.seconds.sum())
        self.done += advances
        self.chunks, self.told = self.chunks - 1, 0
        self.finished += 0 if results is None else int((results.status != RUNNING).sum())
        self.doing("training")

    def over(self) -> None:
        """Tells the listener that all runs have ended."""
        self.finished, self.done = self.runs, self.total
        self.doing("done")


def to_stderr() -> Listener:
    """A listener that keeps one line of the terminal up to date; a file gets a line a minute."""
    terminal, last = sys.stderr.isatty(), -1e9

    def listen(progress: Progress) -> None:
        nonlocal last
        over = progress.doing == "done"
        if over or time.monotonic() - last > (0.2 if terminal else 60):
            last = time.monotonic()
            print(line(progress), end="\n" if over or not terminal else "\r", file=sys.stderr)

    return listen


def line(progress: Progress) -> str:
    """The progress as a line of 78 characters."""
    done = f"{progress.finished}/{progress.runs} runs, {100 * progress.share:.0f} %"
    return f"{done}{time_left(progress)}  {progress.doing}"[:78].ljust(78)


def time_left(progress: Progress) -> str:
    """The time left, such as ", 12 min left"; empty where it is not known."""
    seconds = progress.seconds_left
    if math.isnan(seconds) or progress.share == 1:
        return ""
    return f", {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Seconds in words, such as "3.2 s" or "12 min"."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

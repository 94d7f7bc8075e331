"""What an experiment is given besides its settings."""

from pathlib import Path
from typing import NamedTuple

from rich.console import Console


class Context(NamedTuple):
    """Surroundings of a run.

    Attributes:
      console: the terminal.
      output: the directory of the results.
      data_dir: where data sets lie, or None for the default.
      fresh: whether finished runs are done again.
    """

    console: Console
    output: Path
    data_dir: Path | None
    fresh: bool


class Interrupted(RuntimeError):
    """The user stopped the work; the message says what is kept and how to go on."""

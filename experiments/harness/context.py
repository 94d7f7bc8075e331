"""What an experiment is given besides its settings."""

from pathlib import Path
from typing import NamedTuple

from rich.console import Console


class Context(NamedTuple):
    """The surroundings of an experiment.

    Attributes:
      console: the terminal.
      output: the directory of the results.
      data_dir: the directory of the data sets, or None for the default.
      fresh: whether to do finished runs again.
      kept: a directory whose `sweeps` hold all runs, so that none is done; None to do them.
    """

    console: Console
    output: Path
    data_dir: Path | None
    fresh: bool
    kept: Path | None = None

    def cache(self, name: str) -> Path:
        """The directory that keeps the sweeps of a name, for `sweep.sweep` and `sweep.kept`."""
        return (self.kept or self.output) / "sweeps" / name

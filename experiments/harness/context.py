"""What an experiment is given besides its settings."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console


@dataclass
class Context:
    """The surroundings of an experiment.

    Attributes:
      console: the terminal.
      output: the directory of the results.
      data_dir: the directory of the data sets, or None for the default.
      fresh: whether to do finished runs again.
      kept: a directory whose `sweeps` hold all runs, so that none is done; None to do them.
      reused: whether a sweep found all its runs kept; `run_grid` sets it.
    """

    console: Console
    output: Path
    data_dir: Path | None
    fresh: bool
    kept: Path | None = None
    reused: bool = False

    def cache(self, name: str) -> Path:
        """The directory that keeps the sweeps of a name, for `sweep.sweep` and `sweep.kept`."""
        return (self.kept or self.output) / "sweeps" / name

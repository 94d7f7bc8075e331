"""Sweeps of the experiments: kept in the output, shown in the terminal, compiled once."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import pooch
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from adamw_jax import sweep
from adamw_jax.sweep.files import locked
from adamw_jax.sweep.grid import normalized
from adamw_jax.sweep.groups import groups
from adamw_jax.sweep.identity import digest_of_data, digest_of_program
from adamw_jax.sweep.results import dependencies
from experiments.harness.context import Context, Interrupted


def use_every_core() -> None:
    """A device for each core of the CPU, so that sweeps train on all of them at once.

    For the command line, before JAX does anything; a library leaves JAX's settings alone.
    """
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def cache_programs() -> None:
    """Keeps every compiled program on disk, so that a second start compiles nothing.

    For the command line, too. JAX's own settings, such as the variable
    JAX_COMPILATION_CACHE_DIR, go before. It has no bound:
    with one, a kill at the wrong moment ends all further writes (jax-ml/jax#39880).
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = Path(pooch.os_cache("adamw_jax")) / "programs"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


class Sweep:
    """A sweep of an experiment.

    Args:
      name: in the terminal and on disk.
      run: as in `sweep.sweep`.
      grid: rows of settings.
      data: for all runs.
      context: where the results are kept, and the terminal.
      watch: as in `sweep.sweep`.

    Attributes:
      output: where the results are, or will be: another program, grid, data or version of
        what they depend on, another place.
    """

    def __init__(
        self,
        name: str,
        run: sweep.Run | Callable[[sweep.Row], sweep.Run],
        grid: Sequence[sweep.Row],
        data: Any,
        context: Context,
        watch: Sequence[str] | None = None,
    ):
        self.name, self.run, self.grid, self.data = name, run, grid, data
        self.context, self.watch = context, watch
        parts = list(groups(run, normalized(grid), static=()))
        what = (
            *(digest_of_program(part, data) for part in parts),
            digest_of_data(data),
            *(part.run.length for part in parts),
            grid,
            dependencies(),
        )
        digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()
        self.output = context.output / "sweeps" / f"{name}-{digest[:12]}"

    @property
    def finished(self) -> bool:
        """Whether all runs are done."""
        return (self.output / "results.parquet").exists()

    def results(self) -> list[sweep.Result]:
        """Does every run that is not yet done.

        Returns:
          A result for each row of the grid.

        Raises:
          Interrupted: the user stopped; finished runs are kept.
          StoreError: another process does the same sweep.
        """
        if self.context.fresh and self.output.exists():
            lock = self.output / ".lock-0"
            with locked(lock):
                for entry in set(self.output.iterdir()) - {lock}:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if self.finished:
            note = f"{self.name}: taken from {self.output} (--fresh does it again)"
            self.context.console.print(note, markup=False, soft_wrap=True)
        last = sweep.Progress(0, len(self.grid), 0.0, math.nan, "")
        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
        left = TextColumn("{task.fields[left]}")
        with Progress(*columns, left, console=self.context.console) as bar:
            task = bar.add_task(self.name, total=1.0, left="")

            def listen(progress: sweep.Progress) -> None:
                nonlocal last
                last = progress
                text = f"{progress.finished}/{progress.runs} runs{sweep.time_left(progress)}"
                bar.update(task, completed=progress.share, left=text)

            try:
                return sweep.sweep(
                    self.run,
                    self.grid,
                    self.data,
                    output=self.output,
                    watch=self.watch,
                    progress=listen,
                )
            except KeyboardInterrupt as error:
                raise Interrupted(
                    f"stopped. {last.finished} of {last.runs} runs are finished and kept in "
                    f"{self.output}; the same command (without --fresh) goes on from there"
                ) from error

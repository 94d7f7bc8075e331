"""Sweeps of the experiments: kept in the output, shown in the terminal, compiled once."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pooch
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from adamw_jax import sweep
from adamw_jax.sweep.results import versions
from experiments.context import Context, Interrupted


def use_every_core() -> None:
    """A device for each core of the CPU, so that sweeps train on all of them at once.

    For the command line, before JAX does anything; a library leaves JAX's settings alone.
    """
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def cache_programs() -> None:
    """Keeps every compiled program on disk, so that a second start compiles nothing.

    For the command line, too. JAX's own settings, such as the variable
    JAX_COMPILATION_CACHE_DIR, go before.
    """
    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = Path(pooch.os_cache("adamw_jax")) / "programs"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def directory(
    name: str, run: sweep.Run, grid: Sequence[sweep.Row], data: Any, context: Context
) -> Path:
    """Where a sweep's results are, or will be: another program, grid or data, another place."""
    what = [_digest(run, grid, data), grid, versions()]
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    return context.output / "sweeps" / f"{name}-{digest[:12]}"


def run_all(
    name: str,
    run: sweep.Run,
    grid: Sequence[sweep.Row],
    data: Any,
    context: Context,
    *,
    layout: sweep.Layout | None = None,
    watch: Sequence[str] | None = None,
) -> list[sweep.Result]:
    """Does every run of a grid that is not yet done.

    Args:
      name: of the sweep, in the terminal and on disk.
      run: what is run; its numbers are data.
      grid: rows of settings.
      data: for all runs.
      context: where the results are kept, and the terminal.
      layout: as in `sweep.sweep`.
      watch: as in `sweep.sweep`.

    Returns:
      A result for each row.

    Raises:
      Interrupted: the user stopped; finished runs are kept.
    """
    output = directory(name, run, grid, data, context)
    if context.fresh:
        shutil.rmtree(output, ignore_errors=True)
    if (output / "results.parquet").exists():
        context.console.print(
            f"{name}: taken from {output} (--fresh does it again)", markup=False, soft_wrap=True
        )
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    last = sweep.Progress(0, len(grid), 0.0, math.nan, "")
    with Progress(*columns, TextColumn("{task.fields[left]}"), console=context.console) as bar:
        task = bar.add_task(name, total=1.0, left="")

        def listen(progress: sweep.Progress) -> None:
            nonlocal last
            last = progress
            runs = f"{progress.finished}/{progress.runs} runs"
            bar.update(task, completed=progress.share, left=f"{runs}{sweep.time_left(progress)}")

        try:
            return sweep.sweep(
                run, grid, data, output=output, layout=layout, watch=watch, progress=listen
            )
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"stopped. {last.finished} of {last.runs} runs are finished and kept in {output}; "
                "the same command (without --fresh) goes on from there"
            ) from error


def _digest(run: sweep.Run, grid: Sequence[Mapping[str, Any]], data: Any) -> str:
    """Of the program as it is handed to the compiler, and of the data."""
    numbers = {name: np.asarray(v, jnp.result_type(type(v))) for name, v in grid[0].items()}
    del numbers["seed"]
    key = jax.random.key(0)
    state = jax.eval_shape(run.start, numbers, key, data)
    start = jax.jit(run.start).lower(numbers, key, data).as_text()
    advance = jax.jit(run.advance).lower(state, data).as_text()
    digest = hashlib.sha256(f"{start}{advance}{run.length}".encode())
    for leaf in jax.tree.leaves(data):
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()

"""The sweeps of the experiments: kept in the output directory, shown while they run."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from adamw_jax import sweep
from experiments.harness import interrupts
from experiments.harness.context import Context
from experiments.harness.settings import SettingsError

LONG = 60  # seconds; a log, which has no progress bar, gets a line for a sweep that took longer


def run_grid(
    name: str,
    run: sweep.Run | Callable[[sweep.Row], sweep.Run],
    grid: Sequence[sweep.Row],
    data: Callable[[], Any],
    context: Context,
    watch: Sequence[str] | None = None,
    identity: Mapping[str, Any] | None = None,
    static: Sequence[str] = (),
    layout: sweep.Layout | None = None,
) -> Sequence[sweep.Result]:
    """Does every run of a grid that is not kept in the output directory yet.

    With `context.kept`, all runs are read from there, and none is done.

    Args:
      name: of the sweep, shown beside its progress; it names the directory, see `Context.cache`.
      run: as in `sweep.sweep`.
      grid: rows of settings.
      data: loads the pytree of arrays that every run gets; not called with `context.kept`.
      context: the output directory and the terminal; told if all runs were kept.
      watch: as in `sweep.sweep`.
      identity: as in `sweep.sweep`.
      static: as in `sweep.sweep`.
      layout: as in `sweep.sweep`.

    Returns:
      A result for each row of the grid, in its order.

    Raises:
      SettingsError: `context.kept` does not have all of these runs.
      StoreError: another process does the same sweep, or what is kept is damaged.
      OSError: the output cannot be written, naming the file.
    """
    cache = context.cache(name)
    if context.kept is not None:
        context.reused = True
        return _kept(context.kept, cache, grid, identity)
    started = time.perf_counter()
    last = sweep.Progress(0, len(grid), 0.0, math.nan, "")

    def so_far() -> str:
        return (
            f"{last.finished} of {last.runs} runs are finished and kept in {cache}; the same "
            "command (without --fresh) goes on from there"
        )

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    left = TextColumn("{task.fields[left]}")
    console, log = context.console, not context.console.is_terminal
    shown = Progress(*columns, left, console=console, transient=True, disable=log)
    with interrupts.keeping(so_far), shown as bar:
        task = bar.add_task(name, total=1.0, left="")

        def listen(progress: sweep.Progress) -> None:
            nonlocal last
            last = progress
            text = f"{progress.finished}/{progress.runs} runs{sweep.time_left(progress)}"
            bar.update(task, completed=progress.share, left=text)

        results = sweep.sweep(
            run,
            grid,
            data(),
            cache=cache,
            fresh=context.fresh,
            watch=watch,
            identity=identity,
            static=static,
            layout=layout,
            progress=listen,
        )
    if last.kept == last.runs:
        context.reused = True
    elif log and (taken := time.perf_counter() - started) > LONG:
        console.print(f"{name}: {last.runs} runs in {taken:.0f} s", markup=False, soft_wrap=True)
    return results


def _kept(
    directory: Path, cache: Path, grid: Sequence[sweep.Row], identity: Mapping[str, Any] | None
) -> Sequence[sweep.Result]:
    if found := sweep.kept(cache, grid, identity):
        return found
    lack = f"{cache} does not hold the {len(grid)} runs of these settings"
    raise SettingsError(
        f"--kept {directory}: {lack if cache.is_dir() else f'there is no {cache}'}; give the "
        "settings that were run, or leave out --kept to run these"
    )

"""The sweeps of the experiments: kept in the output directory, shown in the terminal."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from adamw_jax import sweep
from experiments.harness import interrupts
from experiments.harness.context import Context


def run_grid(
    name: str,
    run: sweep.Run | Callable[[sweep.Row], sweep.Run],
    grid: Sequence[sweep.Row],
    data: Any,
    context: Context,
    watch: Sequence[str] | None = None,
    identity: Mapping[str, Any] | None = None,
) -> list[sweep.Result]:
    """Does every run of a grid that is not kept in the output directory yet.

    Args:
      name: of the sweep, shown in the terminal; it names the directory, see `Context.cache`.
      run: as in `sweep.sweep`.
      grid: rows of settings.
      data: a pytree of arrays that every run gets.
      context: the output directory and the terminal.
      watch: as in `sweep.sweep`.
      identity: as in `sweep.sweep`.

    Returns:
      A result for each row of the grid, in its order.

    Raises:
      StoreError: another process does the same sweep, or what is kept is damaged.
      OSError: the output cannot be written, naming the file.
    """
    cache = context.cache(name)
    last = sweep.Progress(0, len(grid), 0.0, math.nan, "")

    def kept() -> str:
        return (
            f"{last.finished} of {last.runs} runs are finished and kept in {cache}; the same "
            "command (without --fresh) goes on from there"
        )

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    left = TextColumn("{task.fields[left]}")
    with interrupts.keeping(kept), Progress(*columns, left, console=context.console) as bar:
        task = bar.add_task(name, total=1.0, left="")

        def listen(progress: sweep.Progress) -> None:
            nonlocal last
            last = progress
            text = f"{progress.finished}/{progress.runs} runs{sweep.time_left(progress)}"
            bar.update(task, completed=progress.share, left=text)

        results = sweep.sweep(
            run,
            grid,
            data,
            cache=cache,
            fresh=context.fresh,
            watch=watch,
            identity=identity,
            progress=listen,
        )
    if last.kept == last.runs:
        note = f"{name}: taken from {cache} (--fresh does it again)"
        context.console.print(note, markup=False, soft_wrap=True)
    return results

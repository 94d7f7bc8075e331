"""What a sweep will take, told before it trains anything."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from adamw_jax.sweep.chunk import Ends
from adamw_jax.sweep.executors import Executor, Here, repeated
from adamw_jax.sweep.grid import Row, normalized
from adamw_jax.sweep.halving import Halving, rungs_of
from adamw_jax.sweep.interrupts import held
from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.options import check_executor, checked
from adamw_jax.sweep.plan import SAMPLE, Measurement
from adamw_jax.sweep.progress import Meter, duration
from adamw_jax.sweep.run import Run
from adamw_jax.sweep.variants import Variant, variants
from adamw_jax.sweep.work import Work


class ProgramEstimate(NamedTuple):
    """What one program of a sweep takes.

    Attributes:
      settings: the settings that are compiled in.
      runs: how many runs it trains.
      layout: how many are side by side.
      chunks: how many times it starts with new runs, or goes on with those that are not dropped.
      bytes: its memory on each device, with the data; 0 if the device does not say.
      compile_seconds: how long it took to compile.
      train_seconds: how long it trains all of its runs.
    """

    settings: str
    runs: int
    layout: Layout
    chunks: int
    bytes: int
    compile_seconds: float
    train_seconds: float


class Estimate(NamedTuple):
    """What a sweep takes; `str` makes a table of it.

    Attributes:
      programs: what each program takes.
      workers: how many workers share the chunks.
      devices: how many devices each of them has.
      device: what these are.
    """

    programs: tuple[ProgramEstimate, ...]
    workers: int
    devices: int
    device: str

    @property
    def seconds(self) -> float:
        """How long the sweep takes, if every worker compiles every program."""
        training = sum(program.train_seconds for program in self.programs)
        return training / self.workers + sum(program.compile_seconds for program in self.programs)

    def __str__(self) -> str:
        head = ("program", "runs", "chunks", "lanes × rounds", "memory", "compiling", "training")
        lines = [head] + [
            (
                program.settings if program.settings != "{}" else "all",
                f"{program.runs}",
                f"{program.chunks}",
                f"{program.layout.lanes} × {program.layout.rounds}",
                _size(program.bytes),
                duration(program.compile_seconds),
                duration(program.train_seconds),
            )
            for program in self.programs
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
            for line in lines
        ]
        each = f"{self.devices} × {self.device}"
        where = each if self.workers == 1 else f"{self.workers} workers with {each}"
        return "\n".join([*table, f"In all about {duration(self.seconds)} on {where}"])


def dry_run(
    run: Run | Callable[[Row], Run],
    grid: Sequence[Row],
    data: Any = None,
    *,
    static: Sequence[str] = (),
    layout: Layout | None = None,
    halving: Halving | None = None,
    devices: Sequence[Any] | None = None,
    on: Executor | None = None,
    tries: int = 3,
) -> Estimate:
    """Says how many programs, how much memory and how much time a sweep takes.

    It compiles every program in its layout, and measures a few advances of the first runs, but
    trains nothing and keeps nothing. It takes the first advances for as long as the others, and
    programs for equally good, if runs are dropped; runs that end early make a sweep shorter.

    Args:
      run: as in `sweep`.
      grid: as in `sweep`.
      data: as in `sweep`.
      static: as in `sweep`.
      layout: as in `sweep`; by default the fastest, found as there.
      halving: as in `sweep`.
      devices: as in `sweep`.
      on: as in `sweep`.
      tries: as in `sweep`.

    Returns:
      What each program takes, and all of them; `print` shows it as a table.

    Raises:
      ValueError: as in `sweep`.
      TypeError: as in `sweep`.
      MemoryError: not even a single run fits into memory.
      RuntimeError: as many workers of `on` have ended as there are tries.
    """
    rows = normalized(grid)
    checked(layout, halving, None, devices, None)
    check_executor(on, tries, devices)
    with held():
        found = variants(run, rows, static, data)
        executor = on or Here(Meter(None, len(rows)))
        tasks = [
            Measurement(
                variant.name,
                tuple(rows[i] for i in variant.members[:SAMPLE]),
                math.ceil(len(variant.members) / executor.workers),
                layout,
                timed=True,
            )
            for variant in found
        ]
        measured = {}
        with executor.start(Work(found, data, Ends(None, None), devices)) as done:
            workers = executor.workers
            for task, outcome in repeated(done, tasks, tries):
                measured[task.variant] = outcome
    programs = tuple(_estimate(variant, measured[variant.name], halving) for variant in found)
    one = measured[found[0].name]
    return Estimate(programs, workers, one.devices, one.device)


def _estimate(variant: Variant, measured: Any, halving: Halving | None) -> ProgramEstimate:
    runs = len(variant.members)
    rungs = rungs_of(halving)
    width = measured.layout.width(measured.devices)
    counts = [math.ceil(n / width) for n in (halving.entrants(runs) if halving else [runs])]
    advances = sum(
        chunks * len(rung.advances(variant.run.length))
        for rung, chunks in zip(rungs, counts, strict=True)
    )
    return ProgramEstimate(
        variant.name,
        runs,
        measured.layout,
        sum(counts),
        measured.bytes,
        measured.compile_seconds,
        advances * measured.seconds,
    )


def _size(count: int) -> str:
    if not count:
        return "?"
    units = (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")
    unit, name = next((unit, name) for unit, name in units if count >= unit)
    return f"{count / unit:.1f} {name}"

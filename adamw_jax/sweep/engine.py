"""`sweep`: a whole grid of runs."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adamw_jax.sweep import processes
from adamw_jax.sweep.chunk import Ends
from adamw_jax.sweep.grid import Row, normalized
from adamw_jax.sweep.groups import groups
from adamw_jax.sweep.halving import Halving
from adamw_jax.sweep.identity import digest_of_data, digest_of_program
from adamw_jax.sweep.layout import Layout, Machine
from adamw_jax.sweep.progress import Listener, Meter, to_stderr
from adamw_jax.sweep.results import Result, check_alike
from adamw_jax.sweep.run import Run, metrics_of
from adamw_jax.sweep.store import Memory, Store, description, name_of
from adamw_jax.sweep.work import Work


def sweep(
    run: Run | Callable[[Row], Run],
    grid: Sequence[Row],
    data: Any = None,
    *,
    output: str | Path | None = None,
    cache: str | Path | None = None,
    fresh: bool = False,
    static: Sequence[str] = (),
    layout: Layout | None = None,
    halving: Halving | None = None,
    until: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None,
    watch: Sequence[str] | None = None,
    identity: Mapping[str, Any] | None = None,
    devices: Sequence[Any] | None = None,
    progress: Listener | bool | None = True,
) -> list[Result]:
    """Runs every row of a grid.

    Settings whose values are numbers are data: arrays that the compiled program takes,
    so that one program serves all of them. Others (strings, bools, None, tuples) and
    those named in `static` are compiled in, one program for each combination.

    A run's result does not depend on which runs are beside it or on its place, bit for
    bit, where the number of lanes (`Result.lanes`) is the same; rounding differs across
    numbers of lanes, and between one device and several.

    In several processes (`jax.distributed`), each calls this with the same arguments, and
    each takes its share on its own devices; they need an output that all of them see.

    Args:
      run: what to run; with static settings, a function from them to it.
      grid: rows of settings, see `product`. The setting `seed`, 0 where there is none,
        makes the key that a run starts with; runs of the same seed start with the same.
      data: a pytree of arrays that every run gets; it lies on each device once.
      output: directory where finished chunks are kept as they come (this takes pyarrow).
        The same sweep into the same directory goes on where it was.
      cache: directory in which each sweep has a subdirectory, named after what it is (grid,
        options, program, data, versions), so that different sweeps stand beside each other
        and the same one is found again. At most one of `output` and `cache`.
      fresh: does everything again; what is kept of this sweep is deleted first.
      static: numeric settings that are compiled in.
      layout: lanes and rounds; by default the fastest, measured, that fits the memory.
        What is out of memory all the same is halved, and goes on.
      halving: drops the worse runs on the way.
      until: ends a run early: from metrics [runs, …] after an advance to bool[runs]. A chunk
        ends when all of its runs have.
      watch: metrics whose NaN or infinity says that a run diverged, which ends it; by
        default all.
      identity: JSON that tells this sweep from others of the same grid, program and data.
      devices: by default all local ones.
      progress: a listener, None or False for none; by default a line on stderr.

    Returns:
      A result for each row, in the order of the grid.

    Raises:
      ValueError: a grid, run or option that cannot be, naming it.
      StoreError: another process is writing to the output, or it holds something else.
      OSError: the output cannot be written; finished chunks are kept.
      MemoryError: a single run does not fit.
    """
    rows = normalized(grid)
    parts = list(groups(run, rows, static))
    if layout:
        layout.check()
    if halving:
        halving = halving.checked(min(group.run.length for group in parts))
    if output is not None and cache is not None:
        raise ValueError("output keeps one sweep in its directory, cache keeps many; give one")
    if fresh and output is None and cache is None:
        raise ValueError("fresh=True deletes what output or cache keeps; give one of them")
    if processes.count() > 1 and output is None and cache is None:
        raise ValueError("several processes need an output or a cache, where their results meet")
    try:
        json.dumps(identity)
    except TypeError as error:
        raise ValueError(f"identity must be JSON: {error}") from error
    described = description(
        rows,
        static=sorted(static),
        lengths=[group.run.length for group in parts],
        halving=halving and halving._asdict(),
        watch=watch and sorted(watch),
        identity=dict(identity or {}),
    )
    listener = to_stderr() if progress is True else progress or None

    if output is None and cache is None:
        store = Memory(rows)
    else:
        programs = [digest_of_program(group, data) for group in parts]
        described |= {"programs": programs, "data": digest_of_data(data)}
        directory = Path(cache) / name_of(described) if cache is not None else Path(output or "")
        store = Store(directory, rows, described, fresh=fresh)
    with store:
        if isinstance(store, Store) and len(parts) > 1:
            check_alike(metrics_of(part.run, part.numbers, data) for part in parts)
        with processes.together("placing the data"):
            machine = Machine.of(devices or jax.local_devices(), data)
        work = Work(
            rows=rows,
            groups=parts,
            machine=machine,
            store=store,
            halving=halving,
            ends=Ends(until, watch),
            meter=Meter(listener, len(rows)),
        )
        return work.results(layout)

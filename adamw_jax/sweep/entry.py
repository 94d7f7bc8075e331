"""`sweep`: trains a whole grid of runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from adamw_jax.sweep import processes
from adamw_jax.sweep.chunk import Ends
from adamw_jax.sweep.engine import Engine
from adamw_jax.sweep.executors import Executor, Here
from adamw_jax.sweep.folder import opened
from adamw_jax.sweep.grid import Row, normalized
from adamw_jax.sweep.halving import Halving
from adamw_jax.sweep.interrupts import held
from adamw_jax.sweep.keeping import Kept
from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.manifest import describe, name_of
from adamw_jax.sweep.options import check_executor, check_place, checked
from adamw_jax.sweep.progress import Listener, Meter, to_stderr
from adamw_jax.sweep.results import Result
from adamw_jax.sweep.reuse import take_over
from adamw_jax.sweep.run import Run
from adamw_jax.sweep.store import InMemory, Store
from adamw_jax.sweep.table import check_alike, check_names
from adamw_jax.sweep.variants import variants
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
    on: Executor | None = None,
    tries: int = 3,
    progress: Listener | bool | None = True,
) -> Sequence[Result]:
    """Trains every row of a grid.

    Settings whose values are numbers are data: arrays that the compiled program takes,
    so that one program serves all of them. Other settings (strings, bools, None, tuples)
    and those named in `static` are compiled in, with one program for each combination.

    As long as the number of lanes (`Result.lanes`) is the same, a run's result does not
    depend, to the bit, on its place or on the runs beside it; rounding differs between
    numbers of lanes, and between one device and several.

    Ctrl-C is raised between two advances or compilations, as one KeyboardInterrupt; finished
    chunks are kept.

    With several processes (`jax.distributed`), each makes this call with the same arguments
    and trains its part of the runs on its own devices; `output` or `cache` must then be a
    place that all of them see.

    Args:
      run: what to run; if there are static settings, a function from these to a `Run`.
      grid: rows of settings; see `product`. The key that a run starts with is made from its
        setting `seed`, by default 0; runs with the same seed start with the same key.
      data: a pytree of arrays that every run gets; there is one copy on each device.
      output: directory in which chunks are kept as they finish (this needs pyarrow), or an
        address in an object store, such as "s3://bucket/prefix" (this needs obstore, too). The
        same sweep continues in the same place; a different one is refused.
      cache: directory or address in which each sweep has a folder, named after its grid,
        options, program, data and versions: different sweeps stand side by side, and the same
        one is found again. One that differs from finished ones in its rows alone trains only
        those that are new. At most one of `output` and `cache` may be given.
      fresh: whether to delete first what is kept of this sweep.
      static: names of numeric settings that are compiled in.
      layout: lanes and rounds; by default the layout that is measured as fastest and fits
        into memory. A layout that runs out of memory nevertheless is halved.
      halving: drops the worse runs on the way.
      until: ends runs early: a function from metrics [runs, …] after an advance to
        bool[runs]. A chunk ends when all of its runs have ended.
      watch: metrics in which NaN or infinity means that a run has diverged, which ends it; by
        default all.
      identity: a JSON object that tells this sweep from others of the same grid, program and
        data.
      devices: by default all local ones.
      on: who trains the runs; by default this process. Anything with an `Executor`'s two
        attributes will do.
      tries: how many workers of `on` may end while they train a chunk, such as by a crash; its
        runs are then given up. A kept sweep counts those of all calls.
      progress: a listener, None or False for none; by default a line on stderr.

    Returns:
      A result for each row, in the order of the grid. It is made when it is asked for, so that the
      histories of a kept sweep, however large, need little memory.

    Raises:
      ValueError: the grid, the run or an option is not valid; the message names it.
      TypeError: an argument has the wrong type; the message names it.
      StoreError: another process is writing in the same place, it holds another sweep, or an
        object store cannot be used; finished chunks are kept.
      OSError: the directory cannot be written; finished chunks are kept.
      MemoryError: not even a single run fits into memory.
      LostRunsError: runs were given up; all others are done.
    """
    rows, ends = normalized(grid), Ends(until, watch)
    identity = checked(layout, halving, identity, devices, progress)
    check_executor(on, tries, devices)
    check_place(output, cache, fresh)
    with held():
        found = variants(run, rows, static, data)
        for variant in found:
            check_names(rows[0], variant.metrics)
            ends.check(variant.metrics)
            if halving:
                halving.check(variant.metrics, min(other.run.length for other in found))
        store: Store = InMemory()
        if output is not None or cache is not None:
            check_alike(variant.metrics for variant in found)
            description = describe(
                rows,
                found,
                data,
                static=sorted(static),
                halving=halving and asdict(halving),
                watch=None if watch is None else sorted(watch),
                identity=identity,
            )
            place = opened(cache if cache is not None else output or "")
            place = place.within(name_of(description)) if cache is not None else place
            store = Kept(place, rows, description, fresh)
        with store:
            if isinstance(store, Kept) and cache is not None and halving is None:
                with processes.together("taking over what other sweeps have"):
                    if processes.index() == 0:
                        take_over(store, opened(cache), found)
            meter = Meter(to_stderr() if progress is True else progress or None, len(rows))
            work = Work(found, data, ends, devices)
            with processes.together("placing the data"):
                engine = Engine(rows, found, work, on or Here(meter), store, halving, tries, meter)
            return engine.results(layout)

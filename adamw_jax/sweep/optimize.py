"""Optuna proposes, lanes evaluate: a search for settings, with many trials in one program.

    space = {"learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)}
    study = optuna.create_study(storage="sqlite:///study.db", study_name="rates")
    optimize(study, run, space, data, metric="validation_loss", trials=512, batch=64)

A trial is first asked for, then trained, then its result is kept, and only then is it told. So a
trial that a kill has left running either has a result, which the next call tells, or has none, and
the next call fails it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from adamw_jax.sweep import processes
from adamw_jax.sweep.chunk import Ends
from adamw_jax.sweep.executors import Executor, Here
from adamw_jax.sweep.folder import opened
from adamw_jax.sweep.grid import Row
from adamw_jax.sweep.interrupts import held
from adamw_jax.sweep.keeping import Kept
from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.manifest import describe
from adamw_jax.sweep.options import check_executor, check_place, checked
from adamw_jax.sweep.progress import Listener, Meter, to_stderr
from adamw_jax.sweep.results import Result
from adamw_jax.sweep.run import Run
from adamw_jax.sweep.search import Metric, Objective, Search
from adamw_jax.sweep.space import Space
from adamw_jax.sweep.store import InMemory, Store
from adamw_jax.sweep.table import check_alike, check_names
from adamw_jax.sweep.work import Work

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution


def optimize(
    study: "Study",
    run: Run | Callable[[Row], Run],
    space: "Mapping[str, BaseDistribution]",
    data: Any = None,
    *,
    metric: Metric | Sequence[Metric],
    trials: int,
    batch: int,
    output: str | Path | None = None,
    static: Sequence[str] = (),
    layout: Layout | None = None,
    until: Callable[[Mapping[str, Any]], Any] | None = None,
    watch: Sequence[str] | None = None,
    report: bool = True,
    devices: Sequence[Any] | None = None,
    on: Executor | None = None,
    tries: int = 3,
    progress: Listener | bool | None = True,
) -> list[Result]:
    """Runs trials of an Optuna study, a batch at a time, side by side in lanes.

    The study's sampler proposes a batch before it has seen what comes of it, so a batch is a trade
    of information for speed. `TPESampler` keeps the trials of a batch apart (`constant_liar`,
    Optuna's default from version 5).

    Settings that are numbers are data, as in `sweep`: one program serves all batches. The other
    settings, which are categorical, are compiled in, with one program for each combination.

    A trial's value is a metric after its last advance. A run that has diverged, and a value that
    is NaN, are told as infinitely bad, because samplers learn from bad trials and nothing from
    failed ones.

    A call that was killed, with Ctrl-C or `kill -9`, is made again with the same arguments. It
    tells the trials whose results are kept in `output`, fails the other running ones, and goes on:
    nothing is trained again that was kept. So while it runs, no other process may run trials of
    the study; give work to other machines with `on`.

    Args:
      study: has the storage, the sampler and the directions.
      run: as in `sweep`.
      space: a distribution for each setting, as `study.ask` takes it. If there is no `seed`, all
        runs have seed 0.
      data: as in `sweep`.
      metric: the name of a scalar metric, or a function from a `Result` to a number; a sequence of
        these if the study has several directions.
      trials: how many trials the study shall have that are neither failed nor waiting, including
        those that it has.
      batch: how many trials are asked for at a time; each worker of `on` is given a batch.
      output: directory in which results are kept (this needs pyarrow); by default none are, and
        a call that was killed has nothing to tell.
      static: names of settings with numbers that are compiled in.
      layout: lanes and rounds; by default a batch is side by side on all devices, or if there are
        several programs, its share of each. What does not fit into memory is halved.
      until: as in `sweep`.
      watch: as in `sweep`.
      report: whether the values of a metric after every advance become the intermediate values of
        the trial, which costs the storage a write for each.
      devices: as in `sweep`.
      on: as in `sweep`.
      tries: how many workers of `on` may end while they train a chunk; its trials are then failed.
      progress: as in `sweep`.

    Returns:
      The results of all trials that this call trained or found, in the order of their numbers,
      which are the numbers of the runs.

    Raises:
      ImportError: Optuna is not installed.
      ValueError: the space, the run, a metric or an option is not valid; the message names it.
      TypeError: an argument has the wrong type; the message names it.
      StoreError: another process is writing to the output, or it holds another study.
      OSError: the output cannot be written.
    """
    _check(study, trials, batch)
    checked(layout, None, None, devices, progress)
    check_executor(on, tries, devices)
    check_place(output, None, False)
    metrics = [metric] if isinstance(metric, str) or callable(metric) else list(metric)
    objective, ends = Objective(study, metrics), Ends(until, watch)
    with held() if on is None else nullcontext():
        found = Space.of(space, run, static, data)
        for variant in found.variants:
            check_names(found.rows[0], variant.metrics)
            ends.check(variant.metrics)
            objective.check(variant.metrics)
        store: Store = InMemory()
        if output is not None:
            check_alike(variant.metrics for variant in found.variants)
            watched = None if watch is None else sorted(watch)
            options = {"static": sorted(static), "watch": watched, "identity": _identity(study)}
            description = describe(found.rows, found.variants, data, **options)
            asked = [found.row(trial.params) for trial in study.get_trials(deepcopy=False)]
            store = Kept(opened(output), asked or found.rows, description)
        with store:
            meter = Meter(to_stderr() if progress is True else progress or None, trials)
            limits = {"trials": trials, "batch": batch, "report": report, "tries": tries}
            search = Search(study, found, objective, store, meter=meter, **limits)
            return search.go(Work(found.variants, data, ends, devices), on or Here(meter), layout)


def _check(study: Any, trials: Any, batch: Any) -> None:
    try:
        import optuna
    except ImportError as error:
        raise ImportError("optimize needs Optuna: pip install 'adamw_jax[optuna]'") from error
    if not isinstance(study, optuna.Study):
        raise TypeError(f"study is what optuna.create_study returns; got {study!r}")
    for name, value in {"trials": trials, "batch": batch}.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} is an integer from 1 on; got {value!r}")
    if processes.count() > 1:
        raise ValueError("one process optimizes a study; use on= instead of jax.distributed")


def _identity(study: "Study") -> dict[str, str]:
    """What tells a study from every other, even from one of the same name after it."""
    if "adamw_jax" not in study.user_attrs:
        study.set_user_attr("adamw_jax", uuid4().hex[:12])
    return {"study": study.study_name, "id": study.user_attrs["adamw_jax"]}

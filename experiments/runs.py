"""Runs many trainings one after another, and keeps each one that is finished.

A finished run is one line of a file, written and synced before the next begins, and
found there again when the same run is asked for once more: an interrupted experiment
goes on where it was.
"""

import functools
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import adamw_jax
import experiments
from experiments.context import Context, Interrupted
from experiments.data import Data
from experiments.train import Metrics, Run


class Job(NamedTuple):
    """A run to be done.

    Attributes:
      settings: everything that decides its result, as JSON values; its identity.
      run: the pair of functions; jobs that share it share one compilation.
      hyperparameters: floats by name, as `run.start` takes them.
      seed: of the weights and the order of the data.
      epochs: how many.
      label: what the progress bar calls it.
    """

    settings: Mapping[str, Any]
    run: Run
    hyperparameters: Mapping[str, float]
    seed: int
    epochs: int
    label: str


def run_all(jobs: Sequence[Job], data: Data, context: Context) -> list[Metrics]:
    """Does every job that is not yet done.

    Args:
      jobs: in the order in which they are run.
      data: for all of them.
      context: where the finished runs are kept, and the terminal.

    Returns:
      For each job its metrics, as float64 arrays [epochs].

    Raises:
      Interrupted: the user stopped; finished runs are kept.
      OSError: a finished run could not be written; the earlier ones are kept.
    """
    path = context.output / "runs.jsonl"
    identities = [_identity(job) for job in jobs]
    done = {} if context.fresh else dict(_read(path))
    columns = "{task.description}", BarColumn(), MofNCompleteColumn(), "epochs, time left"
    with Progress(*map(_column, columns), TimeRemainingColumn(), console=context.console) as bar:
        kept = len(done.keys() & set(identities))
        if kept:
            bar.print(f"{kept} finished runs are taken from {path} (--fresh does them again)")
        task = bar.add_task("", total=sum(job.epochs for job in jobs))
        compiled = {job.run: _compiled(job.run) for job in jobs}
        try:
            for job, identity in zip(jobs, identities, strict=True):
                if identity in done:
                    bar.advance(task, job.epochs)
                    continue
                started = time.perf_counter()
                bar.update(task, description=job.label)
                start, advance = compiled[job.run]
                state = start(_arrays(job.hyperparameters), jax.random.key(job.seed), data)
                history = []
                for _ in range(job.epochs):
                    state, metrics = advance(state, data)
                    history.append(jax.device_get(metrics))
                    bar.advance(task)
                metrics = jax.tree.map(lambda *values: [float(v) for v in values], *history)
                done[identity] = metrics._asdict()
                _append(path, identity, done[identity], time.perf_counter() - started)
                kept += 1
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"stopped. {kept} of {len(set(identities))} runs are finished and kept in {path}; "
                "the same command (without --fresh) goes on from there"
            ) from error
        bar.update(task, description="done")
    return [Metrics(**jax.tree.map(np.array, done[i], is_leaf=_is_list)) for i in identities]


def _column(column: Any) -> Any:
    return TextColumn(column) if isinstance(column, str) else column


def _compiled(run: Run) -> Run:
    return Run(jax.jit(run.start), jax.jit(run.advance, donate_argnums=0))


def _arrays(hyperparameters: Mapping[str, float]) -> dict[str, jax.Array]:
    return {name: jax.numpy.float32(value) for name, value in hyperparameters.items()}


def _is_list(x: Any) -> bool:
    return isinstance(x, list)


def _identity(job: Job) -> str:
    device = jax.devices()[0]
    surroundings = {"code": _code(), "jax": jax.__version__, "device": device.device_kind}
    return json.dumps({**job.settings, **surroundings, "seed": job.seed}, sort_keys=True)


@functools.cache
def _code() -> str:
    """A digest of the code that decides a run's result: a change makes runs new ones."""
    digest = hashlib.sha256()
    for module in (adamw_jax, experiments):
        for path in sorted(Path(str(module.__file__)).parent.glob("*.py")):
            if module is adamw_jax or path.stem in ("comparison", "data", "models", "train"):
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _read(path: Path) -> Iterator[tuple[str, dict[str, list[float]]]]:
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # the line that was being written when a kill or a full disk came
        yield json.dumps(record["run"], sort_keys=True), record["metrics"]


def _append(path: Path, identity: str, metrics: Mapping[str, list[float]], seconds: float) -> None:
    record = {"run": json.loads(identity), "seconds": seconds, "metrics": metrics}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            # After an unfinished line, begin a new one.
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.write(b"\n")
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # which does not always know the file
        raise OSError(error.errno, error.strerror, str(path)) from error

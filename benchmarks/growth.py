"""What a sweep costs beside training, from a thousand runs to a million and with many workers.

Each sweep is done in a process of its own, whose memory is that of the sweep:

    python -m benchmarks.growth RUNS WORKERS
    python -m benchmarks.growth --figure FILE
"""

import concurrent.futures
import contextlib
import json
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cloudpickle
import jax.numpy as jnp

from adamw_jax import sweep
from adamw_jax.sweep.plan import Measured, Measurement
from experiments.harness import plots, report
from experiments.harness.report import Table

LANES, LIGHT, ADVANCES, SLEEP = 256, 16, 4, 0.1
RUNS, WORKERS, EACH = (1_000, 10_000, 100_000, 1_000_000), (1, 4, 16, 64), 50


def start(h: Any, key: Any, data: Any) -> Any:
    """A run that costs next to nothing."""
    del key, data
    return h["x"]


def advance(x: Any, data: Any) -> Any:
    """Two metrics of a shrinking number."""
    del data
    x = 0.9 * x
    return x, {"loss": x * x, "norm": jnp.abs(x)}


class Light:
    """Workers that are threads: they sleep for a chunk, and answer with results made before.

    The driver does for them what it does for workers elsewhere: it pickles each chunk, and
    unpickles what comes back.
    """

    def __init__(self, workers: int):
        self.workers = workers

    @contextlib.contextmanager
    def start(self, work: Any) -> Any:
        """See `sweep.Executor`."""
        made: dict[int, bytes] = {}

        def answer(task: Any) -> Any:
            pickle.dumps(task)
            time.sleep(SLEEP)
            found = pickle.loads(made[len(task.members)])
            runs = found.results.run + task.members[0]
            return found._replace(results=found.results._replace(run=runs, rows=task.rows))

        with concurrent.futures.ThreadPoolExecutor(self.workers) as pool:

            def done(tasks: Any) -> Any:
                waiting: dict[Any, Any] = {}
                for task in tasks:
                    if isinstance(task, Measurement):
                        yield task, Measured(sweep.Layout(LIGHT), 1, "sleep")
                        continue
                    if len(task.members) not in made:
                        first = cloudpickle.loads(cloudpickle.dumps(work))(task)
                        results = first.results._replace(run=first.results.run - task.members[0])
                        made[len(task.members)] = pickle.dumps(first._replace(results=results))
                    waiting[pool.submit(answer, task)] = task
                    while len(waiting) == self.workers:
                        yield from _returned(waiting)
                while waiting:
                    yield from _returned(waiting)

            yield done


def _returned(waiting: dict[Any, Any]) -> Any:
    finished, _ = concurrent.futures.wait(waiting, return_when="FIRST_COMPLETED")
    for future in finished:
        yield waiting.pop(future), future.result()


def _measure(runs: int, workers: int) -> dict[str, float]:
    """Does a sweep in this process; with no workers, here."""
    values = [1 + i / runs for i in range(runs // 10)]
    grid = sweep.product(x=values, seed=range(10))
    options: dict[str, Any] = {"layout": sweep.Layout(LANES)}
    if workers:
        options = {"on": Light(workers)}
    run = sweep.Run(start, advance, ADVANCES)
    sweep.sweep(run, grid[:LANES], progress=False, layout=sweep.Layout(LANES))  # JAX starts
    before, heard = _memory(), list[tuple[int, float]]()
    with tempfile.TemporaryDirectory() as directory:

        def go() -> tuple[float, Any]:
            began = time.perf_counter()
            listen = lambda p: heard.append((p.finished, time.perf_counter()))  # noqa: E731
            results = sweep.sweep(run, grid, output=directory, progress=listen, **options)
            return time.perf_counter() - began, results

        seconds, results = go()
        memory, (runs_first, first), (runs_last, last) = _memory(), heard[0], heard[-2]
        trained = 0.0 if workers else sum(block.seconds.sum() for block in results.blocks())
        opened, results = go()
        size = sum(path.stat().st_size for path in Path(directory).rglob("*") if path.is_file())
    assert len(results) == runs and results[runs - 1].run == runs - 1
    compiling = 0.0 if workers else results[0].compile_seconds
    return {
        "rate": (runs_last - runs_first) / LIGHT / (last - first),
        "overhead": seconds - trained - compiling,
        "opened": opened,
        "memory": memory - before, "size": size,
    }  # fmt: skip


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _alone(runs: int, workers: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.growth", str(runs), str(workers)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def tables(figure: Path | None = None) -> list[Table]:
    """Cost over the number of runs, and over that of workers; if asked, as a figure, too."""
    by_runs = {runs: _alone(runs, 0) for runs in RUNS}
    rates = {n: _alone(LIGHT * EACH * n, n)["rate"] for n in WORKERS}
    if figure:
        _draw(by_runs, rates, figure)
    return [
        Table(
            "What a sweep costs beside training",
            ("runs", "beside training, s", "µs a run", "ms a chunk", "open again, s",
             "memory, MB", "on disk, MB"),
            [
                (
                    f"{runs:,}", f"{cost['overhead']:.2f}", f"{1e6 * cost['overhead'] / runs:.0f}",
                    f"{1e3 * cost['overhead'] / -(-runs // LANES):.1f}", f"{cost['opened']:.2f}",
                    f"{cost['memory'] / 1e6:.0f}", f"{cost['size'] / 1e6:.1f}",
                )
                for runs, cost in by_runs.items()
            ],
            f"Kept in a directory, {LANES} runs in a chunk, {ADVANCES} advances with two metrics. "
            "Memory is what the process takes beside JAX and the grid that it was given.",
        ),
        Table(
            f"Workers that take {SLEEP:g} s for a chunk of {LIGHT} runs",
            ("workers", "chunks a second", "of what they could do"),
            [
                (f"{workers}", f"{rate:.0f}", f"{100 * rate * SLEEP / workers:.0f} %")
                for workers, rate in rates.items()
            ],
            f"{EACH} chunks for each worker, from the first that comes back to the last.",
        ),
    ]  # fmt: skip


def _draw(by_runs: dict[int, dict[str, float]], rates: dict[int, float], path: Path) -> None:
    figure, ((left, right),) = plots.subplots(2)
    runs = list(by_runs)
    for name, label, color in (
        ("overhead", "beside training", plots.BLUE), ("opened", "open again", plots.ORANGE),
    ):  # fmt: skip
        left.loglog(runs, [cost[name] for cost in by_runs.values()], "o-", color=color, label=label)
    last = by_runs[runs[-1]]["overhead"]
    title = f"{runs[-1]:,} runs take {last:.0f} s beside training"
    left.set(xlabel="runs", ylabel="seconds", title=title)
    left.legend()
    workers = list(rates)
    right.loglog(workers, [n / SLEEP for n in workers], "--", color=plots.BLACK, label="could do")
    right.loglog(workers, list(rates.values()), "o-", color=plots.BLUE, label="do")
    title = f"One process serves {max(rates.values()):.0f} chunks a second"
    right.set(xlabel=f"workers, {SLEEP:g} s a chunk", ylabel="chunks a second", title=title)
    right.set_xticks(workers, [str(n) for n in workers])
    right.legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    if sys.argv[1] == "--figure":
        print("\n\n".join(map(report.markdown, tables(Path(sys.argv[2])))))
    else:
        print(json.dumps(_measure(*map(int, sys.argv[1:]))))

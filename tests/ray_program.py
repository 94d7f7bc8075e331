"""A sweep on a Ray cluster, as a program that tests start, interrupt, kill and start again."""

import argparse
import os
import signal
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import jax
import numpy as np
import sweep_program

from adamw_jax import sweep

POISON, ERROR = 0.25, 0.75  # learning rates at which a worker crashes and a program fails


def grid(runs):
    """So many runs, half of them of each of two programs."""
    rates = sweep.log_space(1e-3, 1e-1, runs // 4)
    return sweep.product(nesterov=[False, True], learning_rate=rates, warm=[0, 1])


def trapped(static):
    """The run of the problem; two learning rates are traps, at which a worker crashes or fails."""
    run = sweep_program.problem()(static)

    def advance(state, data):
        state, metrics = run.advance(state, data)
        out = jax.ShapeDtypeStruct((), np.float32)
        rate = state[0]["learning_rate"]
        zero = jax.pure_callback(trap, out, rate, vmap_method="sequential")
        return state, metrics | {"loss": metrics["loss"] + zero}

    return sweep.Run(run.start, advance, run.length)


def trap(rate):
    if rate == np.float32(POISON):
        os.kill(os.getpid(), signal.SIGSEGV)
    if rate == np.float32(ERROR):
        raise KeyError("no such thing as this learning rate")
    return np.float32(0)


class Logged:
    """An executor that writes down what came of each task, a line for every one."""

    def __init__(self, executor, path):
        self.executor, self.path = executor, path

    @property
    def workers(self):
        return self.executor.workers

    @contextmanager
    def start(self, work):
        def logged(tasks):
            with closing(does(tasks)) as outcomes:
                for task, outcome in outcomes:
                    chunk = f"{task} in rung {task.rung.number}" if hasattr(task, "rung") else task
                    lost = isinstance(outcome, sweep.Lost)
                    word = f"lost blame={outcome.blame} {outcome.reason}" if lost else "done"
                    print(f"{time.time():.2f} {chunk}: {word}", file=log, flush=True)
                    yield task, outcome

        with self.executor.start(work) as does, self.path.open("a") as log:
            yield logged


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--here", action="store_true", help="no cluster: this process")
    parser.add_argument("--runs", type=int, default=32)
    parser.add_argument("--steps", type=int, default=2, help="of an advance: what it costs")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each chunk")
    parser.add_argument("--tries", type=int, default=3)
    parser.add_argument("--halving", action="store_true")
    asked = parser.parse_args()
    try:
        sweep.sweep(
            sweep_program.problem(steps=asked.steps),
            grid(asked.runs),
            sweep_program.data(),
            output=asked.output,
            layout=sweep.Layout(4),
            halving=sweep_program.HALVING if asked.halving else None,
            tries=asked.tries,
            on=None if asked.here else Logged(sweep.Ray(), asked.output.with_suffix(".log")),
            progress=lambda progress: (print(progress, flush=True), time.sleep(asked.pause)),
        )
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

"""A small search, as the tests call it and as a program that they start, kill and start again."""

import argparse
import sys
import time

import jax
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sweep_program import data, problem

from adamw_jax import sweep
from adamw_jax.sweep.executors import Here
from adamw_jax.sweep.progress import Meter

# Rates over about 10 diverge.
SPACE = {
    "nesterov": CategoricalDistribution([False, True]),
    "learning_rate": FloatDistribution(1e-3, 1e30, log=True),
    "warm": IntDistribution(0, 1),
}
TRIALS, BATCH = 20, 8


def study_in(storage=None, **options):
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=8)
    options = {"study_name": "small", "load_if_exists": True, "sampler": sampler} | options
    return optuna.create_study(storage=storage, **options)


def search(study, output=None, **options):
    """The search; `options` go to `optimize`."""
    options = {"metric": "loss", "trials": TRIALS, "batch": BATCH, "progress": None} | options
    options.setdefault("layout", sweep.Layout(4))
    space = options.pop("space", SPACE)
    run = options.pop("run", problem())
    return sweep.optimize(study, run, space, data(), output=output, **options)


class Noted(Here):
    """Writes down which trials are about to be trained."""

    def __init__(self, path, pause):
        super().__init__(Meter(lambda progress: time.sleep(pause), TRIALS))
        self.path = path

    def start(self, work):
        def noting(task, meter):
            with open(self.path, "a") as file:
                print(*getattr(task, "members", ()), file=file, flush=True)
            return work(task, meter)

        return super().start(noting)


def storage_at(place):
    if not place.endswith(".log"):
        return place
    # A kill leaves the lock behind; by default, the next process waits half a minute for it.
    lock = JournalFileSymlinkLock(place, grace_period=3)
    return JournalStorage(JournalFileBackend(place, lock))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("storage")
    parser.add_argument("output")
    parser.add_argument("notes")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each advance")
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = study_in(storage_at(asked.storage))
    jax.devices()
    print("ready", flush=True)
    search(study, asked.output, on=Noted(asked.notes, asked.pause))


if __name__ == "__main__":
    sys.exit(main())

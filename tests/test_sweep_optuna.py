"""Trials of an Optuna study in lanes: what is trained, kept and told, and what a kill does."""

import contextlib
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import pyarrow.parquet as pq
import pytest
import search_program
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from search_program import SPACE, TRIALS, search, storage_at, study_in
from sweep_program import data, problem
from test_sweep_executors import Shuffled

from adamw_jax import sweep
from adamw_jax.sweep import work
from adamw_jax.sweep.executors import Here, Lost
from adamw_jax.sweep.plan import Chunk
from adamw_jax.sweep.progress import Meter

COMPLETE, FAIL, RUNNING = TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING
optuna.logging.set_verbosity(optuna.logging.ERROR)


def states(study):
    return Counter(trial.state for trial in study.trials)


def test_a_trial_is_told_what_a_sweep_measures():
    study = study_in()
    results = search(study)
    assert states(study) == {COMPLETE: TRIALS}
    rows = [{name: trial.params[name] for name in SPACE} for trial in study.trials]
    expected = sweep.sweep(problem(), rows, data(), layout=sweep.Layout(4), progress=None)
    assert [result.run for result in results] == list(range(TRIALS))
    assert len({result.status for result in expected}) == 2
    for trial, result, other in zip(study.trials, results, expected, strict=True):
        assert result.settings == other.settings | {"seed": 0}
        np.testing.assert_array_equal(result.metrics["loss"], other.metrics["loss"])
        curve = list(trial.intermediate_values.values())
        np.testing.assert_array_equal(np.float32(curve), other.metrics["loss"])
        assert list(trial.intermediate_values) == list(range(len(curve)))
        assert trial.value == (math.inf if other.status == "diverged" else other.final("loss"))


def compiled(events):
    return sum(event.endswith("backend_compile_duration") for event in events)


@pytest.mark.parametrize("layout", [None, sweep.Layout(1, 3)])
def test_one_program_serves_all_batches(layout, compilations):
    space = {name: SPACE[name] for name in ("learning_rate", "warm")}
    run = problem()({"nesterov": True})

    def cost(trials):
        before, study = compiled(compilations), study_in()
        search(study, run=run, space=space, trials=trials, batch=10, layout=layout)
        assert states(study) == {COMPLETE: trials}
        return compiled(compilations) - before

    cost(10)  # helpers that JAX compiles but once
    assert cost(10) == cost(24) > 0


def test_what_is_no_number_is_compiled_in():
    made = []

    def run(static):
        made.append(static)
        return problem()(static)

    space = SPACE | {
        "nesterov": CategoricalDistribution([True]),
        "warm": CategoricalDistribution([0, 1]),
        "width": CategoricalDistribution([8, 16]),
        "name": CategoricalDistribution(["a", None]),
    }
    study = study_in()
    results = search(study, run=run, space=space, static=["width"])
    assert len(made) == 4 and all(set(each) == {"nesterov", "width", "name"} for each in made)
    assert states(study) == {COMPLETE: TRIALS}
    assert [r.settings for r in results] == [{"seed": 0} | trial.params for trial in study.trials]


def test_directions_functions_and_diverged_runs():
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = study_in(directions=["maximize", "minimize"], sampler=sampler)
    metrics = [lambda result: math.nan if result.settings["warm"] else 1, "loss"]
    results = search(study, metric=metrics)
    kinds = Counter()
    for trial, result in zip(study.trials, results, strict=True):
        if result.status == "diverged":
            assert trial.values == [-math.inf, math.inf]
        else:
            first = -math.inf if result.settings["warm"] else 1
            assert trial.values == [first, result.final("loss")]
        kinds[result.status, result.settings["warm"]] += 1
        assert not trial.intermediate_values
    assert len(kinds) == 4, kinds


def test_the_sampler_avoids_where_runs_diverge():
    study = study_in()
    search(study, trials=80, report=False)
    diverged = np.array([math.isinf(trial.value) for trial in study.trials])
    assert diverged[:8].mean() > 0.8 and diverged[-40:].mean() < 0.5
    assert not any(trial.intermediate_values for trial in study.trials)


def test_a_sampler_would_not_learn_from_failed_trials():
    def bad(seed, told):
        """The share of bad trials in the second half, if they are told so."""
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        rates = []
        for _ in range(8):
            trials = [
                study.ask({"rate": FloatDistribution(1e-4, 1e4, log=True)}) for _ in range(16)
            ]
            for trial in trials:
                rates.append(trial.params["rate"])
                value = {"values": (math.log(rates[-1]) + 2) ** 2}
                study.tell(trial, **(told if rates[-1] > 0.3 else value))
        return np.mean(np.array(rates[64:]) > 0.3)

    told = [bad(seed, {"values": math.inf}) for seed in range(2)]
    failed = [bad(seed, {"state": FAIL}) for seed in range(2)]
    assert np.mean(told) < 0.35 and np.mean(failed) > 0.6, (told, failed)


def test_a_study_goes_on_from_what_others_told_and_enqueued():
    study = study_in()
    study.optimize(lambda trial: trial.suggest_float("learning_rate", 1e-3, 1e30, log=True), 3)
    study.enqueue_trial({"learning_rate": 0.125})
    results = search(study, trials=9)
    assert [result.run for result in results] == [3, 4, 5, 6, 7, 8]
    assert results[0].settings["learning_rate"] == 0.125
    assert search(study, trials=9) == [] and len(study.trials) == 9


# A kill at every moment: a storage that takes so many changes, and then nothing more.


class Killed(BaseException):
    pass


class Mortal(optuna.storages.InMemoryStorage):
    left = math.inf

    def live(self, change=True):
        self.left -= change
        if self.left < 0:
            raise Killed


def mortal(name, change):
    def method(self, *args, **kwargs):
        self.live(change)
        return getattr(optuna.storages.InMemoryStorage, name)(self, *args, **kwargs)

    return method


for name in "create_new_trial", "set_trial_param", "set_trial_state_values":
    setattr(Mortal, name, mortal(name, True))
for name in "set_trial_intermediate_value", "set_trial_system_attr":
    setattr(Mortal, name, mortal(name, True))
for name in "get_all_trials", "get_trial":
    setattr(Mortal, name, mortal(name, False))


def kept(output):
    """The runs of every file of an output."""
    tables = map(pq.read_table, sorted(Path(output).glob("parts/*.parquet")))
    return [run for table in tables for run in set(table["run"].to_pylist())]


def check(study, output, trials=TRIALS):
    """Every trial was kept and told once, or failed."""
    by_state = {state: {t.number for t in study.trials if t.state == state} for state in TrialState}
    assert sorted(kept(output)) == sorted(by_state[COMPLETE])
    assert len(by_state[COMPLETE]) == trials and not by_state[RUNNING]
    for trial in study.trials:
        assert (trial.value is None) == (trial.state == FAIL)


ONE = {"run": problem()({"nesterov": True}), "space": {"learning_rate": SPACE["learning_rate"]}}


@pytest.fixture
def compiled_once(monkeypatch):
    """Compiles the same program once for all searches of a test."""
    programs, compile_variant = {}, work.compile_variant

    def compile_(variant, machine, layout, *advance):
        key = variant.name, layout, machine.size
        if key not in programs:
            programs[key] = compile_variant(variant, machine, layout, *advance)
        return programs[key]

    monkeypatch.setattr(work, "compile_variant", compile_)


@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_loses_no_trial(step, tmp_path):
    options, failed, told = ONE | {"trials": 8, "batch": 4, "report": step == 1}, 0, 0
    for moment in range(0, 10_000, step):
        storage, output = Mortal(), tmp_path / str(moment)
        study = study_in(storage)
        storage.left = moment
        try:
            search(study, output, **options)
        except Killed:
            storage.left = math.inf
        else:
            break
        told += len(set(kept(output)) & {t.number for t in study.trials if t.state == RUNNING})
        search(study_in(storage), output, **options)
        check(study, output, 8)
        failed += states(study)[FAIL]
    assert moment > 20 and failed > 2 and told > 2, (moment, failed, told)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_a_killed_process_loses_no_trial(kind, tmp_path):
    place = tmp_path / kind
    place.mkdir()
    storage = f"sqlite:///{place}/study.db" if kind == "sqlite" else f"{place}/study.log"
    command = [sys.executable, search_program.__file__, storage, place / "results"]
    command += [place / "notes", "--pause", "0.1"]
    programs = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")}
    programs |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    pipe = {"stdout": subprocess.PIPE, "text": True, "env": os.environ | programs}
    draw, kills = random.Random(0), 0
    while True:
        with subprocess.Popen(command, **pipe) as process:
            assert process.stdout.readline() == "ready\n"
            if kills < 6:
                time.sleep(draw.uniform(0, 1.5))
                process.send_signal(signal.SIGKILL)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
    study = study_in(storage_at(storage))
    check(study, place / "results")
    trained = (place / "notes").read_text().split()
    assert len(set(trained)) == len(trained)  # none was begun twice
    assert kills > 3 and states(study)[FAIL] > 0


def test_an_error_fails_what_is_running_and_keeps_the_rest(tmp_path):
    study, calls = study_in(), []

    def interrupted(progress):
        calls.append(progress.finished)
        if calls.count(8) == 3:  # the second batch has advanced twice
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(study, tmp_path, **ONE, progress=interrupted)
    assert states(study) == {COMPLETE: 8, FAIL: 8}

    def wrong(result):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        search(study, tmp_path, **ONE, metric=wrong)
    assert states(study) == {COMPLETE: 8, FAIL: 8, RUNNING: 8}
    results = search(study, tmp_path, **ONE)
    assert len(results) == TRIALS and states(study) == {COMPLETE: TRIALS, FAIL: 8}


class Flaky(Here):
    """Loses every second task."""

    def __init__(self, blame):
        super().__init__(Meter(None, TRIALS))
        self.blame, self.count = blame, 0

    @contextlib.contextmanager
    def start(self, work):
        def outcome(task):
            self.count += isinstance(task, Chunk)
            lost = isinstance(task, Chunk) and self.count % 2
            return Lost("gone", self.blame) if lost else work(task)

        yield lambda tasks: ((task, outcome(task)) for task in tasks)


@pytest.mark.usefixtures("compiled_once")
def test_trials_of_lost_workers_are_trained_again_or_failed():
    expected = [trial.value for trial in searched(**ONE).trials]
    for options in {"on": Flaky(False), "tries": 1}, {"on": Flaky(True), "tries": 2}:
        assert [trial.value for trial in searched(**ONE, **options).trials] == expected
    study = searched(**ONE, on=Flaky(True), tries=1)
    assert states(study) == {FAIL: 12, COMPLETE: 8}


def searched(output=None, **options):
    study = study_in()
    search(study, output, **options)
    return study


def test_trials_that_are_too_large_are_trained_in_fewer_lanes(monkeypatch):
    compile_variant = work.compile_variant

    def compile_(variant, machine, layout, *advance):
        program = compile_variant(variant, machine, layout, *advance)
        return program._replace(bytes=10**18) if layout.lanes > 2 else program

    monkeypatch.setattr(work, "compile_variant", compile_)
    study = study_in()
    results = search(study, **ONE, on=Shuffled(), trials=40)
    assert states(study) == {COMPLETE: 40} and {result.lanes for result in results} == {2}


def test_an_output_belongs_to_one_study_and_one_process(tmp_path):
    study = searched(tmp_path, **ONE)
    with pytest.raises(sweep.StoreError, match="another sweep: identity: id is"):
        searched(tmp_path, **ONE)  # the same name in another storage

    def again(progress):
        with pytest.raises(sweep.StoreError, match="another process"):
            search(study, tmp_path, **ONE)
        assert states(study)[RUNNING] == TRIALS + 4 - progress.finished  # which it left alone

    search(study, tmp_path, **ONE, trials=TRIALS + 4, progress=again)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"study": None}, "study is what optuna.create_study returns; got None"),
        ({"trials": 0}, "trials is an integer from 1 on; got 0"),
        ({"batch": 2.0}, "batch is an integer from 1 on; got 2.0"),
        ({"layout": 4}, r"layout is a Layout, such as Layout\(lanes=16\); got 4"),
        ({"space": []}, r"space is a dictionary of Optuna's distributions; got \[\]"),
        ({"space": {}}, "space is empty"),
        ({"space": {"learning_rate": 0.1}}, "for 'learning_rate' it has 0.1"),
        ({"static": ["warm"]}, "static names 'warm', which has a range.* CategoricalDistribution"),
        (
            {"static": ["width"]},
            "static names 'width'; the settings are nesterov",
        ),
        ({"metric": "lost"}, "metric names 'lost'; there are loss, params"),
        ({"metric": "params"}, r"the metric 'params' must be a scalar; its shape is \(3,\)"),
        (
            {"metric": ["loss", "loss"]},
            "one for each direction of the study, which are MINIMIZE",
        ),
        ({"watch": ["lost"]}, "watch names the metric 'lost'"),
        ({"tries": 0}, "tries is an integer from 1 on; got 0"),
        ({"on": 3}, "on is an executor"),
        ({"progress": 3}, "progress is a function"),
        ({"output": 3}, "output is a directory; got 3"),
    ],
)
def test_mistakes_are_named(options, message):
    study = study_in()
    with pytest.raises((ValueError, TypeError), match=message):
        search(options.pop("study", study), **options)
    assert not study.trials


def test_without_optuna_the_error_says_what_to_install(monkeypatch):
    study = study_in()
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'adamw_jax\[optuna\]'"):
        search(study)

import re
import subprocess
import sys
from os import environ

import numpy as np
import pytest

from adamw_jax import sweep
from adamw_jax.sweep.files import locked
from experiments import command_line as cli
from experiments import landscape
from experiments.harness import data
from experiments.harness.statistics import Difference, deviation
from experiments.study import verdicts
from experiments.study.trials import Condition, Measured, Trial, optimizer
from experiments.study.verdicts import DECAY, L2, LEAD, OVERFITTING, SCHEDULE, verdict

SEEDS = np.arange(4)


def condition(images=100, noise=0.0, epochs=4, l2=(0.1,), weight_decay=(0.01, 1.0)):
    return Condition(
        images=images,
        noise=noise,
        schedules=("constant",),
        epochs=epochs,
        l2=l2,
        weight_decay=weight_decay,
    )


def measured(accuracy, loss, schedule="constant", **changed):
    """A trial whose arms (λ′, λ) have these (validation, test) values; seeds differ a little."""
    trial = Trial(condition(**changed), schedule, changed.get("images", 100), 10)
    results = []
    for row in trial.grid(1e-3, len(SEEDS)):
        arm, seed = (row["l2"], row["weight_decay"]), row["seed"]
        spread = 0.001 * (-1) ** seed
        values = {
            "train_loss": 0.1,
            "validation_accuracy": accuracy[arm][0] + spread,
            "test_accuracy": accuracy[arm][1] + spread,
            "validation_loss": loss[arm][0],
            "test_loss": loss[arm][1],
        }
        metrics = {name: np.array([1.0, value]) for name, value in values.items()}
        status = "diverged" if np.isnan(values["validation_loss"]) else "finished"
        results.append(
            sweep.Result(len(results), row, np.array([1, 2]), metrics, status, 1, "cpu", 1.0, 1.0)
        )
    return Measured(trial, results)


ADAM, WITH_L2, SMALL, LARGE = (0.0, 0.0), (0.1, 0.0), (0.0, 0.01), (0.0, 1.0)
ACCURACY = {ADAM: (0.8, 0.8), WITH_L2: (0.7, 0.9), SMALL: (0.83, 0.84), LARGE: (0.82, 0.99)}
LOSS = {ADAM: (1.0, 1.0), WITH_L2: (0.9, 0.8), SMALL: (1.5, 1.2), LARGE: (0.5, 0.6)}


def effects(trials, talk=(0.01,)):
    return {
        (c.claim, c.where, c.metric): c.effect.mean() for c in verdicts.comparisons(trials, talk)
    }


@pytest.mark.parametrize(
    "low, high, says",
    [
        (0.3, 0.9, "supported"),
        (0.01, 0.9, "supported"),
        (-0.1, 0.9, "undecided"),
        (-0.1, 0.1, "refuted"),
        (0.01, 0.1, "refuted"),  # real, but too small to matter
        (-0.1, -0.01, "refuted"),  # and this
        (-0.9, -0.3, "reversed"),
        (-0.9, -0.01, "reversed"),
        (-np.inf, np.inf, "undecided"),  # a single seed
        (np.nan, np.nan, "diverged"),
    ],
)
def test_a_verdict_is_what_the_interval_says(low, high, says):
    assert verdict(Difference(np.clip(0, low, high), low, high), matters=0.2) == says


def test_arms_are_chosen_by_validation_and_judged_by_test():
    m = measured(ACCURACY, LOSS)
    assert m.chosen("AdamW", "accuracy") == SMALL and m.chosen("AdamW", "loss") == LARGE
    found = effects([m])
    where = m.trial.name
    # In points of accuracy, and so that less loss is better.
    assert found[LEAD, where, "accuracy"] == pytest.approx(4)
    assert found[LEAD, where, "loss"] == pytest.approx(0.4)
    assert found[L2, where, "accuracy"] == pytest.approx(-6)
    assert found[L2, where, "loss"] == pytest.approx(0.2)
    # Accuracy would choose the talk's own λ, but it is another one that is asked for.
    assert found[DECAY, f"{where}, against λ = 0.01", "accuracy"] == pytest.approx(15)
    assert found[DECAY, f"{where}, against λ = 0.01", "loss"] == pytest.approx(0.6)


def test_an_arm_that_diverged_is_not_chosen():
    m = measured(ACCURACY, {**LOSS, LARGE: (np.nan, np.nan)})
    assert m.chosen("AdamW", "loss") == SMALL
    assert np.isnan(m.final(LARGE, "validation_loss")).all()


def test_overfitting_and_schedule_are_compared_with_their_like():
    base = measured(ACCURACY, LOSS)
    better = {**ACCURACY, SMALL: (0.9, 0.94)}
    noisy = measured(better, LOSS, noise=0.3)
    fewer = measured(better, LOSS, images=50)
    cosine = measured(better, LOSS, schedule="cosine")
    more = measured(ACCURACY, LOSS, images=1000)
    found = effects([base, noisy, fewer, cosine, more])
    grows = {key: value for key, value in found.items() if key[0] in (OVERFITTING, SCHEDULE)}
    assert {(claim, where) for claim, where, _ in grows} == {
        (OVERFITTING, f"{noisy.trial.name}, against 100 right"),
        (OVERFITTING, f"{fewer.trial.name}, against 1,000 right"),
        (OVERFITTING, f"{base.trial.name}, against 1,000 right"),
        (SCHEDULE, cosine.trial.name),
    }
    for (_, where, metric), value in grows.items():
        same = metric == "loss" or where.startswith(base.trial.name + ", against")
        assert value == pytest.approx(0 if same else 10)


def test_more_comparisons_widen_the_interval():
    ours, base = np.array([1.0, 2.0, 4.0, 3.0]), np.zeros(4)
    one, many = Difference.of(ours, base), Difference.of(ours, base, comparisons=20)
    assert many.low < one.low < one.mean == many.mean < one.high < many.high
    # t(1 − 0.025/20, 3 degrees) = 9.4649, standard error √(5/3)/2.
    assert many.high - many.mean == pytest.approx(9.4649 * np.sqrt(5 / 3) / 2, rel=1e-4)


def test_a_deviation_is_that_of_the_population_and_unknown_of_one():
    values = np.array([[1.0, 5.0], [3.0, 5.0]])
    np.testing.assert_allclose(deviation(values), [np.sqrt(2), 0])
    assert np.isnan(deviation(values[:1])).all()


@pytest.mark.parametrize("values", [[1e-5, 1e-4, 3e-4, 1e-3], [0.1, 1.0], [3.0]])
def test_every_cell_of_the_landscape_has_its_value_inside(values):
    """Also the lowest, whose edge on a linear axis would lie below zero."""
    edges = landscape._edges(np.array(values))
    assert len(edges) == len(values) + 1 and edges[0] > 0
    assert (edges[:-1] < values).all() and (values < edges[1:]).all()


@pytest.mark.parametrize("schedule", ["constant", "cosine", "restarts"])
def test_schedules_are_numbers_of_one_program(schedule):
    trial = Trial(condition(epochs=7), schedule, 100, 10)
    row = trial.grid(0.5, 1)[0]
    tx = optimizer({k: v for k, v in row.items() if k != "seed"})
    state, rates = tx.init(1.0), []
    for _ in range(trial.total):
        update, state = tx.update(1.0, state, 1.0)
        rates.append(-float(update))  # Adam's step is 1 while the gradient is
    t = np.arange(70)
    expected = {
        "constant": np.ones(70),
        "cosine": 0.5 + 0.5 * np.cos(np.pi * t / 70),
        "restarts": np.concatenate(
            [0.5 + 0.5 * np.cos(np.pi * np.arange(n) / n) for n in (10, 20, 40)]
        ),
    }[schedule]
    np.testing.assert_allclose(rates, 0.5 * expected, rtol=1e-4, atol=1e-6)


def test_reduced_data_is_part_of_the_whole_with_as_many_wrong_labels_as_asked():
    loaded = data.load("digits", 0.25)
    few, fewer = (data.reduced(loaded, n, 0.0).train for n in (300, 100))
    rows = {image.tobytes() for image in np.asarray(few.images)}
    assert len(few.labels) == 300 and {i.tobytes() for i in np.asarray(fewer.images)} <= rows
    noisy = data.reduced(loaded, 300, 0.3)
    np.testing.assert_array_equal(noisy.train.images, few.images)
    assert (np.asarray(noisy.train.labels) != few.labels).sum() == 90
    assert set(np.asarray(noisy.train.labels).tolist()) <= set(range(10))
    np.testing.assert_array_equal(noisy.test.labels, loaded.test.labels)
    np.testing.assert_array_equal(noisy.validation.labels, loaded.validation.labels)
    everything = data.reduced(loaded, 0, 0.0)
    np.testing.assert_array_equal(everything.train.images, loaded.train.images)
    with pytest.raises(data.DataError, match="5000 training images are asked for, .* 1078"):
        data.reduced(loaded, 5000, 0.0)


CONFIG = """
data = "digits"
evaluations = 2
seeds = 3
first = {first}

[[conditions]]
images = 300
schedules = ["constant", "cosine"]
epochs = 4
l2 = [0.001]
weight_decay = [0.01, 1.0]

[[conditions]]
images = 300
noise = 0.3
schedules = ["constant"]
epochs = 4
l2 = [0.001]
weight_decay = [0.01, 1.0]
"""


def study(folder, first):
    (folder / "small.toml").write_text(CONFIG.format(first=first))
    config, output = str(folder / "small.toml"), str(folder / "output")
    return ["study", "--config", config, "--output", output, "--hidden", "8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    assert cli.main(study(folder, first=2)) == 0
    return folder


def test_the_report_has_a_verdict_for_every_claim_and_what_is_not_yet_run(folder):
    page = (folder / "output/report.html").read_text()
    for claim in (LEAD, L2, DECAY, SCHEDULE):
        assert re.search(re.escape(claim).replace("'", "(&#39;|')"), page)
    assert "Not yet run: 300 images, 30 % wrong, constant." in page
    assert "validation loss ends above its lowest" in page
    tables = (folder / "output/tables.md").read_text()
    assert "supported" in tables or "refuted" in tables or "undecided" in tables


def test_trials_are_added_to_those_that_are_there(folder, capsys):
    assert cli.main(study(folder, first=3)) == 0
    assert capsys.readouterr().out.count("taken from") == 2
    page = (folder / "output/report.html").read_text()
    assert "Not yet run" not in page and "(1) AdamW" in page
    assert cli.main(study(folder, first=0)) == 0
    assert "Not yet run" not in (folder / "output/report.html").read_text()


def test_another_process_on_the_same_output_is_an_error_in_words(folder, capsys):
    sweep_of_a_trial = next((folder / "output/sweeps").glob("*/*"))
    with locked(sweep_of_a_trial / ".lock-0"):
        before = {path: path.read_bytes() for path in sweep_of_a_trial.iterdir()}
        for options in [], ["--fresh"]:
            assert cli.main([*study(folder, first=3), *options]) == 2
            assert "error: another process is writing into" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in sweep_of_a_trial.iterdir()} == before


def test_without_any_trial_there_is_no_report(tmp_path, capsys):
    assert cli.main(study(tmp_path, first=0)) == 2
    assert "no trial is done, and first = 0 runs none" in capsys.readouterr().err


SMALL_RUNS = {
    "landscape": [
        "--data", "digits", "--images", "300", "--hidden", "8", "--learning-rates", "0.001", "0.01",
        "--l2", "0.0001", "0.01", "--weight-decay", "0.1", "1", "--decay-per-step", "0.0001",
        "0.01", "--epochs", "2", "--batch-size", "32", "--seeds", "2",
    ],
    "vae": [
        "--hidden", "8", "--latent", "2", "--b1", "0.9", "--b2", "0.99", "0.9999",
        "--learning-rates", "0.001", "0.1", "--early", "1", "--epochs", "2", "--seeds", "2",
    ],
    "grokking": [
        "--p", "7", "--embedding", "8", "--hidden", "16", "--weight-decay", "0", "1", "--steps",
        "200", "--evaluations", "10", "--seeds", "2",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL_RUNS)
def test_the_sweeping_experiments_run(name, tmp_path):
    assert cli.main([name, *SMALL_RUNS[name], "--output", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "What it found" in page and len(list(tmp_path.glob("*.png"))) >= 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("study", ["--batch-size", "5000"], "batch_size = 5000 is more than the 1078 training"),
        ("study", ["--evaluations", "7"], "evaluations = 7 does not divide 100 epochs"),
        ("landscape", ["--data", "digits"], "5000 training images are asked for"),
        ("vae", ["--early", "200"], "early = 200 is after 100 epochs"),
        (
            "vae",
            ["--learning-rates", "1e30", "--early", "1", "--epochs", "1", "--seeds", "1"],
            "every run diverged; the learning rates are too large",
        ),
        ("vae", ["--b1", "0.9", "0.9"], "the values of b1 must increase; got 0.9 0.9"),
        ("grokking", ["--steps", "10"], "evaluations = 200 does not divide 10 steps"),
        ("grokking", ["--weight-decay", "1", "0"], "the values of weight_decay must increase"),
        ("grokking", ["--p", "3", "--share", "0.01"], "share = 0.01 no pair is trained on"),
        ("grokking", ["--p", "3", "--share", "0.99"], "share = 0.99 no pair is left"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name, options, message, tmp_path, capsys):
    assert cli.main([name, *options, "--output", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_second_start_compiles_nothing(tmp_path):
    """The programs come from the cache on disk, the layouts from the sweep: no miss."""
    script = f"""if True:
        import jax, sys
        from experiments.command_line import main
        misses = []
        jax.monitoring.register_event_listener(
            lambda event, **_: misses.append(event) if event.endswith("cache_misses") else None)
        status = main({["grokking", *SMALL_RUNS["grokking"], "--output", str(tmp_path)]})
        print("misses", len(misses))
        sys.exit(status)"""
    environment = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    counts = []
    for _ in range(2):
        process = subprocess.run(
            [sys.executable, "-c", script], env={**environ, **environment}, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        (tmp_path / "report.html").unlink()
        for results in tmp_path.glob("sweeps/*/*/results.parquet"):
            results.unlink()
        counts.append(int(re.search(r"misses (\d+)", process.stdout)[1]))
    assert counts[0] > 0 and counts[1] == 0

import re
import subprocess
import sys
from os import environ

import pytest

from adamw_jax.sweep.files import locked
from experiments import command_line as cli

pytestmark = pytest.mark.usefixtures("programs")

CONFIG = """
data = "digits"
every = 1
trials = 4
promoted = 1
tuning_seeds = 2

[[tasks]]
name = "all"
images = 100
hidden = [8]
schedule = "constant"
epochs = [2]
l2 = [1e-4, 1e-2]
weight_decay = [0.1, 10.0]
seeds = 3
talk_seeds = 2
primary = true

[[tasks]]
name = "all"
images = 100
hidden = [8]
schedule = "cosine"
epochs = [1, 2]
l2 = [1e-4, 1e-2]
weight_decay = [0.1, 10.0]
seeds = 3
primary = true

[[tasks]]
name = "wrong labels"
images = 100
noise = 0.3
hidden = [8]
schedule = "constant"
epochs = [2]
l2 = [1e-4, 1e-2]
weight_decay = [0.1, 10.0]
seeds = 2
less = "all"
"""


def study(folder):
    config = folder / "small.toml"
    if not config.exists():
        config.write_text(CONFIG)
    return ["study", "--config", str(config), "--output", str(folder / "output")]


@pytest.fixture(scope="module")
def folder(programs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    assert cli.main(study(folder)) == 0
    return folder


def test_the_report_answers_and_has_a_card_for_every_guess(folder):
    page = (folder / "output/report.html").read_text()
    for said in ("With all arms tuned alike", "(1) The data", "(2) λ was too", "(3) A schedule"):
        assert said in page
    tables = (folder / "output/tables.md").read_text()
    assert tables.count("AdamW − Adam, accuracy, all") == 4  # two tables of two schedules
    assert "AdamW − Adam+L2, accuracy, all, cosine" in tables
    assert "AdamW at the talk's α = 0.001: all, constant rate" in tables
    rows = (folder / "output/results.csv").read_text().splitlines()
    # Tasks and seeds, three arms, three measures, stopped and at the end.
    assert len(rows) == 1 + (3 + 3 + 2) * 3 * 3 * 2


def test_kept_runs_make_the_same_report_without_data_or_training(folder, monkeypatch):
    monkeypatch.setattr("experiments.harness.data.load", None)
    again = folder / "again"
    arguments = study(folder)[:-1] + [str(again), "--kept", str(folder / "output")]
    assert cli.main(arguments) == 0
    for name in ("tables.md", "results.csv"):
        assert (again / name).read_bytes() == (folder / "output" / name).read_bytes()
    assert not (again / "sweeps").exists()


def test_kept_runs_of_other_settings_are_not_taken(folder, capsys):
    kept = ["--kept", str(folder / "output"), "--batch-size", "16"]
    assert cli.main([*study(folder), *kept]) == 2
    assert "these settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (('less = "all"', 'less = "al"'), "less = 'al', but no task with that name"),
        (("epochs = [1, 2]", "epochs = [2]"), "two tasks have the name 'all'"),
    ],
)
def test_tasks_that_do_not_fit_together_are_refused(changed, message, tmp_path, capsys):
    config = CONFIG.replace(*changed).replace('"cosine"\nepochs = [2]', '"constant"\nepochs = [2]')
    (tmp_path / "small.toml").write_text(config)
    assert cli.main(study(tmp_path)) == 2
    assert message in capsys.readouterr().err


def test_another_process_on_the_same_output_is_an_error_in_words(folder, capsys):
    sweep_of_a_stage = next((folder / "output/sweeps").glob("*-tuning/*"))
    with locked(sweep_of_a_stage / ".lock-0"):
        before = {path: path.read_bytes() for path in sweep_of_a_stage.iterdir()}
        for options in [], ["--fresh"]:
            assert cli.main([*study(folder), *options]) == 2
            assert "error: another process is writing into" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in sweep_of_a_stage.iterdir()} == before


SMALL_RUNS = {
    "landscape": [
        "--data", "digits", "--images", "100", "--hidden", "8", "--learning-rates", "0.001", "0.01",
        "--l2", "0.01", "--weight-decay", "0.1", "--decay-per-step", "0.01", "--epochs", "1",
        "--seeds", "1", "--batch-size", "32",
    ],
    "vae": [
        "--hidden", "4", "--latent", "1", "--b1", "0.9", "--b2", "0.99", "--learning-rates",
        "0.001", "0.1", "--early", "1", "--epochs", "2", "--seeds", "1", "--batch-size", "128",
    ],
    "grokking": [
        "--p", "7", "--embedding", "8", "--hidden", "16", "--weight-decay", "0", "1", "--steps",
        "20", "--evaluations", "10", "--seeds", "1",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL_RUNS)
def test_the_sweeping_experiments_run(name, tmp_path):
    assert cli.main([name, *SMALL_RUNS[name], "--output", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert 'class="lead"' in page and len(list(tmp_path.glob("*.png"))) >= 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("study", ["--batch-size", "5000"], "batch_size = 5000 is more than the 1078 training"),
        ("study", ["--every", "7"], "every = 7 does not divide 100 epochs"),
        ("study", ["--learning-rates", "1e-2", "1e-3"], "learning_rates = 0.01 0.001 is no range"),
        ("study", ["--first-tuning-seed", "5"], "first_tuning_seed = 5 is one of the fresh seeds"),
        ("landscape", ["--data", "digits"], "images = 5000 is more than the 1438 training images"),
        ("vae", ["--early", "200"], "early = 200 is after 100 epochs"),
        (
            "vae",
            [*SMALL_RUNS["vae"], "--learning-rates", "1e30", "1e31"],
            "every run diverged; the learning rates are too large",
        ),
        ("vae", ["--b1", "0.9", "0.9"], "the values of b1 must increase; got 0.9 0.9"),
        ("grokking", ["--steps", "10"], "evaluations = 200 does not divide 10 steps"),
        ("grokking", ["--weight-decay", "1", "0"], "the values of weight_decay must increase"),
        (
            "grokking",
            ["--p", "3", "--fraction", "0.01"],
            "fraction = 0.01 no pair is trained on",
        ),
        (
            "grokking",
            ["--p", "3", "--fraction", "0.99"],
            "fraction = 0.99 no pair is left",
        ),
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

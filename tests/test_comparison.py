import csv
import re
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from experiments import command_line as cli

SMALL = [
    "comparison", "--hidden", "8", "--epochs", "2", "--seeds", "2", "--batch-size", "128",
    "--adam-l2", "0.1", "--adamw", "1", "--adamw-per-step", "0.001", "0.01",
]  # fmt: skip


def run(output, *options):
    command = [sys.executable, "-m", "experiments", *SMALL, "--output", str(output), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows(output):
    with (output / "results.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    output = tmp_path_factory.mktemp("whole")
    assert cli.main([*SMALL, "--output", str(output)]) == 0
    return output


def test_every_arm_seed_and_epoch_is_in_the_results(whole):
    table = rows(whole)
    assert len(table) == 5 * 2 * 2
    arms = {(row["family"], float(row["decay"])) for row in table}
    assert len(arms) == 5
    for row in table:
        assert 0 <= float(row["test_accuracy"]) <= 1 and float(row["train_loss"]) > 0


def test_both_conventions_are_the_same_run_where_they_mean_the_same(whole):
    """At α = 0.001, λ = 1 times α is λ = 0.001 per step."""
    results = {}
    for row in rows(whole):
        results.setdefault((row["family"], row["decay"]), []).append(row["test_loss"])
    assert results["AdamW ×α", "1.0"] == results["AdamW /step", "0.001"]
    assert results["AdamW ×α", "1.0"] != results["AdamW /step", "0.01"]


def test_the_report_needs_no_other_file_and_no_network(whole):
    page = (whole / "report.html").read_text()
    references = re.findall(r"(?:src|href)=\"([^\"]{0,30})", page)
    assert references and all(r.startswith("data:image/svg+xml;base64,") for r in references)
    assert "@import" not in page and "url(" not in page
    assert "python -m experiments comparison --hidden 8" in page
    for name in ("curves", "decays"):
        assert (whole / f"{name}.png").stat().st_size > 10_000


def sweeps(output):
    """The times when the results of the sweeps in an output were written."""
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in output.glob("sweeps/*/*/results.parquet")
    }


def test_finished_runs_are_reused_unless_fresh(whole, capsys):
    before = sweeps(whole)
    assert len(before) == 1
    assert cli.main([*SMALL, "--output", str(whole)]) == 0
    assert "taken from" in capsys.readouterr().out
    assert sweeps(whole) == before
    assert cli.main([*SMALL, "--output", str(whole), "--fresh"]) == 0
    (name,) = before
    assert sweeps(whole).keys() == {name} and sweeps(whole)[name] > before[name]


def test_other_settings_are_another_sweep_beside_the_first(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    assert cli.main([*SMALL, "--output", str(tmp_path), "--learning-rate", "0.01"]) == 0
    assert len(sweeps(tmp_path)) == 2 and sweeps(whole).items() <= sweeps(tmp_path).items()


def test_arms_that_are_the_same_run_are_run_once(whole):
    (path,) = whole.glob("sweeps/*/*/results.parquet")
    runs = pq.read_table(path)["run"].to_pylist()
    assert len(set(runs)) == 8  # the two conventions share two of the ten runs


MANY = ["--epochs", "60", "--seeds", "10"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted")
    assert cli.main([*SMALL, *MANY, "--output", str(output)]) == 0
    return rows(output)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_comparison_goes_on_where_it_was(kill, uninterrupted, tmp_path):
    process = run(tmp_path, *MANY)
    while not list(tmp_path.glob("sweeps/*/*/sweep.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    time.sleep(1)
    process.send_signal(kill)
    _, error = process.communicate(timeout=60)
    if kill == signal.SIGINT:
        assert process.returncode == 130
        assert re.search(r"stopped; \d+ of 40 runs are finished and kept in .*goes on", error)
    process = run(tmp_path, *MANY)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    # The layout is measured, and may be another one: equal within rounding, then.
    for ours, theirs in zip(rows(tmp_path), uninterrupted, strict=True):
        assert ours["seed"] == theirs["seed"] and ours["decay"] == theirs["decay"]
        assert float(ours["test_loss"]) == pytest.approx(float(theirs["test_loss"]), rel=0.05)


def test_a_full_disk_is_a_clear_error(tmp_path):
    limited = f"""if True:
        import resource, sys
        from experiments.command_line import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000,) * 2)
        sys.exit(main({[*SMALL, "--output", str(tmp_path)]}))"""
    process = subprocess.run([sys.executable, "-B", "-c", limited], capture_output=True, text=True)
    assert process.returncode == 2
    assert re.search(r"error: .*sweeps/.*parquet: File too large\n$", process.stderr)
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epoch", "3"], "unknown argument '--epoch'; did you mean '--epochs'?"),
        (["--epochs", "many"], "command line: epochs = 'many': Expected `int`, got `str`"),
        (["--batch-size", "5000"], "batch_size = 5000 is more than the 1222 training images"),
        (["--platform", "abacus"], "--platform: invalid choice: 'abacus'"),
        (["--config", "absent.toml"], "cannot read the settings in absent.toml"),
        (["--data", "fashion-mnist", "--data-dir", "/nowhere"], "/nowhere/train-images"),
    ],
)
def test_bad_options_are_refused_without_a_traceback(options, message, tmp_path):
    process = run(tmp_path, *options)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error.startswith("error: ") and message in error and "Traceback" not in error


def test_an_unwritable_output_is_a_clear_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main([*SMALL, "--output", str(tmp_path / "file")]) == 2
    assert "error: " in capsys.readouterr().err


def test_help_shows_every_key_with_its_value(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["comparison", "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for shown in ("--batch-size INT", "--data {digits,fashion-mnist}", "[32]", "--platform"):
        assert shown in text


def test_the_overview_lists_all_experiments(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in cli.EXPERIMENTS)
    assert cli.main(["surface"]) == 2
    assert "did you mean 'surfaces'?" in capsys.readouterr().err

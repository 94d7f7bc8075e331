"""The command line: what it refuses, keeps, prints and survives."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from experiments import command_line as cli
from experiments.harness import settings

SMALL = [
    "comparison", "--hidden", "8", "--epochs", "2", "--seeds", "2", "--batch-size", "128",
    "--adam-l2", "0.1", "--adamw", "1", "--adamw-per-step", "0.001", "0.01",
]  # fmt: skip
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def start(*arguments, stdout=subprocess.PIPE, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "experiments", *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        text=True,
        errors="replace",
    )


def rows(output):
    with (output / "results.csv").open() as file:
        return list(csv.DictReader(file))


def tables(output):
    """When the results of each sweep in an output were written."""
    return {path: path.stat().st_mtime_ns for path in output.glob("sweeps/*/*/results.parquet")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    output = tmp_path_factory.mktemp("whole")
    assert cli.main([*SMALL, "--output", str(output)]) == 0
    return output


# What it keeps.


def test_every_arm_seed_and_epoch_is_in_the_results(whole):
    table = rows(whole)
    assert len(table) == 5 * 2 * 2
    assert len({(row["family"], float(row["decay"])) for row in table}) == 5
    for row in table:
        assert 0 <= float(row["test_accuracy"]) <= 1 and float(row["train_loss"]) > 0


def test_arms_that_are_the_same_run_are_run_once(whole):
    """At α = 0.001, λ = 1 times α is λ = 0.001 per step."""
    results = {}
    for row in rows(whole):
        results.setdefault((row["family"], row["decay"]), []).append(row["test_loss"])
    assert results["AdamW, times rate", "1.0"] == results["AdamW, per step", "0.001"]
    assert results["AdamW, times rate", "1.0"] != results["AdamW, per step", "0.01"]
    (path,) = tables(whole)
    assert len(set(pq.read_table(path)["run"].to_pylist())) == 8


def test_the_report_needs_no_other_file_and_no_network(whole):
    page = (whole / "report.html").read_text()
    references = re.findall(r"(?:src|href)=\"([^\"]{0,30})", page)
    assert references and all(r.startswith("data:image/svg+xml;base64,") for r in references)
    assert "@import" not in page and "url(" not in page
    assert "python -m experiments comparison --hidden 8" in page
    for name in ("curves", "decays"):
        assert (whole / f"{name}.png").stat().st_size > 10_000


def test_finished_runs_are_reused_unless_fresh(whole, capsys):
    (path,) = before = tables(whole)
    assert cli.main([*SMALL, "--output", str(whole)]) == 0
    assert capsys.readouterr().out.count("Kept runs are used again (--fresh repeats them).") == 1
    assert tables(whole) == before
    assert cli.main([*SMALL, "--output", str(whole), "--fresh"]) == 0
    assert "Kept runs" not in capsys.readouterr().out
    assert tables(whole).keys() == {path} and tables(whole)[path] > before[path]


def test_a_report_of_kept_runs_says_whose_numbers_they_are(whole, tmp_path, capsys):
    before = tables(whole)
    assert cli.main([*SMALL, "--kept", str(whole), "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(f"comparison from the runs kept in {whole}")
    assert f"kept in {whole}; the device above only drew" in (tmp_path / "report.html").read_text()
    assert rows(tmp_path) == rows(whole)
    assert tables(whole) == before and not tables(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("ctrl_c")
def test_a_stopped_sweep_goes_on_where_it_was(tmp_path):
    command = [*SMALL, "--epochs", "60", "--seeds", "10", "--output", tmp_path]
    process = start(*command)
    while not list(tmp_path.glob("sweeps/*/*/sweep.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(r"error: stopped; \d+ of 40 runs are finished and .*goes on.*\n", error)
    process = start(*command)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert len(rows(tmp_path)) == 5 * 10 * 60 and len(tables(tmp_path)) == 1


# Ctrl-C.


@pytest.fixture
def ctrl_c():
    """Lets processes take Ctrl-C even if the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def lines_until(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(process.stderr.read())


MOMENTS = {
    "numpy is imported": lambda process: wait_for_library(process, "numpy"),
    "jaxlib is imported": lambda process: wait_for_library(process, "jaxlib"),
    "it compiles": lambda process: lines_until(process, "surfaces on"),
    "it prints": lambda process: lines_until(process, "On the parabola"),
}


def wait_for_library(process, name):
    while name not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None, process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for what is imported")
@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_is_one_line_and_status_130_at_any_moment(moment, tmp_path, ctrl_c):
    process = start("surfaces", "--output", tmp_path)
    MOMENTS[moment](process)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    if process.returncode or moment != "it prints":  # then all may be over
        assert process.returncode == 130
        assert re.fullmatch("error: stopped; (no report was|the report is complete).*\n", error)


# What it refuses.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epoch", "3"], "unknown argument '--epoch'; did you mean '--epochs'?"),
        (["--epochs", "many"], "command line: epochs = 'many': Expected `int`, got `str`"),
        (["--epochs", str(2**32)], "epochs = '4294967296': Expected `int` <= 2147483647"),
        (["--seeds", "1" * 23], f"seeds = '{'1' * 23}': Expected `int`"),
        (["--hidden", "9" * 5000], "hidden = 999"),
        (["--learning-rate", "1e39"], "learning_rate = '1e39': Expected `float` <= 3.40282"),
        (["--adamw", "1e-320"], "adamw = 1e-320: Expected 0 or at least 1.18e-38"),
        (["--learning-rate", "1e-46"], "learning_rate = '1e-46': Expected `float` >= 1.17549"),
        (["--batch-size", "5000"], "batch_size = 5000 is more than the 1222 training images"),
        (["--platform", "abacus"], "--platform: invalid choice: 'abacus'"),
        (["--config", "absent.toml"], "cannot read the settings in absent.toml"),
        (["--data", "fashion-mnist", "--data-dir", "/nowhere"], "/nowhere/train-images"),
    ],
)
def test_bad_options_are_refused_in_words(options, message, tmp_path, capsys):
    assert cli.main([*SMALL, "--output", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and len(error) < 700


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("hidden = " + "[" * 3000 + "]" * 3000, "brackets are nested too deeply"),
        ("seeds = " + "1" * 5000, "Exceeds the limit"),
        ("seeds = 0x" + "f" * 5000, "seeds = an integer of thousands of digits: "),
        ("adamw = [[]]", "adamw = []: Expected `float`, got `array`"),
        ("epochs = []", "epochs = []: Expected `int`, got `array`"),
        ("seeds = 4294967296", "seeds = 4294967296: Expected `int` <= 2147483647"),
    ],
)
def test_bad_files_are_refused_in_words(toml, message, tmp_path, capsys):
    (tmp_path / "bad.toml").write_text(toml)
    assert cli.main([*SMALL, "--config", str(tmp_path / "bad.toml")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "bad.toml" in error


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (["--platform", "tpu"], {}, "--platform tpu: JAX finds no such device here. Without"),
        ([], {"JAX_PLATFORMS": "tpu"}, "JAX_PLATFORMS=tpu: JAX finds no such device here. Unset"),
    ],
)
def test_a_missing_device_is_named_with_what_asked_for_it(options, environment, message, tmp_path):
    process = start("surfaces", "--output", tmp_path, *options, **environment)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2 and f"error: {message}" in error


def test_a_full_disk_is_a_clear_error(tmp_path):
    arguments = ["bias-correction", "--coordinates", "10", "--output", str(tmp_path)]
    limited = f"""if True:
        import resource, sys
        from experiments.command_line import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000,) * 2)
        sys.exit(main({arguments}))"""
    process = subprocess.run([sys.executable, "-B", "-c", limited], capture_output=True, text=True)
    assert process.returncode == 2
    assert re.search(r"error: .*bias-correction\.csv: File too large\n$", process.stderr)
    assert "Traceback" not in process.stderr


def test_an_unwritable_output_is_a_clear_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main([*SMALL, "--output", str(tmp_path / "file")]) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [[], ["decay", "--help"]], ids=["overview", "help"])
def test_a_full_standard_output_is_named(arguments):
    with open("/dev/full", "w") as full:
        process = start(*arguments, stdout=full)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert error == "error: standard output: No space left on device\n"


# What it prints.


@pytest.mark.parametrize("environment", [ASCII, {"PYTHONIOENCODING": "latin1"}], ids=str)
def test_settings_and_output_survive_a_terminal_without_greek(environment):
    process = start("decay", "--help", **environment)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "--weight-decay NUMBER" in output and "? of both optimizers" in output


def test_help_shows_every_key_with_its_value(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["comparison", "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for shown in ("--batch-size INT", "--data {digits,fashion-mnist}", "[32]", "--platform"):
        assert shown in text


@pytest.mark.parametrize("name", cli.EXPERIMENTS)
def test_the_overview_asks_what_the_module_asks(name, capsys):
    assert cli.main([]) == 0
    question = cli.module_of(name).__doc__.splitlines()[0]
    assert re.search(rf"  {name} +{re.escape(question)}\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    "path", sorted(settings.CONFIGS.glob("*.toml")), ids=lambda path: path.stem
)
def test_a_config_opens_with_its_command_its_source_and_what_to_expect(path):
    header = path.read_text().partition("\n\n")[0]
    command, source, expected = re.split(r"\n#\n", header)
    name = re.match(r"# python -m experiments ([\w-]+)", command)[1]
    other = "" if name == path.stem else f" --config configs/{path.name}"
    assert command == f"# python -m experiments {name}{other}"
    assert source.startswith("# Source: ") and expected.startswith("# Expected: ")
    module = cli.module_of(name)
    default = settings.CONFIGS / f"{name}.toml"
    sources = {str(each): (settings.read(each), False) for each in (default, path)}
    settings.build(module.Settings, sources)


def test_an_unknown_experiment_is_refused(capsys):
    assert cli.main(["surface"]) == 2
    assert "did you mean 'surfaces'?" in capsys.readouterr().err

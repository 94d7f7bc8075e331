"""Finished runs that are reported from the directory that keeps them."""

import pytest
import sweep_program
from rich.console import Console

from experiments import command_line as cli
from experiments.harness import data
from experiments.harness.context import Context
from experiments.harness.settings import SettingsError
from experiments.harness.sweeps import run_grid

GRID = sweep_program.GRID[:2]


def never(*arguments):
    raise AssertionError(f"called with {arguments}")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A directory that keeps a sweep."""
    output = tmp_path_factory.mktemp("kept")
    context, loads = Context(Console(quiet=True), output, None, False), []

    def load():
        loads.append(True)
        return sweep_program.data()

    results = run_grid("few", sweep_program.problem(), GRID, load, context, identity={"n": 1})
    assert len(results) == len(loads) + 1 == 2
    return output


@pytest.fixture
def reads(directory, tmp_path):
    """Reads a grid from a directory, into an output of its own; to train or to load is an error."""

    def read(name="few", grid=GRID, kept=directory, **options):
        context = Context(Console(quiet=True), tmp_path / "output", None, False, kept)
        return run_grid(name, never, grid, never, context, **options)

    return read


@pytest.mark.parametrize("identity", [None, {"n": 1}])
def test_kept_runs_are_read_without_program_or_data(identity, reads, tmp_path):
    results = reads(identity=identity)
    assert not sweep_program.differing(results, sweep_program.go(grid=GRID))
    assert not (tmp_path / "output").exists()


def test_the_directory_is_left_as_it_was(reads, directory):
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    reads()
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


def test_what_is_not_kept_is_named(reads, directory, tmp_path):
    few, many = (directory / "sweeps" / name for name in ("few", "many"))
    other = {"grid": sweep_program.GRID[:3]}
    for changed, what in [
        ({"identity": {"n": 2}}, f"{few} does not hold the 2 runs of these settings"),
        (other, f"{few} does not hold the 3 runs of these settings"),
        ({"name": "many"}, f"there is no {many}"),
        ({"kept": tmp_path}, f"there is no {tmp_path}/sweeps/few"),
    ]:
        with pytest.raises(
            SettingsError, match=rf"--kept {changed.get('kept', directory)}: {what}"
        ):
            reads(**changed)


# Each experiment with a sweep: small settings, and one that its grid of runs does not show.
EXPERIMENTS = {
    "comparison": (
        ["--hidden", "4", "--epochs", "1", "--seeds", "1", "--batch-size", "512",
         "--adam-l2", "0.1", "--adamw", "1", "--adamw-per-step", "0.01"],
        ["--hidden", "5"],
    ),
    "landscape": (
        ["--data", "digits", "--images", "64", "--hidden", "4", "--learning-rates", "0.001",
         "--l2", "0.01", "--weight-decay", "0.1", "--decay-per-step", "0.01", "--epochs", "1",
         "--seeds", "1", "--batch-size", "32"],
        ["--noise", "0.5"],
    ),
    "vae": (
        ["--hidden", "4", "--latent", "1", "--b1", "0.9", "--b2", "0.99", "--learning-rates",
         "0.001", "--early", "1", "--epochs", "1", "--seeds", "1", "--batch-size", "512"],
        ["--latent", "2"],
    ),
    "grokking": (
        ["--p", "5", "--embedding", "4", "--hidden", "4", "--weight-decay", "1", "--steps", "2",
         "--evaluations", "1", "--seeds", "1"],
        ["--fraction", "0.6"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_reports_kept_runs_without_its_data(name, tmp_path, monkeypatch, capsys):
    small, other = EXPERIMENTS[name]
    done, told = tmp_path / "done", tmp_path / "told"
    assert cli.main([name, *small, "--output", str(done)]) == 0
    monkeypatch.setattr(data, "load", never)
    kept = ["--output", str(told), "--kept", str(done)]
    assert cli.main([name, *small, *kept]) == 0
    assert {path.name for path in told.iterdir()} == {path.name for path in done.iterdir()} - {
        "sweeps"
    }
    for csv in done.glob("*.csv"):
        assert (told / csv.name).read_text() == csv.read_text()
    capsys.readouterr()
    assert cli.main([name, *small, *other, *kept]) == 2
    error = capsys.readouterr().err
    assert f"error: --kept {done}: {done}/sweeps/{name} does not hold the" in error


def test_runs_are_kept_or_done_again_but_not_both(tmp_path, capsys):
    assert cli.main(["vae", "--kept", str(tmp_path), "--fresh"]) == 2
    assert "error: argument --fresh: not allowed with argument --kept" in capsys.readouterr().err


def test_an_experiment_that_keeps_no_runs_says_so(tmp_path, capsys):
    small = ["--coordinates", "10", "--output", str(tmp_path / "told")]
    assert cli.main(["bias-correction", *small, "--kept", str(tmp_path)]) == 2
    assert f"--kept {tmp_path}: bias-correction keeps no runs" in capsys.readouterr().err

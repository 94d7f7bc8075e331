"""The progress of a sweep: what a listener is told, and the line on stderr."""

import math

import jax
import pytest
from sweep_counting import counting, quiet

from adamw_jax.sweep import Halving, Layout, Progress, product, sweep
from adamw_jax.sweep.progress import line


def told(run, grid, **options):
    heard = []
    quiet(run, grid, progress=heard.append, **options)
    return heard


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layout": Layout(2, 2)},
        {"until": lambda metrics: metrics["step"] >= 2},
        {"halving": Halving("loss", (1, 3))},
        {"layout": None},
    ],
    ids=["plain", "lanes", "until", "halving", "measured"],
)
def test_progress_rises_from_nothing_to_done(options):
    heard = told(counting(), product(rate=[0.1, 0.2, 0.3], at=[0, 2]), **options)
    shares = [progress.share for progress in heard]
    assert shares[0] == 0 and shares == sorted(shares) and shares[-1] == 1
    assert {progress.runs for progress in heard} == {6}
    finished = [progress.finished for progress in heard]
    assert finished[0] == 0 and finished == sorted(finished) and finished[-1] == 6
    words = [progress.doing for progress in heard]
    assert words[0] == "compiling" and words[-1] == "done" and words.count("done") == 1
    first = words.index("training")
    assert all(math.isnan(progress.seconds_left) for progress in heard[:first])
    assert all(0 <= progress.seconds_left < math.inf for progress in heard[first:])
    assert heard[-1].seconds_left == 0


def test_progress_counts_runs_as_their_chunks_end():
    heard = told(counting(2), product(rate=[0.1, 0.2, 0.3]), devices=jax.devices()[:1])
    training = [(p.finished, round(6 * p.share)) for p in heard if p.doing == "training"]
    assert training == [(0, 1), (0, 2), (1, 2), (1, 3), (1, 4), (2, 4), (2, 5), (2, 6), (3, 6)]


@pytest.mark.parametrize("progress", [False, None])
def test_progress_is_silent_where_none_is_asked_for(progress, capfd):
    quiet(counting(1), product(rate=[0.1]), progress=progress)
    assert capfd.readouterr() == ("", "")


def test_progress_is_a_line_on_stderr(capsys):
    sweep(counting(1), product(rate=[0.1]), layout=Layout(1, 1))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert 1 <= len(lines) <= 2 and lines[-1].rstrip() == "1/1 runs, 100 %  done"


@pytest.mark.parametrize(
    "progress, text",
    [
        (Progress(0, 10, 0.0, math.nan, "compiling"), "0/10 runs, 0 %  compiling"),
        (Progress(3, 10, 0.306, 12.4, "training"), "3/10 runs, 31 %, 12 s left  training"),
        (Progress(3, 10, 0.3, 600.0, "training"), "3/10 runs, 30 %, 10 min left  training"),
        (Progress(3, 10, 0.3, 7200.0, "training"), "3/10 runs, 30 %, 2.0 h left  training"),
        (Progress(10, 10, 1.0, 0.0, "done"), "10/10 runs, 100 %  done"),
        (Progress(1, 2, 0.5, math.nan, "x" * 99), f"1/2 runs, 50 %  {'x' * 62}"),
    ],
)
def test_a_line_of_progress(progress, text):
    assert line(progress) == text.ljust(78)

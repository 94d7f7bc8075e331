"""The lessons run as they stand, and the checks of their exercises tell right from wrong."""

import ast
import re
import sys
import types
from pathlib import Path

import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import pytest
from wrong_answers import WRONG

from adamw_jax.course import check
from adamw_jax.course.check import EXERCISES

COURSE = Path(__file__).parent.parent / "docs/course"
LESSONS = sorted(COURSE.glob("[0-9]*.md"))
CELL = re.compile(
    r"^```\{code-cell\}[^\n]*\n(?:---\n.*?\n---\n|(?::[^\n]*\n)*)(.*?)^```$", re.M | re.S
)
every_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)


def cells(lesson):
    return CELL.findall(lesson.read_text())


def run(cell, names):
    """Runs a cell and returns the value of its last line, which a notebook would show."""
    *statements, last = ast.parse(cell).body
    exec(compile(ast.Module(statements, []), "cell", "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    exec(compile(ast.Module([last], []), "cell", "exec"), names)


@pytest.fixture
def notebook(monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(COURSE)
    yield {"__name__": "__main__"}
    plt.close("all")


@pytest.fixture
def solutions(monkeypatch):
    monkeypatch.syspath_prepend(COURSE / "solutions")
    names = [file.stem for file in (COURSE / "solutions").glob("*.py")]
    yield {key: value for name in names for key, value in vars(__import__(name)).items()}
    for name in names:
        sys.modules.pop(name)


@every_lesson
def test_runs_and_its_findings_hold(lesson, notebook):
    for cell in cells(lesson):
        shown = run(cell, notebook)
        if "check(" in cell:  # the gap that the reader is to fill
            assert not shown and "still to be written?" in " ".join(shown.message.split())


@every_lesson
def test_ends_in_assertions(lesson):
    last = ast.parse(cells(lesson)[-1])
    assert sum(isinstance(node, ast.Assert) for node in ast.walk(last)) >= 3


def test_every_cell_is_found():
    for lesson in LESSONS:
        assert len(cells(lesson)) == lesson.read_text().count("{code-cell}") > 3


def test_every_picture_has_a_text_for_those_who_do_not_see_it():
    for lesson in LESSONS:
        text = lesson.read_text()
        assert text.count("plt.subplots") == len(re.findall(r"^    alt: >-$", text, re.M))


def test_code_fits_the_page():
    for lesson in LESSONS:
        for line in "".join(cells(lesson)).splitlines():
            assert len(line) <= 90, (lesson.name, line)


def test_the_index_lists_every_lesson():
    listed = re.findall(r"\]\(([0-9][^)]+)\)", (COURSE / "index.md").read_text())
    assert listed == [lesson.name for lesson in LESSONS]


def test_links_lead_to_files():
    for document in COURSE.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert "://" in target or (document.parent / target).exists(), target


def test_the_exercises_come_in_the_order_of_the_table():
    text = "".join(lesson.read_text() for lesson in LESSONS)
    asked = re.findall(r'^check\("(\w+)", my_(\w+)\)$', text, re.M)
    assert asked == [(name, name) for name in EXERCISES]


@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_solution_passes(exercise, solutions):
    verdict = check(exercise, solutions[exercise])
    assert verdict and verdict.message.startswith(f"✓ {exercise}")


def test_the_readers_adamw_trains_a_network(solutions, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", (COURSE / "07-adamw.md").read_text(), re.S)
    exec(block, {"my_adamw": solutions["adamw"], "jnp": jnp})
    loss, slope = re.findall(r"(?:loss is|slope) ([\d.e-]+)", capsys.readouterr().out)
    assert float(loss) < 1e-4 and abs(float(slope) - 2) < 0.02


def test_the_last_question_has_the_answer_of_the_study(notebook, solutions):
    for cell in cells(COURSE / "10-the-talks-question.md"):
        run(cell, notebook)
    lead = solutions["lead_without_schedule"](notebook["read"], notebook["stopped"])
    study = (COURSE.parent / "study.md").read_text()
    assert f"{lead.mean():+.2f}" == re.search(r"accuracy, constant rate \| (\S+) ", study)[1]
    assert notebook["p_value"](lead) > 0.5
    few = notebook["differences"][:10]
    assert abs(solutions["p_value"](few) - notebook["p_value"](few)) < 0.02


def test_the_teachers_lines_mark_what_was_handed_in(solutions, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", (COURSE / "teaching.md").read_text(), re.S)
    mine = types.SimpleNamespace(**{f"my_{name}": solutions[name] for name in EXERCISES})
    monkeypatch.setitem(sys.modules, "mine", mine)
    exec(block, {})
    assert capsys.readouterr().out.count("✓") == 6


@pytest.mark.parametrize("exercise, wrong, words", WRONG, ids=lambda x: getattr(x, "__name__", ""))
def test_a_wrong_answer_is_told_what_is_wrong(exercise, wrong, words):
    verdict = check(exercise, wrong)
    assert not verdict
    assert words in " ".join(repr(verdict).split())


def test_every_exercise_has_wrong_answers():
    told = [exercise for exercise, *_ in WRONG]
    assert all(told.count(exercise) >= 3 for exercise in EXERCISES)


@pytest.mark.parametrize("exercise", EXERCISES)
def test_every_known_mistake_is_told_by_its_own_hint(exercise):
    for hint, mistake in EXERCISES[exercise].mistakes.items():
        assert " ".join(check(exercise, mistake).message.split()).endswith(f"Hint: {hint}")


def test_an_unknown_exercise_is_refused():
    with pytest.raises(ValueError, match="no exercise 'adamx'; there are gradient_step, momentum"):
        check("adamx", abs)

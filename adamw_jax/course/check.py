"""The verdict on a solution, in the reader's terms."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from adamw_jax.course.complaints import Complaint, shown
from adamw_jax.course.compositions import COMPOSITIONS
from adamw_jax.course.exercise import Exercise
from adamw_jax.course.pieces import PIECES
from adamw_jax.course.runs import RUNS
from adamw_jax.course.trials import Trial, agree, same

WIDTH = 88  # of a message, in characters
EXERCISES = PIECES | COMPOSITIONS | RUNS


class Verdict(NamedTuple):
    """What `check` found. It prints as its message and is true if the solution is right.

    Attributes:
      passed: whether the solution is right.
      message: what has been achieved, or what is wrong.
    """

    passed: bool
    message: str

    def __repr__(self) -> str:
        return self.message

    def __bool__(self) -> bool:
        return self.passed


def check(exercise: str, solution: Any) -> Verdict:
    """Compares a solution with the library on short sequences of gradients.

    Args:
      exercise: its name, such as "momentum".
      solution: the function that the exercise asks for.

    Returns:
      A verdict, which a notebook shows if the call is the last line of its cell.

    Raises:
      ValueError: there is no such exercise.
    """
    if exercise not in EXERCISES:
        raise ValueError(f"there is no exercise {exercise!r}; there are {', '.join(EXERCISES)}")
    asked = EXERCISES[exercise]
    try:
        if not callable(solution):
            wrong = f"must be a function, and it is {solution!r}: name it without calling it."
            raise Complaint(f"the solution {wrong}")
        wrong = _first_difference(asked, solution)
    except Complaint as complaint:
        wrong = f"{complaint}\n\nAsked for: {asked.form}"
    else:
        wrong = wrong and wrong + _hint(asked, solution)
    message = f"✗ {exercise}: {wrong}" if wrong else f"✓ {exercise}: {asked.achieved}"
    lines = (textwrap.fill(line, WIDTH) for line in message.splitlines())
    return Verdict(not wrong, "\n".join(lines))


def _first_difference(exercise: Exercise, solution: Any) -> str:
    for trial in [*exercise.trials, *exercise.compiled]:
        yours, expected = trial.outputs(solution), trial.outputs(exercise.reference)
        if not same(yours, expected):
            note = f"\n\n    {exercise.note}" if exercise.note else ""
            return _table(trial, yours, expected) + note
    return ""


def _table(trial: Trial, yours: Sequence[Any], expected: Sequence[Any]) -> str:
    """The steps up to the first that differs."""
    differs = [not agree(*pair) for pair in zip(yours, expected, strict=True)].index(True)
    columns = {**trial.inputs, "yours": yours, "should be": expected}
    place = ""
    if trial.first is not None:
        place = f" at step {trial.first + differs}"
        columns = {"step": range(trial.first, trial.first + len(yours)), **columns}
    cells = [[name, *map(shown, values[: differs + 1])] for name, values in columns.items()]
    widths = [max(map(len, column)) for column in cells]
    rows = ("  ".join(map(str.rjust, row, widths)) for row in zip(*cells, strict=True))
    return f"{trial.call} goes wrong{place}:\n\n" + "\n".join(f"    {row}" for row in rows)


def _hint(exercise: Exercise, solution: Any) -> str:
    """What is wrong, if a known mistake has the same outputs as far as the solution runs."""
    runs = []
    try:
        for trial in exercise.trials:
            runs.append((trial, trial.outputs(solution)))
    except Complaint:
        pass  # a wrong solution may well fail later
    for hint, mistake in exercise.mistakes.items():
        if all(same(yours, trial.outputs(mistake)) for trial, yours in runs):
            return f"\n\nHint: {hint}"
    return ""

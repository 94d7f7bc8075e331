"""What an exercise consists of."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from adamw_jax.course.trials import Trial

STEP = "step({0}, {1}) -> (new {0}, update)"
MACHINE = "a pair, init(θ) -> state and step(state, u, θ) -> (new state, update)"


class Exercise(NamedTuple):
    """What is asked for, and how a solution is judged.

    Attributes:
      form: the form of a solution, for the reader.
      reference: a right solution, made of the library's pieces.
      trials: the runs on which a solution must agree with it, the simplest first.
      compiled: the same under `jax.lax.scan`.
      mistakes: known wrong solutions, by the hint that helps with them.
      achieved: what a right solution is.
      note: what the reader must know to read the trials.
    """

    form: str
    reference: Any
    trials: Sequence[Trial]
    compiled: Sequence[Trial]
    mistakes: Mapping[str, Any]
    achieved: str
    note: str = ""

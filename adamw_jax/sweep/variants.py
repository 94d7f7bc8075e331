"""The variants of a sweep: groups of runs that share a program.

Numeric settings are data, and one program serves all their values. Every combination of the
other settings is a variant, with a program of its own.
"""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from adamw_jax.sweep.grid import Row, is_number
from adamw_jax.sweep.interrupts import raise_noted
from adamw_jax.sweep.run import Run, outline, types_of


class Variant(NamedTuple):
    """Runs that share a program.

    Attributes:
      name: the settings that are compiled in, as text.
      run: what to run.
      numbers: the dtypes of the settings that are data, by name.
      members: the numbers of the runs.
      state: the types of the state of one run.
      metrics: the types of the metrics of one advance, by name.
    """

    name: str
    run: Run
    numbers: dict[str, np.dtype]
    members: list[int]
    state: Any
    metrics: dict[str, jax.ShapeDtypeStruct]

    def inputs(self, rows: Sequence[Row], width: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Hyperparameters and seeds [width] of some rows, padded with copies of the last row."""
        padded = [*rows, *[rows[-1]] * (width - len(rows))]
        numbers = {
            name: np.array([row[name] for row in padded], dtype)
            for name, dtype in self.numbers.items()
        }
        return numbers, np.array([row["seed"] for row in padded], np.uint32)


def variants(
    run: Run | Callable[[Row], Run], rows: Sequence[Row], static: Sequence[str], data: Any
) -> list[Variant]:
    """Groups the runs by the settings that are compiled in, and traces a run of each variant.

    Args:
      run: what to run, or a function from the settings that are compiled in to a `Run`.
      rows: the grid.
      static: the numeric settings that are compiled in as well.
      data: the data that all runs get.

    Raises:
      ValueError: `static` names a setting that the grid does not have; settings are compiled
        in, but `run` is not a function of them; a number is too large; or a run's functions
        are wrong (see `outline`).
      TypeError: an argument has the wrong type.
    """
    names = [name for name in rows[0] if name != "seed"]
    compiled_in = _compiled_in(names, rows, static)
    if isinstance(run, Run) and compiled_in:
        raise ValueError(
            f"{', '.join(compiled_in)} must be compiled in, so `run` must be a function from a "
            "dictionary of these settings to a Run"
        )
    numbers = {
        name: _dtype(name, [row[name] for row in rows]) for name in names if name not in compiled_in
    }
    types, members = types_of(data), {}
    for i, row in enumerate(rows):
        members.setdefault(repr({name: row[name] for name in compiled_in}), []).append(i)
    found = []
    for name, runs in members.items():
        made = _made(run, {name: rows[runs[0]][name] for name in compiled_in})
        found.append(Variant(name, made, numbers, runs, *outline(made, numbers, types)))
        raise_noted()
    return found


def _compiled_in(names: Sequence[str], rows: Sequence[Row], static: Sequence[str]) -> list[str]:
    if isinstance(static, str):
        raise ValueError(f"static is a sequence of names; got the string {static!r}")
    if not isinstance(static, Iterable):
        raise TypeError(f"static is a sequence of names; got {static!r}")
    if unknown := [name for name in static if name not in names]:
        raise ValueError(f"static names {unknown[0]!r}; the settings are {', '.join(names)}")
    return [n for n in names if n in static or not all(is_number(row[n]) for row in rows)]


def _made(run: Run | Callable[[Row], Run], fixed: Row) -> Run:
    made = run(dict(fixed)) if callable(run) else run
    if not isinstance(made, Run):
        raise TypeError(f"run must be a Run, or a function that returns one; got {made!r}")
    if not (callable(made.start) and callable(made.advance)):
        raise TypeError(f"start and advance of a Run are functions; got {made!r}")
    try:
        length = operator.index(made.length)
    except TypeError as error:
        raise ValueError(
            f"a run's length is an integer; got {made.length!r} for {fixed}"
        ) from error
    if length < 1:
        raise ValueError(f"a run's length is at least 1; got {length} for {fixed}")
    return made._replace(length=length)


def _dtype(name: str, values: Sequence[int | float]) -> np.dtype:
    """The dtype of a setting, in JAX's precision: float if any value is a float, otherwise int."""
    number = float if any(isinstance(value, float) for value in values) else int
    dtype = np.dtype(jax.dtypes.canonicalize_dtype(number))
    bounds = np.iinfo(dtype) if number is int else np.finfo(dtype)
    low, high = number(bounds.min), number(bounds.max)
    for value in values:
        if not low <= value <= high and value not in (math.inf, -math.inf):
            raise ValueError(f"the setting {name!r} has {value}, which is too large for {dtype}")
    return dtype

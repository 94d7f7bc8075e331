"""Which runs share a program."""

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from adamw_jax.sweep.grid import Row, is_number
from adamw_jax.sweep.run import Run


class Group(NamedTuple):
    """Runs that share a program.

    Attributes:
      name: its static settings, as text.
      run: what they run.
      numbers: dtypes of the settings that are data.
      members: the runs' numbers.
    """

    name: str
    run: Run
    numbers: dict[str, np.dtype]
    members: list[int]


def groups(
    run: Run | Callable[[Row], Run], rows: Sequence[Row], static: Sequence[str]
) -> Iterator[Group]:
    """The runs of every combination of static settings.

    Args:
      run: what to run, or a function to it from the static settings.
      rows: the grid.
      static: settings that are static although they are numbers.

    Raises:
      ValueError: static settings without a function, or that the grid has not; an integer
        that fits no array; a length that is no integer from 1 on.
    """
    names = [name for name in rows[0] if name != "seed"]
    if isinstance(static, str):
        raise ValueError(f"static is a sequence of names; got the string {static!r}")
    if unknown := set(static) - set(names):
        raise ValueError(f"static names {min(unknown)!r}; the settings are {', '.join(names)}")
    compiled_in = [
        name for name in names if name in static or not all(is_number(row[name]) for row in rows)
    ]
    if isinstance(run, Run) and compiled_in:
        raise ValueError(
            f"{', '.join(compiled_in)} must be compiled in, so `run` must be a function from a "
            "dictionary of these settings to a Run"
        )
    numbers = {
        name: _dtype(name, [row[name] for row in rows]) for name in names if name not in compiled_in
    }
    members: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault(repr({name: row[name] for name in compiled_in}), []).append(i)
    for name, runs in members.items():
        fixed = {name: rows[runs[0]][name] for name in compiled_in}
        made = run if isinstance(run, Run) else run(fixed)
        if not isinstance(made, Run):
            raise ValueError(f"run must be a Run or a function to one; got {made!r} for {fixed}")
        try:
            length = operator.index(made.length)
        except TypeError as error:
            raise ValueError(
                f"a run's length is an integer; got {made.length!r} for {fixed}"
            ) from error
        if length < 1:
            raise ValueError(f"a run's length is at least 1; got {length} for {fixed}")
        yield Group(name, made._replace(length=length), numbers, runs)


def _dtype(name: str, values: Sequence[int | float]) -> np.dtype:
    """In JAX's precision: float where one of the values is, else int."""
    kind = float if any(isinstance(value, float) for value in values) else int
    dtype = np.dtype(jax.dtypes.canonicalize_dtype(kind))
    bounds = np.iinfo(dtype) if kind is int else np.finfo(dtype)
    low, high = kind(bounds.min), kind(bounds.max)
    for value in values:
        if not low <= value <= high and value not in (math.inf, -math.inf):
            raise ValueError(f"the setting {name!r} has {value}, which is too large for {dtype}")
    return dtype


def inputs(
    group: Group, rows: Sequence[Row], members: Sequence[int], width: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Hyperparameters and seeds [width] of some runs; the last one fills what is left."""
    padded = [rows[i] for i in (*members, *[members[-1]] * (width - len(members)))]
    numbers = {
        name: np.array([row[name] for row in padded], dtype)
        for name, dtype in group.numbers.items()
    }
    return numbers, np.array([row["seed"] for row in padded], np.uint32)

"""Grids: the settings of all runs of a sweep, as plain rows.

A grid is a tuple of rows, and a row is a dictionary from names to values, so that a
comprehension can make one, too. The functions here make the usual grids and combine them:

    product(
        zipped(learning_rate=[1e-3, 1e-2], eps=[1e-8, 1e-6]),
        weight_decay=log_space(1e-3, 1, 4),
        seed=range(10),
    )
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

Row = dict[str, Any]
Grid = tuple[Row, ...]


def product(*grids: Sequence[Row], **axes: Iterable[Any]) -> Grid:
    """Every row of every grid with every value of every axis; the last varies fastest.

    Raises:
      ValueError: a setting appears twice, or an axis is not a list.
    """
    axes = {name: _values(name, axis) for name, axis in axes.items()}
    factors = [*grids, *([{name: value} for value in values] for name, values in axes.items())]
    return tuple(_joined(rows) for rows in itertools.product(*factors))


def zipped(**axes: Iterable[Any]) -> Grid:
    """One row with the first values of all axes, one with their second values, and so on.

    Raises:
      ValueError: the axes have different lengths, or one is not a list.
    """
    columns = {name: _values(name, axis) for name, axis in axes.items()}
    if len({len(values) for values in columns.values()}) > 1:
        lengths = ", ".join(f"{name} {len(values)}" for name, values in columns.items())
        raise ValueError(f"zipped axes must be equally long; they have {lengths} values")
    return tuple(
        dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
    )


def concatenated(*grids: Sequence[Row]) -> Grid:
    """The rows of all grids, one grid after another, each row once."""
    rows: dict[Any, Row] = {}
    for row in itertools.chain(*grids):
        plain = {name: _scalar(name, value) for name, value in row.items()}
        rows.setdefault(_identity(plain), plain)
    return tuple(rows.values())


def log_space(low: float, high: float, count: int) -> list[float]:
    """Values from `low` to `high` at equal ratios, rounded to twelve digits: 0.01 is exactly 0.01.

    Raises:
      ValueError: a bound is not positive and finite, or there are fewer than two values.
    """
    if not (0 < low < math.inf and 0 < high < math.inf and count >= 2):
        raise ValueError(
            "log_space takes positive, finite bounds and at least 2 values; got "
            f"{low=}, {high=}, {count=}"
        )
    return [float(f"{value:.12g}") for value in np.geomspace(low, high, count)]


def _values(name: str, axis: Iterable[Any]) -> list[Any]:
    if isinstance(axis, str) or not isinstance(axis, Iterable):
        raise ValueError(f"the axis {name!r} takes a list of values; got {axis!r}")
    return list(axis)


def _joined(rows: Iterable[Row]) -> Row:
    joined: Row = {}
    for row in rows:
        if twice := joined.keys() & row.keys():
            raise ValueError(f"the setting {min(twice)!r} is in two factors of the product")
        joined |= row
    return joined


def _identity(row: Row) -> tuple[Any, ...]:
    # By their repr, since the values 1, 1.0 and True are equal.
    return tuple(sorted((name, repr(value)) for name, value in row.items()))


def normalized(rows: Sequence[Row]) -> Grid:
    """The rows in the form that the engine takes: with Python's own scalars, and a seed in each.

    Raises:
      TypeError: the grid is not a sequence of dictionaries.
      ValueError: there are no rows, a row has other settings than the first, a value is not
        a number, string, bool, None or tuple of those, a seed is out of range, or two rows
        are equal.
    """
    if isinstance(rows, Mapping):
        raise TypeError(
            f"a grid is a sequence of rows, such as sweep.product(**axes) makes; got {rows!r}"
        )
    if isinstance(rows, str) or not isinstance(rows, Iterable):
        raise TypeError(f"a grid is a sequence of rows; got {rows!r}")
    rows = list(rows)
    if strange := [row for row in rows if not isinstance(row, Mapping)]:
        raise TypeError(f"a row of a grid is a dictionary of settings; got {strange[0]!r}")
    if not rows:
        raise ValueError("the grid has no rows")
    rows = [{"seed": 0} | {name: _scalar(name, v) for name, v in row.items()} for row in rows]
    names, seen = rows[0].keys(), {}
    for i, row in enumerate(rows):
        if row.keys() != names:
            different = ", ".join(sorted(row.keys() ^ names))
            raise ValueError(f"row {i} has other settings than row 0; they differ in {different}")
        if type(row["seed"]) is not int or not 0 <= row["seed"] < 2**32:
            raise ValueError(f"a seed is an integer in [0, 2**32); row {i} has {row['seed']!r}")
        first = seen.setdefault(_identity(row), i)
        if first != i:
            raise ValueError(f"rows {first} and {i} are the same run: {row}")
    return tuple(rows)


def _scalar(name: str, value: Any) -> Any:
    arrays = np.generic | np.ndarray | jax.Array
    if isinstance(value, arrays) and value.ndim == 0 and not _is_key(value):
        value = value.item()
    leaves = list(_leaves(value))
    if any(isinstance(leaf, float) and math.isnan(leaf) for leaf in leaves):
        raise ValueError(f"the setting {name!r} has the value NaN")
    if all(isinstance(leaf, bool | int | float | str | None) for leaf in leaves):
        return value
    raise ValueError(
        f"a setting is a number, a string, a bool, None or a tuple of those; {name!r} has {value!r}"
    )


def _is_key(value: Any) -> bool:
    return jax.numpy.issubdtype(value.dtype, jax.dtypes.extended)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def is_number(value: Any) -> bool:
    """Whether a setting can be data: an int or a float, but not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)

"""Calls of what the reader has written, and complaints about what they return."""

import inspect
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Complaint(Exception):
    """A solution cannot be run to its end; the message says what it did."""


def called(call: str, function: Callable[..., Any], *arguments: Any, advice: str = "") -> Any:
    """Calls a function of the reader's.

    Raises:
      Complaint: it raises an exception or returns None.
    """
    try:
        with np.errstate(all="ignore"):
            result = function(*arguments)
    except Complaint:
        raise
    except Exception as error:
        told = f"{call} raised {type(error).__name__}: {_told(error)}"
        raise Complaint(told + f"\n\n{advice}" * bool(advice)) from error
    if result is None:
        raise Complaint(f"{call} returned None. Is the return still to be written?")
    return result


def on_vectors(arguments: Sequence[Any]) -> str:
    """Advice for a call that has a vector among its arguments."""
    if not any(map(np.ndim, arguments)):
        return ""
    return (
        "It must also work on vectors, and be compiled: no `if`, `min` or `float` may look at a "
        "value, and jnp takes the place of math and np."
    )


def one(call: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of the reader's that returns one number or array.

    Raises:
      Complaint: it raises an exception, or returns something else.
    """
    result = called(call, function, *arguments, advice=on_vectors(arguments))
    if isinstance(result, tuple | list):
        wrong = f"{call} must return a number or an array, and it returned {seen(result)}."
        raise Complaint(wrong)
    return result


def _told(error: Exception) -> str:
    ours = str(Path(__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [
        f for f in frames if not f.filename.startswith(ours) and "site-packages" not in f.filename
    ]
    line = f"\n  in the line: {theirs[-1].line}" if theirs and theirs[-1].line else ""
    first, *rest = filter(None, str(error).splitlines()) if str(error) else [""]
    return " ".join([first, *rest[: first.endswith(":")]]) + line


def function(call: str, value: Any) -> Callable[..., Any]:
    """Checks that a call returned a function.

    Raises:
      Complaint: it did not.
    """
    if not callable(value):
        raise Complaint(f"{call} must return a function, and it returned {seen(value)}.")
    return value


def pair(call: str, value: Any, form: str) -> tuple[Any, Any]:
    """Checks that a call returned a pair.

    Raises:
      Complaint: it did not.
    """
    if not isinstance(value, tuple) or len(value) != 2:
        wrong = f"must return a pair, the tuple {form}, and it returned {seen(value)}."
        raise Complaint(f"{call} {wrong}")
    return value


def seen(value: Any) -> str:
    """What a call returned, for the reader: numbers with four digits, and whatever else."""
    match value:
        case tuple() | list():
            parts = ", ".join(map(seen, value))
            return f"[{parts}]" if isinstance(value, list) else f"({parts})"
        case None:
            return "None"
    if inspect.isfunction(value):
        return f"the function {value.__name__}"
    try:
        return _digits(np.asarray(value, np.float64))
    except (TypeError, ValueError):
        return repr(value)


def number(output: Any) -> np.ndarray:
    """An output as an array of float64.

    Raises:
      Complaint: it is not made of numbers.
    """
    wrong = f"an update must be a number or an array, and it is {seen(output)}."
    if output is None or isinstance(output, tuple | list):
        raise Complaint(f"{wrong} The pair is (new state, update), in this order.")
    try:
        return np.asarray(output, np.float64)
    except (TypeError, ValueError):
        raise Complaint(wrong) from None


def shown(value: Any) -> str:
    """A number or vector with four digits."""
    return _digits(number(value))


def _digits(value: np.ndarray) -> str:
    return f"[{', '.join(map(_digits, value))}]" if value.ndim else f"{value:.4g}"

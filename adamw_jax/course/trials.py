"""Runs of a solution whose outputs can be compared.

The solutions have one of three forms: a function of numbers; a *step* function,
`(state, g) -> (state, update)`; or a *machine*, the pair of `init(θ) -> state` and
`step(state, u, θ) -> (state, update)`.
"""

import functools
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

Machine = tuple[Callable[..., Any], Callable[..., Any]]
COMPILED = (
    "It must also work on vectors and be compiled by scan: the state keeps its shape and type, so "
    "start it with jnp.zeros_like(θ), and no `if` or `float` may look at a value."
)
VECTORS = jnp.asarray([[1.0, -2.0], [2.0, 0.5], [-3.0, 1.0]])


class Complaint(Exception):
    """A solution cannot be run to its end; the message says what it did."""


class Trial(NamedTuple):
    """One way to run a solution.

    Attributes:
      call: how it is run, for the reader.
      inputs: what it is given at each step, by the name of the column.
      outputs: runs a solution and returns its outputs, one for each step.
      first: the number of the first step; None for a function, which has none.
    """

    call: str
    inputs: Mapping[str, Sequence[Any]]
    outputs: Callable[[Any], Sequence[Any]]
    first: int | None = 1


def sequences() -> list[tuple[float, ...]]:
    """Gradients of one, two and three steps; the shortest and simplest come first."""
    # NumPy's numbers, for which 1/0 is infinite, not an error.
    one, *_ = later = [np.float64(g) for g in (1.0, 2.0, -3.0)]
    return [(one,), *((one, a) for a in later), *((one, a, b) for a in later for b in later)]


def of_function(name: str, make: Callable[[Any], Any], **arguments: float) -> Trial:
    """Calls a function of numbers once, with the arguments in their order."""
    values = tuple(map(np.float64, arguments.values()))
    call = f"{name}({', '.join(arguments)})"
    inputs = {key: [value] for key, value in arguments.items()}

    def outputs(solution):
        return [called(call, _function(call, called(call, make, solution)), *values)]

    return Trial(call, inputs, outputs, first=None)


def of_step(
    call: str,
    make: Callable[[Any], Any],
    gradients: Sequence[Any],
    start: Any,
    column: str = "gradient",
) -> Trial:
    """Folds a step function over gradients, or what the column is called, in a Python loop."""

    def outputs(solution):
        step = _function(call, called(call, make, solution))
        return list(_fold(lambda state, g: called("step", step, state, g), gradients, start))

    return Trial(call, {column: gradients}, outputs)


def of_scanned_step(call: str, make: Callable[[Any], Any], start: Any) -> Trial:
    """Folds a step function over vectors with `jax.lax.scan`."""
    scanned = f"jax.lax.scan({call}, …)"

    def outputs(solution):
        step = _function(call, called(call, make, solution))
        return called(scanned, jax.lax.scan, step, start, VECTORS, advice=COMPILED)[1]

    return Trial(scanned, {"gradient": list(VECTORS)}, outputs)


def of_machine(
    call: str, make: Callable[[Any], Any], gradients: Sequence[Any], θ: Any = 3.0
) -> Trial:
    """Runs a machine along gradients in a Python loop, with the weights held still."""

    def outputs(solution):
        init, step = _pair(call, called(call, make, solution), "(init, step)")
        start = _start(init, θ)
        return list(_fold(lambda s, u: called("step", step, s, u, θ), gradients, start))

    return Trial(call, {"gradient": gradients, "weight": [θ] * len(gradients)}, outputs)


def of_scanned_machine(call: str, make: Callable[[Any], Any]) -> Trial:
    """Runs a machine over vectors with `jax.lax.scan`."""
    scanned, θ = f"jax.lax.scan over {call}", jnp.asarray([2.0, -1.0])

    def outputs(solution):
        init, step = _pair(call, called(call, make, solution), "(init, step)")
        start = _start(init, θ)
        run = functools.partial(jax.lax.scan, lambda state, u: step(state, u, θ))
        return called(scanned, run, start, VECTORS, advice=COMPILED)[1]

    return Trial(scanned, {"gradient": list(VECTORS), "weight": [θ] * len(VECTORS)}, outputs)


def as_machine(tx: optax.GradientTransformation) -> Machine:
    """A transformation of Optax's kind in the course's order, with numbers made arrays."""

    def step(state, u, θ):
        u, state = tx.update(jnp.asarray(u), state, jnp.asarray(θ))
        return state, u

    return lambda θ: tx.init(jnp.asarray(θ)), step


def as_transformation(machine: Machine) -> optax.GradientTransformation:
    """The opposite of `as_machine`."""
    init, step = machine

    def update(updates, state, params=None):
        state, updates = step(state, updates, params)
        return updates, state

    return optax.GradientTransformation(init, update)


def _start(init: Callable[..., Any], θ: Any) -> Any:
    # A tuple, since the state of a machine that remembers nothing may well be None.
    return called("init", lambda θ: (init(θ),), θ)[0]


def _fold(step: Callable[..., Any], gradients: Iterable[Any], state: Any) -> Iterable[Any]:
    for g in gradients:
        after, update = _pair("step", step(state, g), "(new state, update)")
        _, again = _pair("step", step(state, g), "(new state, update)")
        if not same([update], [again]):
            raise Complaint(
                f"step is not pure: called twice with the same state and the gradient "
                f"{shown(g)}, it returned the update {shown(update)} and then {shown(again)}. "
                "What it remembers must be in the state that it returns, and nowhere else."
            )
        state = after
        yield update


def same(yours: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether two runs agree, in shape too, within the digits of float32."""
    return len(yours) == len(expected) and all(map(agree, yours, expected))


def agree(a: Any, b: Any) -> bool:
    """Whether two outputs agree, as in `same`."""
    a, b = number(a), number(b)
    return a.shape == b.shape and np.allclose(a, b, rtol=2e-4, atol=1e-6, equal_nan=True)


def number(output: Any) -> np.ndarray:
    """An output as an array of float64.

    Raises:
      Complaint: it is not made of numbers.
    """
    wrong = f"an update must be a number or an array, and it is {output!r}."
    if output is None or isinstance(output, tuple | list):
        raise Complaint(f"{wrong} The pair is (new state, update), in this order.")
    try:
        return np.asarray(output, np.float64)
    except (TypeError, ValueError):
        raise Complaint(wrong) from None


def shown(value: Any) -> str:
    """A number or vector with four digits."""
    value = number(value)
    return f"{value:.4g}" if not value.ndim else f"[{', '.join(map(shown, value))}]"


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


def _told(error: Exception) -> str:
    ours = str(Path(__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [
        f for f in frames if not f.filename.startswith(ours) and "site-packages" not in f.filename
    ]
    line = f"\n  in the line: {theirs[-1].line}" if theirs else ""
    return str(error).splitlines()[0] + line


def _function(call: str, value: Any) -> Callable[..., Any]:
    if not callable(value):
        raise Complaint(f"{call} must return a function, and it returned {_seen(value)}.")
    return value


def _pair(call: str, value: Any, form: str) -> tuple[Any, Any]:
    if not isinstance(value, tuple) or len(value) != 2:
        raise Complaint(f"{call} must return a pair, {form}, and it returned {_seen(value)}.")
    return value


def _seen(value: Any) -> str:
    try:
        return shown(value)
    except Complaint:
        return repr(value)

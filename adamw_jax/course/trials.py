"""Runs of a solution whose outputs can be compared.

The solutions have one of three forms: a function of numbers; a *step* function,
`(state, g) -> (state, update)`; or a *machine*, the pair of `init(θ) -> state` and
`step(state, u, θ) -> (state, update)`.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax.course.complaints import (
    Complaint,
    called,
    function,
    number,
    on_vectors,
    one,
    pair,
    shown,
)

Machine = tuple[Callable[..., Any], Callable[..., Any]]
COMPILED = (
    "It must also be compiled, and work on vectors: the state keeps its shape and type, so start "
    "it with jnp.zeros_like(θ); no `if`, `min` or `float` may look at a value, and jnp takes the "
    "place of math and np."
)
# NumPy's arrays, unlike JAX's, show whether a solution changes them in place.
VECTORS = np.array([[1.0, -2.0], [2.0, 0.5], [-3.0, 1.0]])
WEIGHTS = 3.0, 1.0, -2.0  # which move, so that a machine cannot remember them


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


def of_function(name: str, make: Callable[[Any], Any], **arguments: Any) -> Trial:
    """Calls a function of numbers or vectors once, with the arguments in their order."""
    values = tuple(map(np.float64, arguments.values()))
    call = f"{name}({', '.join(arguments)})"
    inputs = {key: [value] for key, value in zip(arguments, values, strict=True)}

    def outputs(solution):
        return [one(call, function(call, called(call, make, solution)), *values)]

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
        step = function(call, called(call, make, solution))
        return list(_fold(call, step, map(copy.copy, gradients), copy.copy(start)))

    return Trial(call, {column: gradients}, outputs)


def of_scanned_step(call: str, make: Callable[[Any], Any], start: Any) -> Trial:
    """Folds a step function over vectors with `jax.lax.scan`."""
    scanned = f"jax.lax.scan({call}, …)"

    def outputs(solution):
        step = function(call, called(call, make, solution))
        return called(scanned, jax.lax.scan, step, start, VECTORS, advice=COMPILED)[1]

    return Trial(scanned, {"gradient": list(VECTORS)}, outputs)


def of_machine(call: str, make: Callable[[Any], Any], gradients: Sequence[Any]) -> Trial:
    """Runs a machine along gradients in a Python loop, with weights that move."""
    weights = WEIGHTS[: len(gradients)]

    def outputs(solution):
        init, step = pair(call, called(call, make, solution), "(init, step)")
        start = _start(call, init, weights[0])
        return list(_fold(call, step, zip(gradients, weights, strict=True), start))

    return Trial(call, {"gradient": gradients, "weight": weights}, outputs)


def of_scanned_machine(call: str, make: Callable[[Any], Any]) -> Trial:
    """Runs a machine over vectors with `jax.lax.scan`."""
    scanned, weights = f"jax.lax.scan over {call}", VECTORS[::-1]

    def outputs(solution):
        init, step = pair(call, called(call, make, solution), "(init, step)")
        start = _start(call, init, jnp.asarray(weights[0]))

        def run(start, gradients, weights):
            return jax.lax.scan(lambda s, given: step(s, *given), start, (gradients, weights))

        return called(scanned, run, start, VECTORS, weights, advice=COMPILED)[1]

    return Trial(scanned, {"gradient": list(VECTORS), "weight": list(weights)}, outputs)


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


def _start(call: str, init: Callable[..., Any], θ: Any) -> Any:
    # A tuple, since the state of a machine that remembers nothing may well be None.
    return called(f"the init of {call}", lambda θ: (init(θ),), θ)[0]


def _fold(call: str, step: Callable[..., Any], given: Iterable[Any], state: Any) -> Iterable[Any]:
    """The updates along gradients, or along pairs of a gradient and a weight."""
    call = f"the step of {call}"
    for inputs in given:
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        after, first = _stepped(call, step, state, inputs)
        first = copy.copy(first)
        after, second = _stepped(call, step, state, inputs)
        if not same([first], [second]):
            first, second = shown(first), shown(second)
            raise Complaint(
                f"{call} is not pure: called twice with the same state and the gradient "
                f"{shown(inputs[0])}, it returned the update {first} and then {second}. What it "
                "remembers must be in the state that it returns, and nowhere else. (On an array, "
                "m *= b1 changes the old m, too.)"
            )
        state = after
        yield second


def _stepped(call: str, step: Callable[..., Any], state: Any, inputs: Sequence[Any]) -> Any:
    result = called(call, step, state, *inputs, advice=on_vectors(inputs))
    after, update = pair(call, result, "(new state, update)")
    number(update)
    return after, update


def same(yours: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether two runs agree, in shape too, within the digits of float32."""
    return len(yours) == len(expected) and all(map(agree, yours, expected))


def agree(a: Any, b: Any) -> bool:
    """Whether two outputs agree, as in `same`."""
    a, b = number(a), number(b)
    return a.shape == b.shape and np.allclose(a, b, rtol=2e-4, atol=1e-6, equal_nan=True)

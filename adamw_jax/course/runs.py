"""The exercise of lesson 8: a whole run."""

from typing import Any

import jax
import jax.numpy as jnp

import adamw_jax as aj
from adamw_jax.course.exercise import Exercise
from adamw_jax.course.trials import Complaint, Trial, as_machine, called

STEPS = 4
MACHINES = {
    "descent": as_machine(aj.gd(0.25)),
    "momentum": as_machine(aj.momentum_gd(0.25)),
}


def _slope(θ: Any) -> Any:
    return 2 * θ


def _descend(machine, gradient, θ, steps, *, keeps=True, moves=True, sign=1, after=False):
    """A run in a Python loop, with the usual slips on request."""
    init, step = machine
    state, path, start = init(θ), [], θ
    for _ in range(steps):
        new, u = step(state, gradient(θ if moves else start), θ)
        state, before, θ = new if keeps else state, θ, θ + sign * u
        path.append(θ if after else before)
    return jnp.stack(path)


def _slip(**slip: Any) -> Any:
    return lambda *run: _descend(*run, **slip)


def _run(name: str) -> Trial:
    call = f"descend({name}, lambda θ: 2 * θ, 1.0, {STEPS})"

    def outputs(solution):
        path = called(call, solution, MACHINES[name], _slope, jnp.asarray(1.0), STEPS)
        if jnp.shape(path) != (STEPS,):
            raise Complaint(
                f"{call} must return an array of {STEPS} values of θ, and it returned {path!r}."
            )
        return list(path)

    return Trial(call, {}, outputs, first=0)


def _mapped(name: str) -> Trial:
    call = f"jax.vmap over θ of descend({name}, …)"

    def outputs(solution):
        def run(θ):
            return solution(MACHINES[name], _slope, θ, STEPS)

        return called(call, jax.vmap(run), jnp.asarray([1.0, -2.0])).T

    return Trial(call, {}, outputs, first=0)


RUNS = {
    "descend": Exercise(
        form="descend(machine, gradient, θ, steps) -> an array: θ after 0, 1, … steps",
        reference=_descend,
        trials=[_run(name) for name in MACHINES],
        compiled=[_mapped("momentum")],
        mistakes={
            "the path begins after the first step; it should begin at the start.": (
                _slip(after=True)
            ),
            "the update points downhill already: add it to θ.": _slip(sign=-1),
            "the gradient is always that at the start; take it where θ is now.": (
                _slip(moves=False)
            ),
            "the machine forgets: carry its new state to the next step, beside θ.": (
                _slip(keeps=False)
            ),
        },
        achieved="a run is a fold, and can be mapped. With your adamw this is a whole training.",
        note="(descent is a machine with the update −0.25 u, and momentum one with −0.25 m.)",
    ),
}

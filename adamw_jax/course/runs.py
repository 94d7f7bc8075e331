"""The exercises of lessons 8 to 10: a whole run, a schedule, and a test of chance."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamw_jax as aj
from adamw_jax.course import trials
from adamw_jax.course.complaints import Complaint, called, function, one, seen
from adamw_jax.course.exercise import Exercise
from adamw_jax.course.trials import Trial, as_machine

STEPS = 4
MACHINES = {
    "descent": as_machine(aj.gd(0.25)),
    "momentum": as_machine(aj.momentum_gd(0.25)),
}


def _slope(θ: Any) -> Any:
    return 2 * θ


def _descend(
    machine, gradient, θ, steps, *, keeps=True, moves=True, sign=1, path="before", again=False
):
    """A run in a Python loop, with the usual slips on request."""
    (init, step), start, found = machine, θ, []
    state, gradient = init(θ), jax.grad(gradient) if again else gradient
    for _ in range(steps):
        new, u = step(state, gradient(θ if moves else start), θ)
        state, before, θ = new if keeps else state, θ, θ + sign * u
        found.append({"before": before, "after": θ, "updates": u}[path])
    return jnp.stack(found)


def _slip(**slip: Any) -> Any:
    return lambda *run: _descend(*run, **slip)


def _run(name: str) -> Trial:
    call = f"descend({name}, lambda θ: 2 * θ, 3.0, {STEPS})"

    def outputs(solution):
        path = called(call, solution, MACHINES[name], _slope, jnp.asarray(3.0), STEPS)
        if getattr(path, "shape", None) != (STEPS,):
            wrong = f"must return an array of {STEPS} values of θ, and it returned {seen(path)}."
            raise Complaint(f"{call} {wrong}")
        return list(path)

    return Trial(call, {}, outputs, first=0)


def _mapped(name: str) -> Trial:
    call = f"jax.vmap over θ of descend({name}, …)"

    def outputs(solution):
        def run(θ):
            return solution(MACHINES[name], _slope, θ, STEPS)

        return called(call, jax.vmap(run), jnp.asarray([1.0, -2.0])).T

    return Trial(call, {}, outputs, first=0)


def _falls(first: float, steps: int, at: tuple[int, ...]) -> Trial:
    call = f"cosine({first}, {steps})"

    def outputs(solution):
        schedule = function(call, called(call, solution, first, steps))
        return [one(f"{call}({step})", schedule, step) for step in at]

    return Trial(call, {"step": at}, outputs, first=None)


def _falls_compiled(first: float, steps: int) -> Trial:
    call = f"jax.vmap(cosine({first}, {steps}))"
    advice = (
        "In a compiled run the step is a placeholder, at which no `if`, `min` or `float` may look: "
        "use jnp.minimum or jnp.where, and jnp.cos in the place of math.cos."
    )

    def outputs(solution):
        schedule = jax.vmap(solution(first, steps))
        return list(called(call, schedule, jnp.arange(2 * steps), advice=advice))

    return Trial(call, {"step": range(2 * steps)}, outputs, first=None)


def _cosine(scale: Any, clip: Any = jnp.minimum) -> Any:
    return lambda first, n: lambda step: first * scale(jnp.pi * clip(step, n) / n)


def _chance(at_least: Any = lambda mean, ours: abs(mean) >= abs(ours), others: bool = False) -> Any:
    """An exact test by signs, with the usual slips."""

    def p_value(differences):
        signs = list(itertools.product([1, -1], repeat=len(differences)))[others:]
        ours = np.mean(differences)
        return np.mean([at_least(np.mean(s * np.asarray(differences)), ours) for s in signs])

    return p_value


RUNS = {
    "descend": Exercise(
        form="descend(machine, gradient, θ, steps) -> an array: θ after 0, 1, … steps",
        reference=_descend,
        trials=[_run(name) for name in MACHINES],
        compiled=[_mapped("momentum")],
        mistakes={
            "the path begins after the first step; it should begin at the start.": (
                _slip(path="after")
            ),
            "these are the updates; the path should hold θ.": _slip(path="updates"),
            "the update points downhill already: add it to θ.": _slip(sign=-1),
            "the gradient is always that at the start; take it where θ is now.": (
                _slip(moves=False)
            ),
            "`gradient` is the gradient already: call it, and do not differentiate it.": (
                _slip(again=True)
            ),
            "the machine forgets: carry its new state to the next step, beside θ.": (
                _slip(keeps=False)
            ),
        },
        achieved="a run is a fold, and can be mapped. With your adamw this is a whole training.",
        note="(descent is a machine with the update −0.25 u, and momentum one with −0.25 m.)",
    ),
    "cosine": Exercise(
        form="cosine(first, steps) returns schedule(step) -> learning rate",
        reference=optax.cosine_decay_schedule,
        trials=[_falls(1.0, 4, (0, 1, 2, 3, 4, 5, 8)), _falls(0.1, 6, (0, 3, 6))],
        compiled=[_falls_compiled(0.1, 3)],
        mistakes={
            "the cosine runs from 1 to −1: half of 1 + cos runs from 1 to 0.": (
                _cosine(lambda x: 1 + jnp.cos(x))
            ),
            "the rate becomes negative: half of 1 + cos runs from 1 to 0.": _cosine(jnp.cos),
            "this is a quarter of a period, which ends steep: take half of one, and half of "
            "1 + cos.": _cosine(lambda x: jnp.cos(x / 2)),
            "this is a whole period, which rises again: the angle should end at π.": (
                _cosine(lambda x: 0.5 + 0.5 * jnp.cos(2 * x))
            ),
            "this rises: half of 1 + cos, not of 1 − cos.": (
                _cosine(lambda x: 0.5 - 0.5 * jnp.cos(x))
            ),
            "after its last step the rate rises again: it should stay at zero.": (
                _cosine(lambda x: 0.5 + 0.5 * jnp.cos(x), clip=lambda step, n: step)
            ),
            "this falls along a straight line.": _cosine(lambda x: 1 - x / jnp.pi),
            "this does not fall.": _cosine(lambda x: 1.0),
            "the angle is counted in radians: it ends at π, not at 180.": (
                _cosine(lambda x: 0.5 + 0.5 * jnp.cos(x * 180 / jnp.pi))
            ),
            "`first` is left out.": (
                lambda first, n: _cosine(lambda x: 0.5 + 0.5 * jnp.cos(x))(1.0, n)
            ),
        },
        achieved="a schedule is a function, and you have written the usual one.",
    ),
    "p_value": Exercise(
        form="p_value(differences) -> a number from 0 to 1",
        reference=_chance(),
        trials=[
            trials.of_function("p_value", lambda f: f, differences=differences)
            for differences in ([1.0], [1.0, 2.0], [3.0, 2.0, 1.0], [-2.0, 1.0], [2.0, -1.0, 4.0])
        ],
        compiled=[],
        mistakes={
            "a mean as far below zero counts, too: compare sizes.": (
                _chance(lambda mean, ours: mean >= ours)
            ),
            "a mean that is just as far from zero counts, too: ≥, not >. Else p can be 0.": (
                _chance(lambda mean, ours: abs(mean) > abs(ours))
            ),
            "the differences as they are count as one choice of signs, too. Else p can be 0.": (
                _chance(others=True)
            ),
            "this is how often the mean is nearer to zero; p is how often it is not.": (
                _chance(lambda mean, ours: abs(mean) < abs(ours))
            ),
        },
        achieved="it maps over all choices of signs, and nothing is left to chance.",
    ),
}

"""The exercises of lessons 1 to 4: the pieces.

The references are the library's own pieces: what a reader has written does, where it passes,
what the library does.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import adamw_jax as aj
from adamw_jax.course import mistakes, trials
from adamw_jax.course.exercise import STEP, Exercise


def _stepping(piece: Callable[..., Any], state: Callable[[Any], Any]) -> Any:
    """A piece of the library as a step function whose state is a bare number or array."""

    def make(b):
        def step(memory, g):
            update, after = piece(b).update(jnp.asarray(g), state(jnp.asarray(memory)))
            return after[0], update

        return step

    return make


def _steps(
    name: str, rates: Sequence[float], start: Any, vector: Any, column: str = "gradient"
) -> dict[str, Any]:
    """Trials of a step function that is made from one decay rate."""

    def given(b):
        return f"{name}({b})", lambda solution: solution(b)

    short = [
        trials.of_step(*given(b), gradients, start, column)
        for b in rates
        for gradients in trials.sequences()
    ]
    vectors = trials.of_step(*given(rates[0]), list(trials.VECTORS), vector, column)
    compiled = trials.of_scanned_step(*given(rates[0]), vector)
    return {"trials": [*short, vectors], "compiled": [compiled]}


def _ratio(merge: Callable[..., Any]) -> Any:
    return lambda eps: lambda m, v: merge(m, v, eps)


PIECES = {
    "gradient_step": Exercise(
        form="gradient_step(θ, g, α) -> new θ",
        reference=lambda θ, g, α: θ - α * g,
        trials=[
            trials.of_function("gradient_step", lambda f: f, θ=θ, g=g, α=α)
            for θ, g, α in [(1.0, 1.0, 0.1), (0.0, 2.0, 0.5), (-3.0, -2.0, 0.5)]
        ],
        compiled=[],
        mistakes={
            "a step against the gradient is subtracted, so that the loss falls; yours climbs.": (
                lambda θ, g, α: θ + α * g
            ),
            "the step is α g; yours has the length of the gradient itself.": lambda θ, g, α: θ - g,
            "θ and g have changed places.": lambda θ, g, α: g - α * θ,
            "this is the step alone; it is still to be taken from θ.": lambda θ, g, α: α * g,
            "this is the step alone; it is still to be added to θ.": lambda θ, g, α: -α * g,
        },
        achieved="it goes downhill. This is adamw_jax.gd.",
    ),
    "momentum": Exercise(
        form=f"momentum(b1) returns {STEP.format('m', 'g')}",
        reference=_stepping(aj.momentum, aj.MomentumState),
        **_steps("momentum", (0.9, 0.5), 0.0, np.zeros(2)),
        mistakes={
            "the gradient enters with weight 1, so that m is a sum and not an average: multiply "
            "it by 1 − b1.": mistakes.average(lambda b: b, lambda b, g: g),
            "b1 and 1 − b1 have changed places: m should remember much and learn little.": (
                mistakes.average(lambda b: 1 - b, lambda b, g: b * g)
            ),
            "every update looks like the first one: m is computed, but the old m is returned as "
            "the state.": mistakes.average(lambda b: b, lambda b, g: (1 - b) * g, forgets=True),
            "what is remembered does not fade: multiply the old m by b1.": (
                mistakes.average(lambda b: 1, lambda b, g: (1 - b) * g)
            ),
            "the update is the gradient; it should be the new m.": (
                lambda b: lambda m, g: (b * m + (1 - b) * g, g)
            ),
            "the update is the m from before this gradient; it should be the new one.": (
                lambda b: lambda m, g: (b * m + (1 - b) * g, m)
            ),
            "the gradient is squared: that is the second moment.": (
                mistakes.average(lambda b: b, lambda b, g: (1 - b) * g**2)
            ),
            "m starts at 0, and the first gradient enters with weight 1 − b1 like every other. "
            "(Lesson 4 is about what that does.)": (
                lambda b: lambda m, g: (g, g) if np.all(m == 0) else (b * m + (1 - b) * g,) * 2
            ),
            "b1 multiplies the gradient, too: only the old m is multiplied by b1, and the gradient "
            "by 1 − b1.": mistakes.average(lambda b: b, lambda b, g: b * g),
            "1 − b1 multiplies the old m, too: only the gradient is multiplied by 1 − b1, and the "
            "old m by b1.": mistakes.average(lambda b: 1 - b, lambda b, g: (1 - b) * g),
        },
        achieved="it is a pure function, a loop and scan fold it alike, and along every sequence "
        "of gradients it gives what adamw_jax.momentum gives.",
    ),
    "second_moment": Exercise(
        form=f"second_moment(b2) returns {STEP.format('v', 'g')}",
        reference=_stepping(aj.second_moment, aj.SecondMomentState),
        **_steps("second_moment", (0.9, 0.5), 0.0, np.zeros(2)),
        mistakes={
            "the square enters with weight 1, so that v is a sum and not an average: multiply it "
            "by 1 − b2.": mistakes.average(lambda b: b, lambda b, g: g**2),
            "the gradient is not squared, so that opposite gradients cancel.": (
                mistakes.average(lambda b: b, lambda b, g: (1 - b) * g)
            ),
            "this is the square of an average; it should be the average of the squares.": (
                lambda b: lambda m, g: (b * m + (1 - b) * g, (b * m + (1 - b) * g) ** 2)
            ),
            "1 − b2 is squared along with the gradient.": (
                mistakes.average(lambda b: b, lambda b, g: ((1 - b) * g) ** 2)
            ),
            "the root is taken here already; leave it to the ratio.": (
                lambda b: (
                    lambda v, g: (
                        b * v + (1 - b) * g**2,
                        (b * v + (1 - b) * g**2) ** 0.5,
                    )
                )
            ),
            "the update is the gradient over the root already; here it is the new v alone.": (
                lambda b: lambda v, g: (b * v + (1 - b) * g**2, g / np.sqrt(b * v + (1 - b) * g**2))
            ),
            "this averages |g|; the second moment averages g².": (
                mistakes.average(lambda b: b, lambda b, g: (1 - b) * abs(g))
            ),
            "the squares of all coordinates are summed up; each coordinate has a v of its own.": (
                mistakes.average(lambda b: b, lambda b, g: (1 - b) * np.sum(np.square(g)))
            ),
            "every update looks like the first one: v is computed, but the old v is returned as "
            "the state.": mistakes.average(lambda b: b, lambda b, g: (1 - b) * g**2, forgets=True),
            "b2 and 1 − b2 have changed places: v should remember much and learn little.": (
                mistakes.average(lambda b: 1 - b, lambda b, g: b * g**2)
            ),
        },
        achieved="it averages the squares, coordinate by coordinate, as adamw_jax.second_moment "
        "does.",
    ),
    "bias_correction": Exercise(
        form=f"bias_correction(b) returns {STEP.format('t', 'x')}, with t = 0 before the first",
        reference=_stepping(aj.bias_correction, aj.StepsState),
        **_steps("bias_correction", (0.9, 0.5), 0, 0, "x"),
        mistakes={
            "the first update is infinite: with t = 0, 1 − bᵗ is 0. Count first, then divide.": (
                mistakes.correction(lambda b, t: 1 - b ** (t - 1))
            ),
            "every step is corrected like the first: the divisor is 1 − bᵗ, and the state should "
            "come back as t + 1.": mistakes.correction(lambda b, t: 1 - b),
            "this multiplies by 1 − bᵗ; it should divide, since x is too small.": (
                mistakes.correction(lambda b, t: 1 / (1 - b**t))
            ),
            "the pair is in Optax's order; here the new state, t + 1, comes first.": (
                lambda b: lambda t, x: (x / (1 - b ** (t + 1)), t + 1)
            ),
            "this divides by bᵗ; the sum of the weights is 1 − bᵗ.": (
                mistakes.correction(lambda b, t: b**t)
            ),
            "this divides by (1 − b)ᵗ; the sum of the weights is 1 − bᵗ.": (
                mistakes.correction(lambda b, t: (1 - b) ** t)
            ),
            "this divides by 1 − b·t; t is an exponent.": (
                mistakes.correction(lambda b, t: 1 - b * t)
            ),
            "x comes back as it is: divide it by 1 − bᵗ.": mistakes.correction(lambda b, t: 1),
            "this is x minus bᵗ: x / 1 − bᵗ divides by 1. Put the divisor in parentheses.": (
                lambda b: lambda t, x: (t + 1, x - b ** (t + 1))
            ),
            "the correction is late by a step: in the first step t is 1 already.": (
                mistakes.correction(lambda b, t: 1 - b ** max(t - 1, 1) if t > 1 else 1)
            ),
            "the count runs ahead: in the first step t is 1, not 2.": (
                mistakes.correction(lambda b, t: 1 - b ** (t + 1))
            ),
        },
        achieved="it divides by the sum of the weights, from the first step on, as "
        "adamw_jax.bias_correction does.",
    ),
    "ratio": Exercise(
        form="ratio(eps) returns merge(m, v) -> array",
        reference=lambda eps: lambda m, v: aj.rms_ratio(eps)(jnp.asarray(m), jnp.asarray(v)),
        trials=[
            trials.of_function(f"ratio(eps={eps})", lambda ratio, eps=eps: ratio(eps), m=m, v=v)
            for eps, m, v in [
                (1e-8, 3.0, 4.0),
                (1e-8, -1.0, 0.25),
                (1e-8, 0.0, 0.0),
                (0.5, 3.0, 4.0),
                (1.0, 2.0, 0.0),
                (1e-8, [3.0, -1.0], [4.0, 0.25]),
            ]
        ],
        compiled=[
            trials.of_function(
                "jax.jit(ratio(eps=1e-8))",
                lambda ratio: jax.jit(ratio(1e-8)),
                m=[3.0, -1.0],
                v=[4.0, 0.25],
            )
        ],
        mistakes={
            "eps is inside the root. That is how the talk's notes write AdamW; in both papers it "
            "stands outside.": _ratio(lambda m, v, eps: m / np.sqrt(v + eps)),
            "eps is missing, and 0/0 is not a number.": _ratio(lambda m, v, eps: m / np.sqrt(v)),
            "v is a mean of squares; its root has the unit of a gradient.": (
                _ratio(lambda m, v, eps: m / (v + eps))
            ),
            "eps is added to the ratio; it belongs to the divisor.": (
                _ratio(lambda m, v, eps: m / np.sqrt(v) + eps)
            ),
            "the ratio is upside down.": _ratio(lambda m, v, eps: np.sqrt(v) / (m + eps)),
            "the root is taken of m, too; m already has the unit of a gradient.": (
                _ratio(lambda m, v, eps: np.sqrt(m) / (np.sqrt(v) + eps))
            ),
            "m and v have changed places: m is divided by the root of v.": (
                _ratio(lambda m, v, eps: v / (np.sqrt(m) + eps))
            ),
            "the sign is turned here already; it is turned once, at the end, by −α.": (
                _ratio(lambda m, v, eps: -m / (np.sqrt(v) + eps))
            ),
            "eps is only the least value of the divisor; it should be added to the root.": (
                _ratio(lambda m, v, eps: m / np.maximum(np.sqrt(v), eps))
            ),
            "this multiplies by the root; it should divide by it.": (
                _ratio(lambda m, v, eps: m * (np.sqrt(v) + eps))
            ),
        },
        achieved="with eps outside the root, as in the papers and in adamw_jax.rms_ratio.",
    ),
}

"""The exercises of lessons 5 to 7: what is composed from the pieces, and decay."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import adamw_jax as aj
from adamw_jax.course import mistakes, trials
from adamw_jax.course.exercise import MACHINE, Exercise
from adamw_jax.course.trials import Machine, as_machine, as_transformation


def _machines(calls: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """Trials of machines, each made from the solution by a call."""
    short = [
        trials.of_machine(call, make, gradients)
        for call, make in calls.items()
        for gradients in trials.sequences()
    ]
    compiled = [trials.of_scanned_machine(call, make) for call, make in calls.items()]
    return {"trials": short, "compiled": compiled}


def _rule(name: str, *settings: Sequence[float]) -> dict[str, Any]:
    """Trials of a machine that is made from numbers."""

    def given(numbers):
        return lambda solution: solution(*numbers)

    return _machines({f"{name}({', '.join(map(str, s))})": given(s) for s in settings})


def _stateless(function: Callable[..., Any]) -> Any:
    return lambda λ: (lambda θ: (), lambda state, u, θ: (state, function(u, θ, λ)))


_SLIPS: dict[str, dict[str, Any]] = {
    "v averages the squares of m. It should see the raw gradient: put the two moments side by "
    "side, not one after the other.": {"second_of": "momentum"},
    "the moments are not corrected for their start at 0.": {"corrects": "no"},
    "the correction is late: in the first step t is 1.": {"corrects": "late"},
    "eps is inside the root; in the paper it stands outside.": {"root": "inside"},
    "the sign: an update is added to the weights, so it should point downhill, against the "
    "gradient.": {"sign": 1},
    "the learning rate α is missing.": {"rate": False},
    "both moments are corrected with b1; each has its own rate.": {"shared": True},
}

# Machines to be composed: the first has a memory, the second none and is not linear, and the third
# reads the weights.
TOTAL: Machine = lambda θ: 0.0 * θ, lambda s, u, θ: (s + u, s + u)
SQUARE: Machine = lambda θ: (), lambda s, u, θ: (s, u * u)
WEIGHT: Machine = lambda θ: (), lambda s, u, θ: (s, u + θ)
TOYS = "(total adds up what it is given, square squares it, plus_weight adds the weight θ.)"


def _chain(*machines: Machine) -> Machine:
    return as_machine(aj.chain(*map(as_transformation, machines)))


def _parallel(*machines: Machine, merge: Callable[..., Any]) -> Machine:
    return as_machine(aj.parallel(*map(as_transformation, machines), merge=merge))


COMPOSITIONS = {
    "chain": Exercise(
        form=f"chain(*machines) returns {MACHINE}",
        reference=_chain,
        **_machines(
            {
                "chain()": lambda chain: chain(),
                "chain(total)": lambda chain: chain(TOTAL),
                "chain(total, square)": lambda chain: chain(TOTAL, SQUARE),
                "chain(plus_weight, total)": lambda chain: chain(WEIGHT, TOTAL),
                "chain(total, chain(square, total))": lambda chain: chain(
                    TOTAL, chain(SQUARE, TOTAL)
                ),
            }
        ),
        mistakes={
            "the machines run in the opposite order; the first one named runs first.": (
                mistakes.chain(backwards=True)
            ),
            "every machine is given the gradient; each should be given the update of the one "
            "before it.": mistakes.chain(feed="source"),
            "the new states are lost: return them, in the order of the machines.": (
                mistakes.chain(keeps=False)
            ),
        },
        achieved="it composes machines, with the identity chain() and in any grouping, as "
        "adamw_jax.chain does.",
        note=TOYS,
    ),
    "parallel": Exercise(
        form=f"parallel(*machines, merge) returns {MACHINE}",
        reference=_parallel,
        **_machines(
            {
                "parallel(total, merge=lambda a: a)": lambda parallel: parallel(
                    TOTAL, merge=lambda a: a
                ),
                "parallel(total, square, merge=lambda a, b: 10 * a + b)": lambda parallel: parallel(
                    TOTAL, SQUARE, merge=lambda a, b: 10 * a + b
                ),
                "parallel(plus_weight, total, merge=lambda a, b: a - b)": lambda parallel: parallel(
                    WEIGHT, TOTAL, merge=lambda a, b: a - b
                ),
            }
        ),
        mistakes={
            "the second machine is given the update of the first: that is a chain. Each branch "
            "should be given the same gradient.": mistakes.parallel(chained=True),
            "the updates reach the merge in the opposite order.": mistakes.parallel(backwards=True),
            "the new states are lost: return them, in the order of the machines.": (
                mistakes.parallel(keeps=False)
            ),
        },
        achieved="it feeds every machine the same gradient and merges what they say, as "
        "adamw_jax.parallel does.",
        note=TOYS,
    ),
    "adam": Exercise(
        form=f"adam(α, b1, b2, eps) returns {MACHINE}",
        reference=lambda *numbers: as_machine(aj.adam(*numbers)),
        **_rule("adam", (1.0, 0.9, 0.999, 1e-8), (0.1, 0.9, 0.5, 1.0)),
        mistakes={hint: mistakes.adamw(**slip) for hint, slip in _SLIPS.items()},
        achieved="you have written Adam. It is adamw_jax.adam, step by step.",
    ),
    "l2": Exercise(
        form=f"l2(λ) returns {MACHINE}",
        reference=lambda λ: as_machine(aj.l2_regularization(λ)),
        **_rule("l2", (0.5,), (0.0,)),
        mistakes={
            "the update lacks the weights: add λθ to the gradient.": _stateless(lambda u, θ, λ: u),
            "λθ is subtracted here already; the sign is flipped once, at the end of the chain.": (
                _stateless(lambda u, θ, λ: u - λ * θ)
            ),
            "the penalty (λ/2)θ² itself is added; what belongs here is its gradient, λθ.": (
                _stateless(lambda u, θ, λ: u + λ / 2 * θ**2)
            ),
            "the gradient of (λ/2)θ² is λθ: the half is gone already.": (
                _stateless(lambda u, θ, λ: u + λ / 2 * θ)
            ),
            "λ alone is added; the decay is in proportion to the weight, λθ.": (
                _stateless(lambda u, θ, λ: u + λ)
            ),
            "the gradient is replaced; λθ should be added to it.": (
                _stateless(lambda u, θ, λ: λ * θ)
            ),
            "the gradient is multiplied by 1 + λ; the machine should add a part of the weights.": (
                _stateless(lambda u, θ, λ: u + λ * u)
            ),
        },
        achieved="it adds the gradient of the penalty. First in a chain it is "
        "adamw_jax.l2_regularization; the same function elsewhere is weight decay.",
    ),
    "adamw": Exercise(
        form=f"adamw(α, b1, b2, eps, λ) returns {MACHINE}",
        reference=lambda α, b1, b2, eps, λ: as_machine(aj.adamw(α, b1, b2, eps, weight_decay=λ)),
        **_rule("adamw", (1.0, 0.9, 0.999, 1e-8, 0.1), (0.1, 0.9, 0.5, 1.0, 0.5)),
        mistakes={
            "the decay stands before the adaptive scaling and is divided by √v̂ with the gradient: "
            "this is Adam with L2. Move it behind the scaling.": (
                mistakes.adamw(decays="in the gradient")
            ),
            "nothing decays: this is Adam.": mistakes.adamw(),
            "the decay is taken whole at every step, as in the paper and the talk. Here it is "
            "asked for in the convention of PyTorch and Optax, where it is multiplied by α: it "
            "stands before the stage that multiplies by −α.": (mistakes.adamw(decays="per step")),
            "the weights grow: the decay should have the sign of the step, −αλθ.": (
                mistakes.adamw(decays="upwards")
            ),
            **{hint: mistakes.adamw(decays="times α", **slip) for hint, slip in _SLIPS.items()},
        },
        achieved="you have written AdamW. It is adamw_jax.adamw, step by step.",
    ),
}

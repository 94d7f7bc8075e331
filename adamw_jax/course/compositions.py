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


def _built(direction: Callable[..., Any]) -> Any:
    """A composition of the library's pieces in which only what stands before the decay is wrong."""

    def make(α, b1, b2, eps, λ=0.0):
        decay, down = aj.decoupled_weight_decay(λ), aj.scale_by_learning_rate(α)
        return as_machine(aj.chain(direction(b1, b2, eps), decay, down))

    return make


def _first(b: float) -> Any:
    return aj.chain(aj.momentum(b), aj.bias_correction(b))


def _second(b: float) -> Any:
    return aj.chain(aj.second_moment(b), aj.bias_correction(b))


def _branches(first: Any, second: Any, eps: float) -> Any:
    return aj.parallel(first, second, merge=aj.rms_ratio(eps))


# What goes wrong in Adam: where right pieces are put together, and inside of them.
_MISBUILT = {
    "this is one long chain, and nothing is divided: the two corrected moments stand side by side "
    "in a parallel, whose merge is the ratio.": (
        _built(lambda b1, b2, eps: aj.chain(_first(b1), _second(b2)))
    ),
    "the branches are swapped: the first argument of the ratio is m̂, the second v̂.": (
        _built(lambda b1, b2, eps: _branches(_second(b2), _first(b1), eps))
    ),
    "b1 and b2 have changed places: b1 belongs to m, b2 to v.": (
        _built(lambda b1, b2, eps: _branches(_first(b2), _second(b1), eps))
    ),
    "only m is corrected for its start at 0; v needs it, too.": (
        _built(lambda b1, b2, eps: _branches(_first(b1), aj.second_moment(b2), eps))
    ),
    "only v is corrected for its start at 0; m needs it, too.": (
        _built(lambda b1, b2, eps: _branches(aj.momentum(b1), _second(b2), eps))
    ),
    "eps is ignored.": _built(lambda b1, b2, eps: _branches(_first(b1), _second(b2), 0.0)),
}

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
    "this is the new weight; an update is what will be added to the old one.": {"adds": True},
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
            "no machine runs. If you zip machines and states: init must make a state for each.": (
                lambda *machines: (lambda θ: (), lambda states, u, θ: (states, u))
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
                "parallel(total, square, merge=lambda a, b: 10 * a + b)": lambda parallel: parallel(
                    TOTAL, SQUARE, merge=lambda a, b: 10 * a + b
                ),
                "parallel(total, merge=lambda a: a)": lambda parallel: parallel(
                    TOTAL, merge=lambda a: a
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
        mistakes=_MISBUILT | {hint: mistakes.adamw(**slip) for hint, slip in _SLIPS.items()},
        achieved="you have written Adam. It is adamw_jax.adam, step by step.",
    ),
    "l2": Exercise(
        form=f"l2(λ) returns {MACHINE}",
        reference=lambda λ: as_machine(aj.l2_regularization(λ)),
        **_rule("l2", (0.1,), (0.0,)),
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
            "the gradient is multiplied by 1 − λ; the machine should add a part of the weights.": (
                _stateless(lambda u, θ, λ: (1 - λ) * u)
            ),
            "λθ is multiplied by the gradient; it should be added to it.": (
                _stateless(lambda u, θ, λ: u + λ * θ * u)
            ),
            "1 − λ is what a step leaves of a weight; what is added here is what it takes, λθ.": (
                _stateless(lambda u, θ, λ: u + (1 - λ) * θ)
            ),
            "the gradient of (λ/2)θ² is λθ: without a factor of 2.": (
                _stateless(lambda u, θ, λ: u + 2 * λ * θ)
            ),
            "the gradient of (λ/2)θ² is λθ: without a square.": (
                _stateless(lambda u, θ, λ: u + λ * θ**2)
            ),
            "the weight is that which init saw; use the one that step is given, which has moved.": (
                lambda λ: (lambda θ: θ, lambda start, u, θ: (start, u + λ * start))
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
            "the decay stands behind the stage that multiplies by −α, so that it is taken whole "
            "and has the wrong sign: the weights grow. Move it before that stage.": (
                mistakes.adamw(decays="behind")
            ),
            "the weights grow: the decay should have the sign of the step, −αλθ.": (
                mistakes.adamw(decays="upwards")
            ),
            "the decay is multiplied by α twice: the last stage does it already.": (
                mistakes.adamw(decays="times α²")
            ),
            "λθ is multiplied by the ratio; it should be added to it.": (
                mistakes.adamw(decays="times the ratio")
            ),
            "the decay stands before the ratio, in the branch of m, and is divided by √v̂: this is "
            "neither L2 nor AdamW. Move it behind the ratio.": (
                mistakes.adamw(decays="in a branch")
            ),
            **_MISBUILT,
            **{hint: mistakes.adamw(decays="times α", **slip) for hint, slip in _SLIPS.items()},
        },
        achieved="you have written AdamW. It is adamw_jax.adamw, step by step.",
    ),
}

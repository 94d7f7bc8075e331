"""Adam's shape: the compositions that a fused step can do, read from their descriptions.

    u ← s g + d θ                             any learning rates and decays before the moments
    m ← m + (1 − b1)(u − m)                   one moment or both,
    v ← v + (1 − b2)(u² − v)                  corrected or not
    u ← m̂ / (√(v̂ + eps_root) + eps)           or m̂, or u / (√(v̂ + eps_root) + eps)
    u ← s u + d θ                             any learning rates and decays after them

`adam`, `adam_l2`, `adamw`, `adamwr` and what `decayed_per_step` makes of `adam` are of this shape,
and so are `uncorrected_adam`, `rmsprop`, `momentum_gd` and whatever else is composed in this way.
"""

import dataclasses
import itertools
from collections import Counter
from typing import Any, NamedTuple

import jax
import optax

from adamw_jax import trees
from adamw_jax.bias import bias_correction
from adamw_jax.combine import chain, parallel
from adamw_jax.core import Description, description_of, shown
from adamw_jax.decay import decoupled_weight_decay, l2_regularization
from adamw_jax.hyperparameters import (
    Decay,
    decay_rate_or_schedule,
    non_negative,
    non_negative_or_schedule,
)
from adamw_jax.masks import CheckedMask, DecayMask
from adamw_jax.merges import rms_ratio
from adamw_jax.moments import MomentumState, SecondMomentState, momentum, second_moment
from adamw_jax.notation.calls import remade
from adamw_jax.piece import StepsState
from adamw_jax.schedules import scale_by_learning_rate

DECAYS = decoupled_weight_decay, l2_regularization


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Factor:
    """In a step, a stage that multiplies the updates by sign · value, or adds value · θ to them.

    Attributes:
      value: a number or 0-d array.
      sign: ±1; None where it adds.
      marks: for each leaf whether it adds to it; None where it adds to all.
    """

    value: Any
    sign: int | None = dataclasses.field(metadata={"static": True})
    marks: tuple[bool, ...] | None = dataclasses.field(metadata={"static": True})


class Moment(NamedTuple):
    """In a step, the decay rate of a moment, and that of its bias correction, None without."""

    rate: Decay
    correction: Decay | None


class Numbers(NamedTuple):
    """The hyperparameters of a step, all of them numbers or 0-d arrays.

    Attributes:
      before: the stages before the moments.
      first, second: the moments, None where there is no such.
      eps, eps_root: of the ratio, outside and inside the root.
      after: the stages after the moments.
    """

    before: tuple[Factor, ...]
    first: Moment | None
    second: Moment | None
    eps: Any
    eps_root: Any
    after: tuple[Factor, ...]


class Stage(NamedTuple):
    """A stage before or after the moments.

    Attributes:
      value: a number, 0-d array or schedule.
      sign: as in `Factor`.
      mask: which parameters it decays, or None.
    """

    value: Any
    sign: int | None
    mask: CheckedMask | None


class Shape:
    """Adam's shape, as a composition fills it.

    Args:
      optimizer: the composition.

    Attributes:
      before, after: the stages before and after the moments.
      needs_params: whether a step needs the parameters.
      states: how many states of each kind the composition keeps.

    Raises:
      ValueError: it has another shape; the message names the part that does not fit.
    """

    def __init__(self, optimizer: optax.GradientTransformation):
        parts = _flat(description_of(optimizer) or optimizer)
        self.before = tuple(map(_stage, itertools.takewhile(_is_stage, parts)))
        parts = parts[len(self.before) :]
        self.first, self.second, self.eps, self.eps_root = None, None, 0.0, 0.0
        match parts:
            case [Description(constructor=c, args=[_, _], kwargs=kwargs) as merged, *rest] if (
                c is parallel and _is_of(kwargs["merge"], rms_ratio)
            ):
                first, second = map(_flat, merged.args)
                self.first = _moment(first, momentum) if first else None
                self.second = _moment(second, second_moment)
                of_ratio = kwargs["merge"].kwargs
                self.eps, self.eps_root = (
                    non_negative(name, of_ratio[name]) for name in ("eps", "eps_root")
                )
            case _:
                own = list(itertools.takewhile(lambda part: not _is_stage(part), parts))
                self.first, rest = _moment(own, momentum), parts[len(own) :]
        self.after = tuple(map(_stage, rest))
        stages = self.before + self.after
        self.needs_params = any(stage.sign is None for stage in stages)
        moments = [moment for moment in (self.first, self.second) if moment]
        own = [stage.value for stage in stages if not stage.mask] + [m.rate for m in moments]
        counts = any(map(callable, own)) or any(moment.correction for moment in moments)
        self.states = {
            MomentumState: int(self.first is not None),
            SecondMomentState: int(self.second is not None),
            optax.MaskedState: sum(stage.mask is not None for stage in stages),
            StepsState: int(counts),
        }

    def fits(self, states: tuple[Any, ...]) -> bool:
        """Whether these are the composition's states."""
        kinds = Counter(map(type, states))
        return kinds == {kind: n for kind, n in self.states.items() if n}

    def numbers(self, states: tuple[Any, ...], count: Any, updates: Any) -> Numbers:
        """The hyperparameters of a step.

        Args:
          states: of the composition; a masked stage has its own count.
          count: the number of steps before this one; None where nothing needs it.
          updates: the updates, from which masks are made.
        """
        masked = iter([state for state in states if isinstance(state, optax.MaskedState)])

        def factor(stage):
            steps = count
            if stage.mask:
                steps = getattr(next(masked).inner_state, "count", None)
            marks = stage.mask and _marks(stage.mask, updates)
            return Factor(_now(stage.value, steps), stage.sign, marks)

        before, after = (tuple(map(factor, stages)) for stages in (self.before, self.after))
        first, second = (
            moment and moment._replace(rate=_now(moment.rate, count))
            for moment in (self.first, self.second)
        )
        return Numbers(before, first, second, self.eps, self.eps_root, after)


def _now(value: Any, count: Any) -> Any:
    """What a hyperparameter is at this step."""
    return value(count) if callable(value) else value


def _marks(mask: CheckedMask, updates: Any) -> tuple[bool, ...]:
    spread = jax.tree.map(
        lambda mark, part: jax.tree.map(lambda _: bool(mark), part, is_leaf=trees.is_none),
        mask(updates),
        updates,
    )
    return tuple(jax.tree.leaves(spread))


def _flat(part: Any) -> list[Any]:
    """The parts of nested chains, one after another."""
    if _is_of(part, chain):
        return [inner for arg in part.args for inner in _flat(arg)]
    return [part]


def _is_of(part: Any, *constructors: Any) -> bool:
    return isinstance(part, Description) and part.constructor in constructors


def _is_stage(part: Any) -> bool:
    return _is_of(part, scale_by_learning_rate, *DECAYS)


def _stage(part: Any) -> Stage:
    if not _is_stage(part):
        raise _unknown(part)
    value, kwargs = remade(part.args[0]), remade(part.kwargs)
    if part.constructor is scale_by_learning_rate:
        value = non_negative_or_schedule("learning_rate", value)
        return Stage(value, -1 if kwargs["flip_sign"] else 1, None)
    name = "weight_decay" if part.constructor is decoupled_weight_decay else "l2"
    mask = kwargs["mask"]
    if isinstance(mask, DecayMask):  # as the composition does after `init`
        mask = mask.marks
    return Stage(
        non_negative_or_schedule(name, value), None, None if mask is None else CheckedMask(mask)
    )


def _moment(parts: list[Any], constructor: Any) -> Moment:
    """The moment that `constructor` and perhaps a bias correction make."""
    for part, expected in itertools.zip_longest(parts, (constructor, bias_correction)):
        if expected is None or not (part is None or _is_of(part, expected)):
            raise _unknown(part)
    if not parts:
        raise _unknown(None)
    average, *corrections = parts
    options = average.kwargs
    if (
        options.get("nesterov")
        or options.get("previous")
        or any(correction.kwargs["ahead"] for correction in corrections)
    ):
        raise _unknown(average)
    if isinstance(options["accumulator_dtype"], Description):  # an encoding
        raise _unknown(average)
    rate = decay_rate_or_schedule(
        "b1" if constructor is momentum else "b2", remade(average.args[0])
    )
    return Moment(rate, *[decay_rate_or_schedule("b", c.args[0]) for c in corrections] or [None])


def _unknown(part: Any) -> ValueError:
    named = "it has no moment" if part is None else f"{shown(part)} does not fit"
    return ValueError(
        f"fused takes optimizers of Adam's shape, and {named}. adamw_jax/kernels/shape.py says "
        "what this is; use the optimizer without fused"
    )

"""The members that are compared: how each is made, and where its α and λ are looked for."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax

import adamw_jax as aj
from experiments.training.classifier import EvalParams
from experiments.training.loop import Hyperparameters

BASE = "adamw"


class Training(NamedTuple):
    """What a member may ask of the training.

    Attributes:
      steps: optimizer steps in a run.
      head: a pattern for the paths of the last layer.
    """

    steps: int
    head: str


Make = Callable[[optax.Schedule, Any, Training], aj.GradientTransformation]


def cosine(peak: Any, steps: int) -> optax.Schedule:
    """A cosine that falls to zero with the run."""
    return optax.cosine_decay_schedule(peak, steps)


def warmed_up(peak: Any, steps: int) -> optax.Schedule:
    """A constant rate after a warm-up over the first twentieth of the steps, at least two."""
    warm_up = max(steps // 20, 2)
    return optax.linear_schedule(peak / warm_up, peak, warm_up - 1)


class Member(NamedTuple):
    """A member of the family.

    Attributes:
      make: makes it from its learning rate, λ and the training.
      times: how many times larger than AdamW's its learning rates are looked for. Its λ is as many
        times smaller, so that all members have the same decays per step.
      schedule: of its learning rate, made from the highest rate and the steps of a run.
      eval_params: what is evaluated in the place of the parameters.
    """

    make: Make
    times: float = 1.0
    schedule: Callable[[Any, int], optax.Schedule] = cosine
    eval_params: EvalParams | None = None


def _ademamix(rate: optax.Schedule, decay: Any, training: Training) -> aj.GradientTransformation:
    b3 = aj.half_life_warmup(0.9, 0.9999, training.steps)
    alpha = optax.linear_schedule(0.0, 5.0, training.steps)
    return aj.ademamix(rate, b3=b3, alpha=alpha, weight_decay=decay)


def _muon(rate: optax.Schedule, decay: Any, training: Training) -> aj.GradientTransformation:
    # With this scale, one learning rate and one λ serve Muon and AdamW (arXiv 2502.16982).
    matrices = aj.muon(rate, weight_decay=decay, scale="match_rms_adamw")
    rest = aj.adamw(rate, weight_decay=decay)
    return aj.partition({training.head: rest, aj.kind("weight"): matrices, "*": rest})


def _sgdw(rate: optax.Schedule, decay: Any, training: Training) -> aj.GradientTransformation:
    del training
    return aj.sgdw(rate, decay_per_step=aj.per_step_from_weight_decay(decay, rate))


# Where `times` is not 1, docs/members-plan.md says why. All else is at the papers' defaults.
MEMBERS = {
    BASE: Member(lambda rate, decay, _: aj.adamw(rate, weight_decay=decay)),
    "nadamw": Member(lambda rate, decay, _: aj.nadamw(rate, weight_decay=decay)),
    "cautious_adamw": Member(lambda rate, decay, _: aj.cautious_adamw(rate, weight_decay=decay)),
    "c_adamw": Member(lambda rate, decay, _: aj.c_adamw(rate, weight_decay=decay)),
    "adopt": Member(lambda rate, decay, _: aj.adopt(rate, weight_decay=decay)),
    "ademamix": Member(_ademamix),
    "lion": Member(lambda rate, decay, _: aj.lion(rate, weight_decay=decay), times=0.1),
    "schedule_free_adamw": Member(
        lambda rate, decay, _: aj.schedule_free_adamw(rate, weight_decay=decay),
        times=3,
        schedule=warmed_up,
        eval_params=aj.schedule_free_eval_params,
    ),
    "adafactor": Member(lambda rate, decay, _: aj.adafactor(rate, weight_decay=decay), times=10),
    "sgdw": Member(_sgdw, times=10),
    "muon": Member(_muon),
}


def optimizer(member: Member, training: Training, h: Hyperparameters) -> aj.GradientTransformation:
    """A member with its schedule.

    Args:
      member: the member.
      training: the training.
      h: `learning_rate`, the highest, and `weight_decay`, which the learning rate multiplies.
    """
    rate = member.schedule(h["learning_rate"], training.steps)
    return member.make(rate, h["weight_decay"], training)

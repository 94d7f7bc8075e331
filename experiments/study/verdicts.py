"""The guesses as comparisons, and what the numbers say of them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from experiments.harness.statistics import Difference
from experiments.study.trials import Measured

LEAD, L2, OVERFITTING, DECAY, SCHEDULE = (
    "AdamW does better than Adam",
    "AdamW does better than Adam+L2",
    "(1) AdamW's lead over Adam grows with overfitting",
    "(2) another λ does better than the talk's",
    "(3) AdamW's lead over Adam grows with a schedule",
)
METRICS = ("accuracy", "loss")
SUPPORTED, REFUTED, REVERSED, UNDECIDED, DIVERGED = (
    "supported", "refuted", "reversed", "undecided", "diverged",
)  # fmt: skip


class Comparison(NamedTuple):
    """An effect that a claim predicts to be positive.

    Attributes:
      claim: one of the above.
      where: in which trial.
      metric: "accuracy" (points) or "loss".
      effect: by seed; positive is better: more accuracy, less loss.
    """

    claim: str
    where: str
    metric: str
    effect: np.ndarray

    def interval(self, comparisons: int) -> Difference:
        """The mean effect, with the interval that so many comparisons take."""
        return Difference.of(self.effect, np.zeros_like(self.effect), comparisons)


def verdict(interval: Difference, matters: float) -> str:
    """What an interval says of a claim, given the smallest effect that matters.

    Supported: above zero, and perhaps large enough to matter. Reversed: below zero, and
    perhaps large enough to matter. Refuted: else not large enough to matter.
    """
    if np.isnan(interval.mean):
        return DIVERGED
    if interval.low > 0 and interval.high >= matters:
        return SUPPORTED
    if interval.high < 0 and interval.low <= -matters:
        return REVERSED
    return REFUTED if interval.high < matters else UNDECIDED


def comparisons(measured: Sequence[Measured], talk: Sequence[float]) -> list[Comparison]:
    """Every comparison that the trials allow, claim by claim.

    Args:
      measured: the trials that were run.
      talk: arms of AdamW, λ times α, that the talk may have meant.
    """
    return [
        Comparison(claim, where, metric, effect)
        for claim, pairs in (
            (LEAD, _leads(measured)),
            (L2, _over_l2(measured)),
            (OVERFITTING, _overfitting(measured)),
            (DECAY, _decay(measured, talk)),
            (SCHEDULE, _schedule(measured)),
        )
        for where, metric, effect in pairs
    ]


Effects = Iterator[tuple[str, str, np.ndarray]]


def lead(measured: Measured, metric: str, over: str = "Adam") -> np.ndarray:
    """How much better the chosen AdamW is than another family's chosen arm, by seed."""
    return _better(measured.judged("AdamW", metric), measured.judged(over, metric), metric)


def _better(ours: np.ndarray, base: np.ndarray, metric: str) -> np.ndarray:
    return ours - base if metric == "accuracy" else base - ours


def _leads(measured: Sequence[Measured]) -> Effects:
    for m in measured:
        for metric in METRICS:
            yield m.trial.name, metric, lead(m, metric)


def _over_l2(measured: Sequence[Measured]) -> Effects:
    for m in measured:
        for metric in METRICS if m.arms("Adam+L2") else ():
            yield m.trial.name, metric, lead(m, metric, over="Adam+L2")


def _overfitting(measured: Sequence[Measured]) -> Effects:
    """Wrong labels against as many right ones; fewer images against the most."""
    for m in measured:
        alike = [
            other
            for other in measured
            if not other.trial.condition.noise
            and other.trial.schedule == m.trial.schedule
            and other.trial.condition.network == m.trial.condition.network
        ]
        if m.trial.condition.noise:
            alike = [other for other in alike if other.trial.images == m.trial.images]
        base = max(alike, key=lambda other: other.trial.images, default=m)
        if base is not m:
            for metric in METRICS:
                where = f"{m.trial.name}, against {base.trial.images:,} right"
                yield where, metric, lead(m, metric) - lead(base, metric)


def _decay(measured: Sequence[Measured], talk: Sequence[float]) -> Effects:
    """The λ chosen from all others against each that the talk may have meant, in its setting."""
    for m in measured:
        asked = m.trial.schedule == "constant" and not m.trial.condition.noise
        for arm in m.arms("AdamW") if asked else ():
            if np.isclose(arm[1], talk).any():
                for metric in METRICS if len(m.arms("AdamW")) > 1 else ():
                    base = m.final(arm, f"test_{metric}")
                    where = f"{m.trial.name}, against λ = {arm[1]:g}"
                    another = m.judged("AdamW", metric, without=arm)
                    yield where, metric, _better(another, base, metric)


def _schedule(measured: Sequence[Measured]) -> Effects:
    """The lead with a schedule against the lead without."""
    constant = {m.trial.task: m for m in measured if m.trial.schedule == "constant"}
    for m in measured:
        if m.trial.schedule != "constant" and m.trial.task in constant:
            for metric in METRICS:
                base = lead(constant[m.trial.task], metric)
                yield m.trial.name, metric, lead(m, metric) - base

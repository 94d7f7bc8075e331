"""The talk's three guesses, a card for each: what became of it, and the number that decides."""

import itertools
import math
from collections.abc import Iterable

from adamw_jax import per_step_from_weight_decay, timescale_from_per_step
from experiments.harness.formats import listed, signed, timescale
from experiments.harness.report import Card
from experiments.harness.statistics import Difference
from experiments.study import plots
from experiments.study.answer import shown
from experiments.study.evidence import Evidence
from experiments.training.arms import ADAM, ADAMW
from experiments.tuning.comparisons import growth
from experiments.tuning.measures import ACCURACY, LAST, STOPPED

RIGHT, HARDLY, PARTLY, WRONG, OPEN = "right", "hardly right", "partly right", "wrong", "open"
HOLDS = {RIGHT: True, WRONG: False}


def cards(evidence: Evidence) -> list[Card]:
    """A card for each guess that the studied tasks can test."""
    return [
        *([_overfitting(evidence)] if evidence.pairs() else []),
        *(
            _decay(evidence, name)
            for name, each in evidence.studied.items()
            if each.bench.task.talk_seeds and not each.bench.task.noise
        ),
        *(_schedule(evidence, *pair) for pair in evidence.schedules()[:1]),
    ]


def grows(growth: Difference, matters: float) -> str:
    """Whether a guess is right that a lead grows."""
    if growth.negligible(matters):
        return HARDLY if growth.sign > 0 else WRONG
    return {1: RIGHT, 0: OPEN, -1: WRONG}[growth.sign]


def together(verdicts: Iterable[str]) -> str:
    """What several tests of the same guess say."""
    found = set(verdicts)
    if len(found) == 1:
        return found.pop()
    return PARTLY if RIGHT in found else OPEN


def _overfitting(evidence: Evidence) -> Card:
    """Guess (1): whether the lead grows where there is more to overfit, stopped or not.

    A task where Adam does not overfit more than on the one it is compared with is no test.
    """
    claim, figure = "(1) The data does not tend to overfitting", plots.overfitting(evidence)
    rises = {task: evidence.overfitting(task) for task in itertools.chain(*evidence.pairs())}
    above = {task: f"{100 * math.expm1(rise):.0f} % ({task})" for task, rise in rises.items()}
    pairs = [(more, less) for more, less in evidence.pairs() if rises[more] > rises[less]]
    ends = f"Adam's validation loss ends above its lowest by {listed(above.values())}"
    if not pairs:
        return Card(claim, OPEN, "untested", f"No task makes Adam overfit more: {ends}.", figure)
    last, stopped = (
        [growth(*(evidence.lead(task, ACCURACY, read) for task in pair)) for pair in pairs]
        for read in (LAST, STOPPED)
    )
    verdict = together(grows(each, evidence.matters[ACCURACY]) for each in (*last, *stopped))
    changes = listed(
        f"{shown(change)} ({added(*pair)})" for change, pair in zip(stopped, pairs, strict=True)
    )
    return Card(
        claim,
        verdict,
        f"{listed(signed(change.mean) for change in stopped)} points",
        "By so much AdamW's lead over Adam changes where Adam is made to overfit more, if both "
        f"stop early: {changes}. At the last epoch it changes by "
        f"{listed(signed(change.mean) for change in last)}. {ends}.",
        figure,
        HOLDS.get(verdict),
    )


def added(more: str, less: str) -> str:
    """What the name of a task says beyond that of another."""
    return ", ".join(part for part in more.split(", ") if part not in less.split(", "))


def _decay(evidence: Evidence, task: str) -> Card:
    """Guess (2): whether λ was too small or too large."""
    config, bench = evidence.config, evidence.studied[task].bench
    leads = evidence.talk_leads(task)
    weak, strong = (
        [leads[decay] for decay in values]
        for values in (evidence.talk_times_rate, evidence.talk_per_step)
    )
    matters, best = evidence.matters[ACCURACY], evidence.talk_best(task, LAST)
    harmful = all(lead.sign < 0 for lead in strong)
    idle = all(lead.negligible(matters) for lead in weak)
    helps = best.sign > 0 and not best.negligible(matters)
    if harmful or (idle and helps):
        verdict = f"{RIGHT}, both ways" if harmful and idle and helps else RIGHT
    else:
        verdict = WRONG if all(each.negligible(matters) for each in (best, *strong)) else OPEN
    slow, fast = (
        listed(
            timescale(
                timescale_from_per_step(
                    per_step_from_weight_decay(decay, config.talk_learning_rate), bench.steps
                )
            )
            for decay in values
        )
        for values in (evidence.talk_times_rate, evidence.talk_per_step)
    )
    return Card(
        "(2) λ was too small, or too large",
        verdict,
        f"{listed(shown(lead) for lead in strong)} points, taken per step",
        f"That is what λ = {listed(f'{decay:g}' for decay in config.talk)} per step do to Adam's "
        f"accuracy: they alone would take a weight to 1/e in {fast} epochs. Multiplied by the "
        f"learning rate they take {slow} epochs, of a run of {max(bench.task.epochs)}, and change "
        f"accuracy by {listed(shown(lead) for lead in weak)}. The best of all {len(leads)} λ that "
        f"were tried at this learning rate changes it by {shown(best)}.",
        plots.talk(evidence, task),
        True if verdict.startswith(RIGHT) else HOLDS.get(verdict),
    )


def _schedule(evidence: Evidence, cosine: str, constant: str) -> Card:
    """Guess (3): whether the lead grows with a schedule."""
    grown = growth(*(evidence.lead(task, ACCURACY) for task in (cosine, constant)))
    gains = [
        evidence.mean(cosine, family, ACCURACY) - evidence.mean(constant, family, ACCURACY)
        for family in (ADAM, ADAMW)
    ]
    verdict = grows(grown, evidence.matters[ACCURACY])
    return Card(
        "(3) A schedule was missing",
        verdict,
        f"{shown(grown)} points",
        f"By so much AdamW's lead over Adam changes with a cosine, where both stop early. The "
        f"cosine itself changes Adam's accuracy by {signed(gains[0])} points and AdamW's by "
        f"{signed(gains[1])}.",
        plots.schedules(evidence, cosine, constant),
        HOLDS.get(verdict),
    )

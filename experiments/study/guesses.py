"""The talk's three guesses, a card for each: what became of it, and the number that decides."""

from adamw_jax import per_step_from_weight_decay, timescale_from_per_step
from experiments.harness.formats import timescale
from experiments.harness.report import Card
from experiments.study import plots
from experiments.study.answer import listed, shown
from experiments.study.comparisons import growth
from experiments.study.evidence import Evidence
from experiments.study.measures import ACCURACY, LAST, STOPPED
from experiments.training.arms import ADAM, ADAMW

VERDICTS = {True: "right", False: "wrong", None: "open"}


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


def _overfitting(evidence: Evidence) -> Card:
    """Guess (1): whether the lead grows where there is more to overfit."""
    pairs = evidence.pairs()
    grown = {
        read: [growth(*(evidence.lead(task, ACCURACY, read) for task in pair)) for pair in pairs]
        for read in (STOPPED, LAST)
    }
    matters = evidence.matters[ACCURACY]
    grows = [each.low > 0 and not each.negligible(matters) for each in grown[STOPPED]]
    does_not = [each.high < 0 or each.negligible(matters) for each in grown[STOPPED]]
    holds = True if all(grows) else False if all(does_not) else None
    verdict = "partly right" if any(grows) and not all(grows) else VERDICTS[holds]
    listing = listed(
        f"{shown(each)} with {evidence.studied[task].bench.task.name}"
        for each, (task, _) in zip(grown[STOPPED], pairs, strict=True)
    )
    return Card(
        "(1) The data does not tend to overfitting",
        verdict,
        f"{shown(grown[STOPPED][0])} points",
        f"If the guess is right, AdamW's lead over Adam grows where there is more to overfit. It "
        f"grows by {listing}, where all runs stop early, and by "
        f"{listed(f'{each.mean:+.2f}' for each in grown[LAST])} at the last epoch.",
        plots.overfitting(evidence),
        holds,
    )


def _decay(evidence: Evidence, task: str) -> Card:
    """Guess (2): whether λ was too small or too large."""
    config, bench = evidence.config, evidence.studied[task].bench
    leads = evidence.talk_leads(task)
    weak, strong = (
        [leads[decay] for decay in values]
        for values in (evidence.talk_times_rate, evidence.talk_per_step)
    )
    no_effect = all(lead.negligible(evidence.matters[ACCURACY]) for lead in weak)
    harmful = all(lead.high < 0 for lead in strong)
    holds = True if no_effect or harmful else None
    if all(lead.negligible(evidence.matters[ACCURACY]) for lead in strong):
        holds = False
    verdict = "right, both ways" if no_effect and harmful else VERDICTS[holds]
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
        f"{listed(shown(lead) for lead in strong)} points",
        f"That is what λ = {listed(f'{decay:g}' for decay in config.talk)} per step do to Adam's "
        f"accuracy: they alone would take a weight to 1/e in {fast} epochs. Multiplied by the "
        f"learning rate they take {slow} epochs, of a run of {max(bench.task.epochs)}, and change "
        f"accuracy by {listed(shown(lead) for lead in weak)}.",
        plots.talk(evidence, task),
        holds,
    )


def _schedule(evidence: Evidence, cosine: str, constant: str) -> Card:
    """Guess (3): whether the lead grows with a schedule."""
    grown = growth(*(evidence.lead(task, ACCURACY) for task in (cosine, constant)))
    gains = [
        evidence.mean(cosine, family, ACCURACY) - evidence.mean(constant, family, ACCURACY)
        for family in (ADAM, ADAMW)
    ]
    small = grown.negligible(evidence.matters[ACCURACY])
    holds = True if grown.low > 0 else False if grown.high < 0 or small else None
    return Card(
        "(3) A schedule was missing",
        VERDICTS[holds],
        f"{shown(grown)} points",
        f"By so much AdamW's lead over Adam is larger with a cosine. The cosine itself changes "
        f"Adam's accuracy by {gains[0]:+.2f} points and AdamW's by {gains[1]:+.2f}.",
        plots.schedules(evidence, cosine, constant),
        holds,
    )

"""The answer in sentences, for a listener: each is made from the numbers, whatever they are."""

from adamw_jax import per_step_from_weight_decay, timescale_from_per_step
from experiments.harness.formats import timescale
from experiments.harness.report import Card
from experiments.harness.statistics import Difference
from experiments.study import plots
from experiments.study.comparisons import BETTER, NEGLIGIBLE, UNCLEAR, WORSE, Judgement, growth
from experiments.study.evidence import Evidence
from experiments.study.measures import ACCURACY, CALIBRATED, LAST, LOSS, MEASURES, STOPPED
from experiments.training.arms import ADAM, ADAMW, L2

UNITS = {ACCURACY: "points of accuracy", CALIBRATED: "in calibrated loss", LOSS: "in loss"}
SAID = {
    BETTER: "{ours} beats {base}",
    WORSE: "{ours} loses to {base}",
    f"{BETTER}, but {NEGLIGIBLE}": "{ours} beats {base} by too little to matter",
    f"{WORSE}, but {NEGLIGIBLE}": "{ours} loses to {base} by too little to matter",
    NEGLIGIBLE: "{ours} and {base} are as good as each other",
    UNCLEAR: "{ours} and {base} cannot be told apart",
}


def sentences(evidence: Evidence) -> list[str]:
    """The answer: what was gained, the talk's λ, calibration, wrong labels, and L2."""
    return [
        *_gain(evidence),
        *_talk(evidence),
        *_loss(evidence),
        *_wrong_labels(evidence),
        *_l2(evidence),
    ]


def shown(lead: Difference, measure: str) -> str:
    """A lead with its interval."""
    return lead.text(MEASURES[measure].digits)


def _judged(evidence: Evidence, base: str, measure: str) -> list[Judgement]:
    return [j for j in evidence.judgements if (j.base, j.measure) == (base, measure)]


def _gain(evidence: Evidence) -> list[str]:
    """By how much the tuned AdamW is more accurate than the tuned Adam."""
    said = []
    for j in _judged(evidence, ADAM, ACCURACY):
        ours, base = (evidence.mean(j.task, family, ACCURACY) for family in (ADAMW, ADAM))
        verb = SAID[j.verdict].format(ours=ADAMW, base=ADAM)
        said.append(f"{j.task}: {verb}, {ours:.2f} against {base:.2f} %, a difference of "
                    f"{shown(j.lead, ACCURACY)} points")  # fmt: skip
    return [f"Tuned with equal effort – {'; '.join(said)}."] if said else []


def _talk(evidence: Evidence) -> list[str]:
    """What the talk's λ does in each convention."""
    said = []
    for task, weak, strong in talk_values(evidence):
        said.append(
            f"The talk's λ, {_listed(f'{decay:g}' for decay in evidence.config.talk)}, changes "
            f"Adam's accuracy by {_listed(f'{d.mean:+.1f}' for d in weak)} points where it is "
            "multiplied by the learning rate, as in PyTorch, and by "
            f"{_listed(f'{d.mean:+.1f}' for d in strong)} points where a step takes it whole, as "
            f"in the paper ({task})."
        )
    return said


def talk_values(evidence: Evidence) -> list[tuple[str, list[Difference], list[Difference]]]:
    """By task, the talk's leads over Adam at the last epoch: λ times α, then λ per step."""
    config, found = evidence.config, []
    for name, each in evidence.studied.items():
        if each.bench.task.talk_seeds:
            leads = evidence.talk_leads(name)
            rate = config.talk_learning_rate
            weak = [leads[decay] for decay in config.talk]
            strong = [_nearest(leads, decay / rate) for decay in config.talk]
            found.append((name, weak, strong))
    return found


def _nearest(leads: dict[float, Difference], decay: float) -> Difference:
    return leads[min(leads, key=lambda other: abs(other - decay))]


def _loss(evidence: Evidence) -> list[str]:
    """How much of the lead in loss calibration and stopping take away."""
    said = []
    for j in _judged(evidence, ADAM, CALIBRATED):
        raw = evidence.lead(j.task, LOSS, LAST)
        said.append(f"from {raw.mean:.3f} to {shown(j.lead, CALIBRATED)} ({j.task})")
    return [
        "AdamW's test loss at the last epoch is far lower, because Adam becomes too sure of "
        "itself; stopping early and one temperature for all logits take that lead "
        f"{_listed(said)}."
    ] if said else []  # fmt: skip


def _wrong_labels(evidence: Evidence) -> list[str]:
    """AdamW's lead where labels are wrong, at the last epoch and stopped."""
    said = []
    for name, each in evidence.studied.items():
        if each.bench.task.noise:
            last, stopped = (evidence.lead(name, ACCURACY, read) for read in (LAST, STOPPED))
            said.append(f"{last.mean:+.1f} points at the last epoch, "
                        f"{shown(stopped, ACCURACY)} where both stop early ({name})")  # fmt: skip
    return [f"Where labels are wrong AdamW leads by {'; '.join(said)}."] if said else []


def _l2(evidence: Evidence) -> list[str]:
    """How close Adam+L2 comes."""
    judged = _judged(evidence, L2, ACCURACY)
    said = [f"{shown(j.lead, ACCURACY)} points ({j.task})" for j in judged]
    return [f"Adam with L2 regularization, tuned alike, comes close: AdamW leads it by "
            f"{_listed(said)}."] if said else []  # fmt: skip


def _listed(parts) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def cards(evidence: Evidence) -> list[Card]:
    """The talk's three guesses, one card each."""
    return [*_overfitting(evidence), *_decay(evidence), *_schedule(evidence)]


def _overfitting(evidence: Evidence) -> list[Card]:
    made = []
    for more, less in evidence.pairs()[:1]:
        grown = {
            read: growth(*(evidence.lead(task, ACCURACY, read) for task in (more, less)))
            for read in (LAST, STOPPED)
        }
        matters = evidence.matters[ACCURACY]
        at_last, stopped = (grown[read].low > matters for read in (LAST, STOPPED))
        verdict = "right" if stopped else "right, unless one stops early" if at_last else "open"
        made.append(Card(
            "(1) The data does not tend to overfitting",
            verdict,
            f"{shown(grown[LAST], ACCURACY)} points",
            f"By so much AdamW's lead is larger with wrong labels ({more} against {less}) at the "
            f"last epoch; where every run stops early, by {shown(grown[STOPPED], ACCURACY)}.",
            plots.overfitting(evidence),
            at_last or None,
        ))  # fmt: skip
    return made


def _decay(evidence: Evidence) -> list[Card]:
    made = []
    for task, weak, strong in talk_values(evidence):
        matters = evidence.matters[ACCURACY]
        no_effect = all(lead.negligible(matters) for lead in weak)
        harmful = all(lead.high < 0 for lead in strong)
        verdict = "both are right" if no_effect and harmful else "partly right"
        bench = evidence.studied[task].bench
        rate = evidence.config.talk_learning_rate
        taus = [
            [timescale(timescale_from_per_step(per_step, bench.steps)) for per_step in decays]
            for decays in (
                [per_step_from_weight_decay(decay, rate) for decay in evidence.config.talk],
                evidence.config.talk,
            )
        ]
        made.append(Card(
            "(2) λ was too small, or too large",
            verdict,
            f"{shown(strong[-1], ACCURACY)} points",
            f"That is λ = {evidence.config.talk[-1]:g} per step. Decay alone would take a weight "
            f"to 1/e in {_listed(taus[1])} epochs with the talk's two λ per step, and in "
            f"{_listed(taus[0])} with λ times the learning rate, in a run of "
            f"{max(bench.task.epochs)}.",
            plots.talk(evidence, task),
            (no_effect and harmful) or None,
        ))  # fmt: skip
    return made


def _schedule(evidence: Evidence) -> list[Card]:
    made = []
    for cosine, constant in evidence.schedules()[:1]:
        grown = growth(*(evidence.lead(task, ACCURACY) for task in (cosine, constant)))
        gains = [
            evidence.mean(cosine, family, ACCURACY) - evidence.mean(constant, family, ACCURACY)
            for family in (ADAM, ADAMW)
        ]
        small = grown.negligible(evidence.matters[ACCURACY])
        verdict = "right" if grown.low > 0 else "wrong" if grown.high < 0 or small else "open"
        made.append(Card(
            "(3) A schedule was missing",
            verdict,
            f"{shown(grown, ACCURACY)} points",
            f"By so much AdamW's lead is larger with a cosine. The cosine itself gives Adam "
            f"{gains[0]:+.2f} points and AdamW {gains[1]:+.2f}.",
            plots.schedules(evidence, cosine, constant),
            {"right": True, "wrong": False}.get(verdict),
        ))  # fmt: skip
    return made

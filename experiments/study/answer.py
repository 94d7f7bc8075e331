"""The answer in five sentences for a listener, each made from the numbers, whatever they are."""

import itertools
from collections.abc import Iterable, Sequence

from experiments.harness.statistics import Difference
from experiments.study.comparisons import BETTER, NEGLIGIBLE, UNCLEAR, WORSE, Judgement, growth
from experiments.study.evidence import Evidence
from experiments.study.measures import ACCURACY, CALIBRATED, LAST, LOSS, MEASURES, STOPPED
from experiments.study.tasks import COSINE
from experiments.training.arms import ADAM, ADAMW, L2

# What the verdict on a comparison in accuracy says of AdamW.
SAYS = {
    BETTER: "is more accurate than {}",
    f"{BETTER}, but {NEGLIGIBLE}": "is more accurate than {}, but by too little to matter",
    NEGLIGIBLE: "differs from {} by too little to matter",
    UNCLEAR: "cannot be told from {}",
    f"{WORSE}, but {NEGLIGIBLE}": "is less accurate than {}, but by too little to matter",
    WORSE: "is less accurate than {}",
}


def sentences(evidence: Evidence) -> list[str]:
    """What is gained, what the talk's λ did, why so little, where more, and what L2 does."""
    parts = _gain, _talk, _loss, _wrong_labels, _l2
    return [sentence for part in parts if (sentence := part(evidence))]


def shown(lead: Difference, measure: str = ACCURACY) -> str:
    """A lead with its interval."""
    if lead.changes and not any(lead.changes):
        return "exactly 0"
    return lead.text(MEASURES[measure].digits)


def listed(parts: Iterable[str]) -> str:
    """Words joined by commas and "and"."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def where(evidence: Evidence, task: str) -> str:
    """The schedule of a task in words."""
    schedule = evidence.studied[task].bench.task.schedule
    return "with a cosine" if schedule == COSINE else "at a constant rate"


def _judged(evidence: Evidence, base: str, measure: str) -> list[Judgement]:
    found = [j for j in evidence.judgements if (j.base, j.measure) == (base, measure)]
    return sorted(found, key=lambda j: -j.lead.mean)


def _gain(evidence: Evidence) -> str:
    judged = _judged(evidence, ADAM, ACCURACY)
    means = [
        " against ".join(f"{evidence.mean(j.task, arm, ACCURACY):.2f}" for arm in (ADAMW, ADAM))
        for j in judged
    ]
    details = [f" ({both} %)" for both in means]
    says = compared(evidence, judged, "Adam", details)
    notes = _choices(evidence, judged, (ADAMW, ADAM))
    return f"With all arms tuned alike and stopped early, AdamW {says}.{notes}"


def _l2(evidence: Evidence) -> str:
    judged = _judged(evidence, L2, ACCURACY)
    says = compared(evidence, judged, "an Adam with L2 regularization", [""] * len(judged))
    return f"Tuned and stopped alike, AdamW {says}.{_choices(evidence, judged, (L2,))}"


def compared(
    evidence: Evidence, judged: Sequence[Judgement], base: str, details: Sequence[str]
) -> str:
    """What comparisons in accuracy say of AdamW, those with the same verdict together.

    Args:
      evidence: all that was measured.
      judged: the comparisons.
      base: what AdamW is compared with, in words.
      details: what stands behind each comparison's number.
    """
    groups: dict[str, list[str]] = {}
    for j, detail in zip(judged, details, strict=True):
        number = f"{shown(j.lead)} points {where(evidence, j.task)}{detail}"
        groups.setdefault(j.verdict, []).append(number)
    return "; it ".join(
        f"{SAYS[verdict].format(base)}: {listed(numbers)}" for verdict, numbers in groups.items()
    )


def _choices(evidence: Evidence, judged: Sequence[Judgement], families: Sequence[str]) -> str:
    """A sentence on what has to be known of the compared settings, if there is anything."""
    notes = []
    for j, family in itertools.product(judged, families):
        arm = f"{family} {where(evidence, j.task)}"
        if family != ADAM and not evidence.choice(j.task, family, j.measure)["decay"]:
            notes.append(f"for {arm} tuning chose no decay")
        # Beyond the least decay lies none at all, which is tried, too.
        for end in {"α low", "α high", "λ high", "λ′ high"}.intersection(
            evidence.ends(j.task, family, j.measure)
        ):
            notes.append(f"the best {end.split()[0]} of {arm} may lie beyond those tried")
    return f" Note that {listed(sorted(notes))}." if notes else ""


def _talk(evidence: Evidence) -> str:
    asked = [name for name, e in evidence.studied.items() if e.bench.task.talk_seeds]
    if not asked:
        return ""
    decays = listed(f"{decay:g}" for decay in evidence.config.talk)
    leads = evidence.talk_leads(asked[0])
    weak, strong = (
        _effect([leads[decay] for decay in values], evidence.matters[ACCURACY])
        for values in (evidence.talk_times_rate, evidence.talk_per_step)
    )
    return (
        f"The talk's λ, {decays}, could mean either of two things: multiplied by the learning "
        f"rate, as in PyTorch, they {weak}; taken whole at every step, as in the paper, they "
        f"{strong}."
    )


def _effect(leads: Sequence[Difference], matters: float) -> str:
    """What values of λ do to Adam's accuracy."""
    numbers = listed(f"{lead.mean:+z.2f}" for lead in leads)
    if all(lead.negligible(matters) for lead in leads):
        return f"do next to nothing ({numbers} points of accuracy)"
    for sign, does in (-1, "do harm"), (1, "help"):
        if all(lead.sign == sign for lead in leads):
            return f"{does} ({numbers} points)"
    return f"change Adam's accuracy by {numbers} points"


def _loss(evidence: Evidence) -> str:
    judged = _judged(evidence, ADAM, CALIBRATED)
    notes = _choices(evidence, judged, (ADAMW, ADAM))
    at_talk = [j.task for j in judged if evidence.studied[j.task].bench.task.talk_seeds]
    if at_talk:
        return f"{_loss_from_talk(evidence, at_talk[0], judged)}{notes}"
    raw = [evidence.lead(j.task, LOSS, LAST) for j in judged]
    parts = [
        f"from {shown(before, LOSS)} to {shown(j.lead, CALIBRATED)} {where(evidence, j.task)} "
        f"({j.verdict})"
        for before, j in zip(raw, judged, strict=True)
    ]
    gone = all(mostly_gone(before, j.lead) for before, j in zip(raw, judged, strict=True))
    part = "most of AdamW's lead" if gone else "AdamW's lead"
    does = "goes: it falls" if gone else "changes"
    return (
        f"Once both stop early and one temperature calibrates each, {part} in test loss {does} "
        f"{listed(parts)}.{notes}"
    )


def _loss_from_talk(evidence: Evidence, task: str, judged: Sequence[Judgement]) -> str:
    """The lead in loss, step by step from the talk's settings to the tuned ones."""
    last, stopped, calibrated = (
        f"{evidence.talk_best(task, read, measure).mean:+z.3f}"
        for read, measure in ((LAST, LOSS), (STOPPED, LOSS), (STOPPED, CALIBRATED))
    )
    tuned = listed(
        f"{shown(j.lead, CALIBRATED)} {where(evidence, j.task)} ({j.verdict})" for j in judged
    )
    return (
        "In test loss AdamW's lead over Adam at the talk's learning rate and the last epoch is "
        f"{last} with the best of {len(evidence.talk_leads(task))} λ; it is {stopped} with both "
        f"stopped early, {calibrated} if one temperature calibrates each as well, and tuned as "
        f"well {tuned}."
    )


def mostly_gone(before: Difference, after: Difference) -> bool:
    """Whether a lead that was there has surely lost more than half of itself."""
    twice = Difference.of([2 * change for change in after.changes], [0.0] * len(after.changes))
    return before.sign > 0 and growth(before, twice).sign > 0


def _wrong_labels(evidence: Evidence) -> str:
    noisy = [name for name, e in evidence.studied.items() if e.bench.task.noise]
    if not noisy:
        return ""
    task = noisy[0]
    there = f"Where {100 * evidence.studied[task].bench.task.noise:g} % of the labels are wrong"
    tuned = f"{shown(evidence.lead(task, ACCURACY))} points"
    if not evidence.studied[task].bench.task.talk_seeds:
        return (
            f"{there}, AdamW's lead over Adam, both tuned and stopped early, is {tuned} "
            f"{where(evidence, task)}."
        )
    last, stopped = (shown(evidence.talk_best(task, read)) for read in (LAST, STOPPED))
    return (
        f"{there}, AdamW's lead over Adam at the talk's learning rate and the last epoch is "
        f"{last} points with the best of {len(evidence.talk_leads(task))} λ; it is {stopped} with "
        f"both stopped early, by images with right labels, and {tuned} with both tuned as well, "
        f"all {where(evidence, task)}."
    )

"""The answer in five sentences for a listener, each made from the numbers, whatever they are."""

from collections.abc import Sequence

from experiments.harness.formats import listed, signed
from experiments.harness.statistics import Difference
from experiments.study.evidence import Evidence
from experiments.study.tasks import COSINE
from experiments.training.arms import ADAM, ADAMW, L2
from experiments.tuning.comparisons import BETTER, NEGLIGIBLE, UNCLEAR, WORSE, Judgement, growth
from experiments.tuning.measures import ACCURACY, CALIBRATED, LAST, LOSS, MEASURES, STOPPED

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
    note = _without_decay(evidence, judged, ADAMW)
    return f"With all arms tuned alike and stopped early, AdamW {says}.{note}"


def _l2(evidence: Evidence) -> str:
    judged = _judged(evidence, L2, ACCURACY)
    says = compared(evidence, judged, "Adam with L2", [""] * len(judged))
    return f"Tuned and stopped alike, AdamW {says}.{_without_decay(evidence, judged, L2)}"


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


def _without_decay(evidence: Evidence, judged: Sequence[Judgement], family: str) -> str:
    """A note on where tuning chose no decay, so that the arm is Adam; empty if nowhere."""
    places = [
        where(evidence, j.task)
        for j in judged
        if not evidence.choice(j.task, family, j.measure)["decay"]
    ]
    return f" (Tuning chose no decay for {family} {listed(places)}.)" if places else ""


def _talk(evidence: Evidence) -> str:
    tasks = {name: e.bench.task for name, e in evidence.studied.items()}
    asked = [name for name, task in tasks.items() if task.talk_seeds and not task.noise]
    if not asked:  # the talk's labels are right
        return ""
    decays = listed(f"{decay:g}" for decay in evidence.config.talk)
    leads = evidence.talk_leads(asked[0])
    weak, strong = (
        _effect([leads[decay] for decay in values], evidence.matters[ACCURACY])
        for values in (evidence.talk_times_rate, evidence.talk_per_step)
    )
    return (
        f"The talk's λ, {decays}, {weak} if the learning rate multiplies them, as in PyTorch, and "
        f"{strong} if they act whole in every step, as in the paper."
    )


def _effect(leads: Sequence[Difference], matters: float) -> str:
    """What values of λ do to Adam's accuracy."""
    numbers = listed(signed(lead.mean) for lead in leads)
    if all(lead.negligible(matters) for lead in leads):
        return f"do next to nothing ({numbers} points of accuracy)"
    for sign, does in (-1, "do harm"), (1, "help"):
        if all(lead.sign == sign for lead in leads):
            return f"{does} ({numbers} points)"
    return f"change Adam's accuracy by {numbers} points"


def _loss(evidence: Evidence) -> str:
    judged = _judged(evidence, ADAM, CALIBRATED)
    at_talk = [j.task for j in judged if evidence.studied[j.task].bench.task.talk_seeds]
    if at_talk:
        return _loss_from_talk(evidence, at_talk[0], judged)
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
        f"{listed(parts)}."
    )


def _loss_from_talk(evidence: Evidence, task: str, judged: Sequence[Judgement]) -> str:
    """The lead in loss, step by step from the talk's settings to the tuned ones."""
    last, stopped = (
        signed(evidence.talk_best(task, read, LOSS).mean, 3) for read in (LAST, STOPPED)
    )
    tuned = next(shown(j.lead, CALIBRATED) for j in judged if j.task == task)
    return (
        f"In test loss AdamW leads Adam by {last} at the talk's learning rate and last epoch, "
        f"{stopped} if both stop early, and {tuned} if both are tuned and calibrated as well."
    )


def mostly_gone(before: Difference, after: Difference) -> bool:
    """Whether a lead that was there has surely lost more than half of itself."""
    twice = Difference.of([2 * change for change in after.changes], [0.0] * len(after.changes))
    return before.sign > 0 and growth(before, twice).sign > 0


def _wrong_labels(evidence: Evidence) -> str:
    noisy = [name for name, e in evidence.studied.items() if e.bench.task.noise]
    if not noisy:
        return ""
    task, *others = noisy
    share = 100 * evidence.studied[task].bench.task.noise
    tuned = signed(evidence.lead(task, ACCURACY).mean)
    there = f"With {share:g} % wrong labels AdamW leads Adam by"
    also = "".join(
        f"; {where(evidence, other)} it is {signed(evidence.lead(other, ACCURACY).mean)}"
        for other in others
    )
    if not evidence.studied[task].bench.task.talk_seeds:
        return f"{there} {tuned} points if both are tuned and stop early{also}."
    last, stopped = (signed(evidence.talk_best(task, read).mean) for read in (LAST, STOPPED))
    return (
        f"{there} {last} points at the talk's learning rate and last epoch, {stopped} if both stop "
        f"early, and {tuned} if both are tuned as well{also}."
    )

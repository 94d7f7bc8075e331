"""The answer in five sentences for a listener, each made from the numbers, whatever they are."""

from collections.abc import Iterable, Sequence

from experiments.harness.statistics import Difference
from experiments.study.comparisons import BETTER, NEGLIGIBLE, WORSE, Judgement
from experiments.study.evidence import Evidence
from experiments.study.measures import ACCURACY, CALIBRATED, LAST, LOSS, MEASURES, STOPPED
from experiments.study.tasks import COSINE
from experiments.training.arms import ADAM, ADAMW, L2


def sentences(evidence: Evidence) -> list[str]:
    """What is gained, what the talk's λ did, why so little, where more, and what L2 does."""
    parts = _gain, _talk, _loss, _wrong_labels, _l2
    return [sentence for part in parts if (sentence := part(evidence))]


def shown(lead: Difference, measure: str = ACCURACY) -> str:
    """A lead with its interval."""
    if not any(lead.changes):
        return "0 (both chose the same settings)"
    return lead.text(MEASURES[measure].digits)


def listed(parts: Iterable[str]) -> str:
    """Words joined by commas and "and"."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def where(evidence: Evidence, task: str) -> str:
    """The schedule of a primary task in words."""
    schedule = evidence.studied[task].bench.task.schedule
    return "with a cosine" if schedule == COSINE else "at a constant rate"


def _judged(evidence: Evidence, base: str, measure: str) -> list[Judgement]:
    found = [j for j in evidence.judgements if (j.base, j.measure) == (base, measure)]
    return sorted(found, key=lambda j: -j.lead.mean)


def _gain(evidence: Evidence) -> str:
    judged = _judged(evidence, ADAM, ACCURACY)
    if not judged:
        return ""
    parts = []
    for j in judged:
        ours, base = (evidence.mean(j.task, family, ACCURACY) for family in (ADAMW, ADAM))
        parts.append(f"{shown(j.lead)} points {where(evidence, j.task)} ({ours:.2f} against "
                     f"{base:.2f} %)")  # fmt: skip
    return f"With all arms tuned alike and stopped early, AdamW {_says(judged)}: {listed(parts)}."


def _says(judged: Sequence[Judgement]) -> str:
    """What verdicts, the largest lead first, say of AdamW and Adam."""
    verdicts = {j.verdict for j in judged}
    if BETTER in verdicts:
        all_say = all(j.verdict == BETTER for j in judged)
        return f"is more accurate than Adam{'' if all_say else ' in some of what was tried'}"
    if WORSE in verdicts:
        return "is not more accurate than Adam"
    if all(NEGLIGIBLE in verdict for verdict in verdicts):
        return "and Adam differ by less than matters"
    return "and Adam cannot be told apart"


def _talk(evidence: Evidence) -> str:
    asked = [name for name, e in evidence.studied.items() if e.bench.task.talk_seeds]
    if not asked:
        return ""
    decays = listed(f"{decay:g}" for decay in evidence.config.talk)
    weak, strong = (
        [evidence.talk_leads(asked[0])[decay] for decay in values]
        for values in (evidence.talk_times_rate, evidence.talk_per_step)
    )
    matters = evidence.matters[ACCURACY]
    return (
        f"The talk's λ, {decays}, could mean either of two things: multiplied by the learning "
        f"rate, as in PyTorch, {_effect(weak, matters)}; taken whole at every step, as in the "
        f"paper, {_effect(strong, matters)}."
    )


def _effect(leads: Sequence[Difference], matters: float) -> str:
    """What values of λ do to Adam's accuracy."""
    numbers = listed(f"{lead.mean:+.1f}" for lead in leads)
    if all(lead.negligible(matters) for lead in leads):
        return f"they do next to nothing ({numbers} points against Adam)"
    if all(lead.high < 0 for lead in leads):
        return f"they do harm ({numbers} points)"
    return f"they change Adam's accuracy by {numbers} points"


def _loss(evidence: Evidence) -> str:
    judged = _judged(evidence, ADAM, CALIBRATED)
    if not judged:
        return ""
    raw = [evidence.lead(j.task, LOSS, LAST).mean for j in judged]
    parts = [
        f"from {before:.3f} to {shown(j.lead, CALIBRATED)} {where(evidence, j.task)}"
        for before, j in zip(raw, judged, strict=True)
    ]
    mended = all(abs(j.lead.mean) < before / 2 for before, j in zip(raw, judged, strict=True))
    once = "once both stop early and one temperature calibrates each"
    if mended:
        return (
            "Most of AdamW's lead in loss is Adam's overconfidence, which other means mend, too: "
            f"{once}, it goes {listed(parts)}."
        )
    return f"AdamW's lead in test loss, {once}, goes {listed(parts)}."


def _wrong_labels(evidence: Evidence) -> str:
    noisy = [name for name, e in evidence.studied.items() if e.bench.task.noise]
    if not noisy:
        return ""
    task = noisy[0]
    share = 100 * evidence.studied[task].bench.task.noise
    tuned = f"{shown(evidence.lead(task, ACCURACY))} points"
    if not evidence.studied[task].bench.task.talk_seeds:
        return f"Where {share:g} % of the labels are wrong AdamW leads by {tuned}."
    last, stopped = (evidence.talk_best(task, read) for read in (LAST, STOPPED))
    return (
        f"Where {share:g} % of the labels are wrong, its lead at the talk's learning rate and the "
        f"last epoch is {shown(last)} points; stopping both early leaves {shown(stopped)}, and "
        f"tuning both {tuned}."
    )


def _l2(evidence: Evidence) -> str:
    judged = _judged(evidence, L2, ACCURACY)
    if not judged:
        return ""
    parts = [f"{shown(j.lead)} points {where(evidence, j.task)}" for j in judged]
    verdicts = {j.verdict for j in judged}
    if any(j.verdict == BETTER and j.lead.low > j.matters for j in judged):
        says = "falls short of AdamW"
    elif all(NEGLIGIBLE in verdict for verdict in verdicts):
        says = "is as good as AdamW"
    else:
        says = "can hardly be told from AdamW"
    return (
        f"Adam with L2 regularization, tuned alike, {says}: AdamW minus Adam+L2 is {listed(parts)}."
    )

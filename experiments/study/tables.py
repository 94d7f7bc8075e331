"""Tables of the study's report."""

import itertools

from adamw_jax import per_step_from_weight_decay, timescale_from_per_step
from experiments.harness.formats import timescale
from experiments.harness.report import Table
from experiments.study.evidence import Evidence
from experiments.study.tasks import Bench
from experiments.training.arms import ADAM, ADAMW, L2
from experiments.tuning.measures import ACCURACY, CALIBRATED, LAST, LOSS, MEASURES, RUN, STOPPED

FAMILIES = ADAM, L2, ADAMW


def primary(evidence: Evidence) -> Table:
    """The primary comparisons with their tests."""
    rows = [
        [
            f"{j.ours} − {j.base}, {j.measure}, {j.task}",
            j.lead.text(MEASURES[j.measure].digits),
            f"{j.p:.2g}",
            f"{j.matters:g}",
            j.verdict,
        ]
        for j in evidence.judgements
    ]
    seeds = {len(j.lead.changes) for j in evidence.judgements}
    return Table(
        "The primary comparisons",
        ["", "lead [95 % interval]", "p, corrected", "matters from", "verdict"],
        rows,
        f"Paired over {max(seeds, default=0)} fresh seeds, each with its own images. Lead: points "
        "of accuracy more, or loss less. p: sign-flip test, corrected by Holm for all "
        "comparisons in the table. Negligible: the 90 % interval lies within what matters. The "
        "intervals and the test of what is negligible hold for one comparison at a time. They "
        "cover neither what another tuning would choose nor other images than the data set's.",
    )


def otherwise(evidence: Evidence) -> Table:
    """The primary comparisons, had the other measure chosen the settings of either arm."""
    choosers = list(itertools.product((ACCURACY, CALIBRATED), repeat=2))
    rows = []
    for j in evidence.judgements:
        leads = [
            evidence.lead_by(j.task, j.measure, (j.ours, ours), (j.base, base))
            for ours, base in choosers
        ]
        cells = [lead.text(MEASURES[j.measure].digits) for lead in leads]
        rows.append([f"{j.ours} − {j.base}, {j.measure}, {j.task}", *cells])
    return Table(
        "How much hangs on what tuning chose",
        ["", *(f"by {ours}, by {base}" for ours, base in choosers)],
        rows,
        "The primary comparisons with the settings that accuracy or calibrated loss chose on the "
        "validation images, first AdamW's and then those of the other arm. Exploratory: settings "
        "that are as good on the validation images may give other leads.",
    )


def chosen(evidence: Evidence) -> Table:
    """What tuning chose for every arm, and how it does with fresh seeds."""
    rows = []
    for task, each in evidence.studied.items():
        rows.append([task, *[""] * 6])
        for measure, family in itertools.product((ACCURACY, CALIBRATED), FAMILIES):
            row, mean = evidence.choice(task, family, measure), evidence.mean(task, family, measure)
            rows.append([
                f"– {family}, by {measure}",
                f"{row['learning_rate']:g}",
                _decay(row),
                _timescale(row, each.bench),
                f"{row['epochs']}",
                f"{mean:.{MEASURES[measure].digits}f}",
                ", ".join(evidence.ends(task, family, measure)),
            ])  # fmt: skip
    return Table(
        "What tuning chose, and its test results with fresh seeds",
        ["task and arm", "α", "λ or λ′", "τ, epochs", "length, epochs", "test", "near an end"],
        rows,
        "Test: accuracy in %, or calibrated loss, of the stopped runs. λ is AdamW's, multiplied by "
        "α; τ is the time in which it alone takes a weight to 1/e, at the schedule's peak. Without "
        "decay, λ = 0, an arm is Adam. Near an end: what lies within a tenth of its range's end, "
        "on a log scale; better values may lie beyond.",
    )


def _decay(row: dict) -> str:
    return "" if row["family"] == ADAM else f"{row['decay']:g}"


def _timescale(row: dict, bench: Bench) -> str:
    if row["family"] != ADAMW:
        return ""
    per_step = per_step_from_weight_decay(row["decay"], row["learning_rate"])
    return timescale(timescale_from_per_step(per_step, bench.steps))


def leads(evidence: Evidence) -> Table:
    """AdamW's leads on every task, with stopping and temperature on and off."""
    shown = [(ACCURACY, STOPPED), (ACCURACY, LAST), (CALIBRATED, STOPPED), (CALIBRATED, LAST),
             (LOSS, STOPPED), (LOSS, LAST)]  # fmt: skip
    rows = []
    for base in (ADAM, L2):
        rows.append([f"AdamW − {base}", *[""] * len(shown)])
        for task in evidence.studied:
            cells = [
                evidence.lead(task, measure, read, base=base).text(MEASURES[measure].digits)
                for measure, read in shown
            ]
            rows.append([f"– {task}", *cells])
    return Table(
        "AdamW's leads, stopped early and at the last epoch, before and after calibration",
        ["", *(f"{measure}, {read}" for measure, read in shown)],
        rows,
        "Points of accuracy more, or loss less, with 95 % intervals, which are not corrected for "
        "their number: all that is not in the table of primary comparisons is exploratory. The "
        "settings are those that tuning chose for stopped runs, by accuracy for accuracy and by "
        "calibrated loss for both losses; arms that were tuned for the last epoch, or for the loss "
        "before calibration, would lead by other numbers.",
    )


def overfitting(evidence: Evidence) -> Table:
    """How far Adam overfits on every task, and AdamW's lead."""
    rows = [
        [
            task,
            f"{evidence.overfitting(task):.2f}",
            evidence.lead(task, ACCURACY, LAST).text(2),
            evidence.lead(task, ACCURACY).text(2),
        ]
        for task in evidence.studied
    ]
    return Table(
        "How far Adam overfits, and how far AdamW leads in accuracy",
        ["", "log of Adam's last over lowest validation loss", "lead at the last epoch",
         "lead, both stopped"],
        rows,
        "The logarithm is the median over Adam's trials, which have the same learning rates on "
        "every task. The leads are those of the settings that tuning chose for stopped runs.",
    )  # fmt: skip


def talk(evidence: Evidence, task: str) -> Table:
    """AdamW at the talk's learning rate, against Adam at the same."""
    each, rate = evidence.studied[task], evidence.config.talk_learning_rate
    ends, stops = (evidence.talk_leads(task, read) for read in (LAST, STOPPED))
    accuracy, loss = (evidence.talk_means(task, measure) for measure in (ACCURACY, LOSS))
    rows = [["0, Adam", "0", "∞", f"{accuracy[0.0]:.2f}", "", "", f"{loss[0.0]:.4f}"]]
    for decay in ends:
        per_step = per_step_from_weight_decay(decay, rate)
        tau = timescale(timescale_from_per_step(per_step, each.bench.steps))
        leads = [found[decay].text(2) for found in (ends, stops)]
        shown = f"{accuracy[decay]:.2f}", *leads, f"{loss[decay]:.4f}"
        rows.append([f"{decay:g}", f"{per_step:g}", tau, *shown])
    return Table(
        f"AdamW at the talk's α = {rate:g}: {task}",
        ["λ times α", "λ per step", "τ, epochs", "acc., %", "minus Adam", "both stopped", "loss"],
        rows,
        f"Test accuracy and loss at the last epoch, means over {each.bench.task.talk_seeds} seeds; "
        "AdamW's lead in accuracy, there and where both stop early, with 95 % intervals. A lead at "
        "the talk's learning rate, where the answer tells one, is that of the λ with the best mean "
        "validation score.",
    )


def every(evidence: Evidence) -> list[dict]:
    """The scores of the chosen settings, run by run, as tidy rows."""
    shown = ("task", *RUN, "measure", "read", "epoch", "validation", "test")
    return evidence.settled.select(shown).to_dicts()


def all_of(evidence: Evidence) -> list[Table]:
    """All tables, the primary comparisons first."""
    asked = [name for name, each in evidence.studied.items() if each.bench.task.talk_seeds]
    return [
        primary(evidence),
        otherwise(evidence),
        chosen(evidence),
        leads(evidence),
        *(talk(evidence, task) for task in asked),
        overfitting(evidence),
    ]

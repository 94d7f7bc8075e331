"""Tables of the study's report."""

import polars as pl

from adamw_jax import per_step_from_weight_decay, timescale_from_per_step
from experiments.harness.formats import timescale
from experiments.harness.report import Table
from experiments.study.choices import CHOSEN_BY
from experiments.study.evidence import Evidence
from experiments.study.measures import ACCURACY, CALIBRATED, LAST, LOSS, MEASURES, STOPPED
from experiments.study.tasks import Bench
from experiments.training.arms import ADAM, ADAMW, L2

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
        "comparisons in the table. Negligible: the 90 % interval lies within what matters.",
    )


def chosen(evidence: Evidence) -> Table:
    """What tuning chose for every arm, and how it does with fresh seeds."""
    rows = []
    for task, each in evidence.studied.items():
        rows.append([task, *[""] * 6])
        for row in each.chosen.sort("measure", maintain_order=True).to_dicts():
            family, measure = row["family"], row["measure"]
            mean = evidence.mean(task, family, measure)
            rows.append([
                f"– {family}, by {measure}",
                f"{row['learning_rate']:g}",
                _decay(row),
                _timescale(row, each.bench),
                f"{row['epochs']}",
                f"{mean:.{MEASURES[measure].digits}f}",
                _edges(row, evidence, each.bench),
            ])  # fmt: skip
    return Table(
        "What tuning chose, and its test results with fresh seeds",
        ["task and arm", "α", "λ or λ′", "τ, epochs", "length, epochs", "test", "near an end"],
        rows,
        "Test: accuracy in %, or calibrated loss, of the stopped runs. λ is AdamW's, multiplied by "
        "α; τ is the time in which it alone takes a weight to 1/e, at the schedule's peak. Near an "
        "end: what lies within a tenth of its range's end, on a log scale.",
    )


def _decay(row: dict) -> str:
    return "" if row["family"] == ADAM else f"{row['decay']:g}"


def _timescale(row: dict, bench: Bench) -> str:
    if row["family"] != ADAMW:
        return ""
    per_step = per_step_from_weight_decay(row["decay"], row["learning_rate"])
    return timescale(timescale_from_per_step(per_step, bench.steps))


def _edges(row: dict, evidence: Evidence, bench: Bench) -> str:
    """Which of the chosen values are near an end of their range; better ones may lie beyond."""
    ranges = {"α": (row["learning_rate"], evidence.config.learning_rates)}
    if row["decay"]:
        limits = bench.task.l2 if row["family"] == L2 else bench.task.weight_decay
        ranges["λ′" if row["family"] == L2 else "λ"] = (row["decay"], limits)
    found = []
    for name, (value, (low, high)) in ranges.items():
        tenth = (high / low) ** 0.1
        if value < low * tenth or value > high / tenth:
            found.append(f"{name} {'low' if value < low * tenth else 'high'}")
    return ", ".join(found)


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
        "calibrated loss for both losses.",
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
        "The settings of Adam are those chosen by calibrated loss.",
    )  # fmt: skip


def talk(evidence: Evidence, task: str) -> Table:
    """AdamW at the talk's learning rate, against Adam at the same."""
    each, rate = evidence.studied[task], evidence.config.talk_learning_rate
    rows = []
    ends, stops = (evidence.talk_leads(task, read) for read in (LAST, STOPPED))
    for decay in ends:
        per_step = per_step_from_weight_decay(decay, rate)
        tau = timescale(timescale_from_per_step(per_step, each.bench.steps))
        cells = [leads[decay].text(2) for leads in (ends, stops)]
        rows.append([f"{decay:g}", f"{per_step:g}", tau, *cells])
    return Table(
        f"AdamW at the talk's α = {rate:g}: {task}",
        ["λ times α", "λ per step", "τ, epochs", "minus Adam, last epoch", "minus Adam, stopped"],
        rows,
        f"Points of accuracy, with 95 % intervals, over {each.bench.task.talk_seeds} seeds.",
    )


def every(evidence: Evidence) -> list[dict]:
    """The scores of the chosen settings, run by run, as tidy rows."""
    shown = evidence.settled.select("task", "family", "decay", "learning_rate", "epochs", "seed",
                                    "measure", "read", "epoch", "validation", "test")  # fmt: skip
    return shown.filter(pl.col("measure").is_in(list(CHOSEN_BY))).to_dicts()


def all_of(evidence: Evidence) -> list[Table]:
    """All tables, the primary comparisons first."""
    asked = [name for name, each in evidence.studied.items() if each.bench.task.talk_seeds]
    return [
        primary(evidence),
        chosen(evidence),
        leads(evidence),
        *(talk(evidence, task) for task in asked),
        overfitting(evidence),
    ]

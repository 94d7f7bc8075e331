"""Tables of the study's report."""

from collections import Counter
from collections.abc import Mapping, Sequence

import polars as pl

from adamw_jax import timescale_from_per_step
from experiments.harness.formats import timescale
from experiments.harness.report import Table
from experiments.study import choices
from experiments.study.choices import ACCURACY, LOSS, METRICS
from experiments.study.verdicts import Judgement
from experiments.training.arms import ADAM, ADAMW

DIGITS = {ACCURACY: 2, LOSS: 4}
SIGNS = {ACCURACY: 1, LOSS: -1}  # from a score to the value that is shown


def glance(judgements: Sequence[Judgement]) -> Table:
    """How often each verdict was given."""
    rows = []
    for claim in dict.fromkeys(j.claim for j in judgements):
        cells = []
        for metric in METRICS:
            given = [j.verdict for j in judgements if (j.claim, j.metric) == (claim, metric)]
            counts = Counter(given).most_common()
            cells.append(", ".join(f"{word} {n} of {len(given)}" for word, n in counts))
        rows.append([claim, *cells])
    return Table(
        "The verdicts",
        ["claim", "in test accuracy", "in test loss"],
        rows,
        "The cells say how many of the comparisons below give each verdict.",
    )


def effects(judgements: Sequence[Judgement], matters: Mapping[str, float]) -> Table:
    """Every comparison's interval and verdict."""
    by_place = {(j.claim, j.where, j.metric): j for j in judgements}
    rows: list[list[str]] = []
    last = ""
    for claim, where in dict.fromkeys((j.claim, j.where) for j in judgements):
        rows += [[claim, "", "", "", ""]] if claim != last else []
        last, cells = claim, []
        for metric in METRICS:
            judgement = by_place[claim, where, metric]
            cells += [judgement.interval.text(DIGITS[metric]), judgement.verdict]
        rows.append([f"– {where}", *cells])
    return Table(
        "The effects that the claims predict to be positive: mean [interval]",
        ["claim", "test accuracy, points", "", "test loss, lower by", ""],
        rows,
        f"Paired by seed. The {len(judgements)} intervals together cover with 95 % (Bonferroni). "
        f"Smallest effects that matter: {matters[ACCURACY]:g} points, {matters[LOSS]:g} in "
        "loss. The intervals cover the randomness of initial weights and order; images, wrong "
        "labels and split are fixed.",
    )


def chosen_decays(scores: pl.DataFrame, chosen: pl.DataFrame, fitted: pl.DataFrame) -> Table:
    """Each family's chosen decays, and how the cross-fitted ones do on the test images."""
    tested = fitted.group_by(choices.FAMILY).agg(
        mean=pl.col("test").mean(), sd=pl.col("test").std()
    )
    described = scores.unique([*choices.FAMILY, "decay"], maintain_order=True)
    found = described.join(chosen, on=[*choices.FAMILY, "decay"], maintain_order="left")
    by_place = {
        (row["trial"], row["family"], row["metric"]): row
        for row in found.join(tested, on=choices.FAMILY, maintain_order="left").to_dicts()
    }
    rows: list[list[str]] = []
    for trial, family in dict.fromkeys((trial, family) for trial, family, _ in by_place):
        if family == ADAM:
            rows.append([trial, *[""] * 8])
        cells = [_choice(by_place[trial, family, metric]) for metric in METRICS]
        rows.append([f"– {family}", *cells[0], *cells[1]])
    columns = ["trial and arm"]
    columns += ["λ by accuracy", "τ, epochs", "test acc. %", "sd"]
    columns += ["λ by loss", "τ, epochs", "test loss", "sd"]
    seeds, alpha = scores["seed"].n_unique(), scores["learning_rate"][0]
    return Table(
        f"What validation chose, and its test results: mean of {seeds} seeds",
        columns,
        rows,
        "λ is that of PyTorch and Optax: a step takes α·λ away, so that the paper's λ is α = "
        f"{alpha:g} times this one. τ is the time in which decay alone takes a "
        "weight to 1/e, at the schedule's peak. Shown is the choice of all seeds; the test results "
        "are those of the choices that the even seeds make for the odd ones and the odd for the "
        "even.",
    )


def _choice(row: Mapping) -> list[str]:
    digits, sign = DIGITS[row["metric"]], SIGNS[row["metric"]]
    tau = timescale_from_per_step(row["decay_per_step"], row["steps"])
    return [
        "" if row["family"] == ADAM else f"{row['decay']:g}",
        timescale(tau) if row["family"] == ADAMW else "",
        f"{sign * row['mean']:.{digits}f}",
        "—" if row["sd"] is None else f"{row['sd']:.{digits}f}",
    ]


def trials(table: pl.DataFrame, overfitting: pl.DataFrame) -> Table:
    """How long the trials are, and how far Adam overfits in each."""
    adam = pl.col("family") == ADAM
    measured = (
        choices.last(table)
        .group_by("trial", maintain_order=True)
        .agg(
            pl.first("epochs", "steps"),
            pl.len().alias("runs"),
            pl.col("train_loss").filter(adam).mean(),
            pl.median("seconds"),
        )
    )
    rows = [
        [
            row["trial"],
            f"{row['epochs']}",
            f"{row['epochs'] * row['steps']:,}",
            f"{row['runs']}",
            f"{row['train_loss']:.4f}",
            f"{row['lowest']:.4f}",
            f"{row['last']:.4f}",
            f"{row['seconds']:.2g}",
        ]
        for row in measured.join(overfitting, on="trial", maintain_order="left").to_dicts()
    ]
    return Table(
        "The trials, and how far Adam overfits in each",
        ["trial", "epochs", "steps", "runs", "train loss", "lowest valid. loss",
         "last valid. loss", "s per run"],
        rows,
        "Train loss is the mean over the last epoch's minibatches.",
    )  # fmt: skip

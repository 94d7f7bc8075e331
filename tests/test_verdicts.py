"""The study's analysis, on made-up tables: what is chosen, compared, judged and said."""

import numpy as np
import polars as pl
import pytest
from made_up import arm, measurements

from experiments.harness.statistics import Difference
from experiments.study import choices, verdicts
from experiments.study.report import summarize
from experiments.study.verdicts import DECAY, OVER_ADAM, OVER_L2, OVERFITTING, SCHEDULE, verdict
from experiments.training.arms import ADAM, ADAMW, L2

# (validation, test) by arm.
ACCURACY = {
    arm(ADAM): (0.8, 0.8),
    arm(L2, 0.1): (0.7, 0.9),
    arm(ADAMW, 0.01): (0.83, 0.84),
    arm(ADAMW, 1.0): (0.82, 0.99),
}
LOSS = {
    arm(ADAM): (1.0, 1.0),
    arm(L2, 0.1): (0.9, 0.8),
    arm(ADAMW, 0.01): (1.5, 1.2),
    arm(ADAMW, 1.0): (0.5, 0.6),
}
MATTERS = {"accuracy": 0.2, "loss": 0.01}


def trial(accuracy=ACCURACY, loss=LOSS, schedule="constant", images=100, noise=0.0, seeds=4):
    """The measurements of a trial; seeds differ a little in accuracy."""

    def value(metric, arm, seed, evaluation):
        split, _, name = metric.partition("_")
        if name not in ("accuracy", "loss") or split == "train" or evaluation == 1:
            return 0.25
        column = ("validation", "test").index(split)
        return {"accuracy": accuracy, "loss": loss}[name][arm][column] + (
            0.001 * (-1) ** seed if name == "accuracy" else 0
        )

    task = f"{images:,} images" + (f", {100 * noise:g} % wrong" if noise else "")
    return measurements(accuracy, seeds, value).with_columns(
        trial=pl.lit(f"{task}, {schedule}"),
        task=pl.lit(task),
        schedule=pl.lit(schedule),
        network=pl.lit("mlp"),
        images=pl.lit(images),
        noise=pl.lit(noise),
        epochs=pl.lit(4),
        steps=pl.lit(10),
    )


def chosen(table):
    rows = choices.choose(choices.scores(table)).iter_rows(named=True)
    return {(row["family"], row["metric"]): row["decay"] for row in rows}


def compare(table, talk=(0.01,)):
    scores = choices.scores(table)
    return verdicts.compare(choices.cross_fit(scores), choices.rivals(scores, talk))


def effects(*trials, talk=(0.01,)):
    compared = compare(pl.concat(trials), talk)
    return {
        key: rows["effect"].mean()
        for key, rows in compared.group_by("claim", "where", "metric", maintain_order=True)
    }


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.3, 0.9, "supported"),
        (0.01, 0.9, "supported"),
        (-0.1, 0.9, "undecided"),
        (-0.1, 0.1, "refuted"),
        (0.01, 0.1, "refuted"),  # real, but too small to matter
        (-0.1, -0.01, "refuted"),  # and this
        (-0.9, -0.3, "reversed"),
        (-0.9, -0.01, "reversed"),
        (-np.inf, np.inf, "undecided"),  # a single seed
        (np.nan, np.nan, "diverged"),
    ],
)
def test_a_verdict_is_what_the_interval_says(low, high, says):
    assert verdict(Difference(np.clip(0, low, high), low, high), matters=0.2) == says


def test_decays_are_chosen_by_validation_and_compared_by_test():
    table = trial()
    assert chosen(table)[ADAMW, "accuracy"] == 0.01 and chosen(table)[ADAMW, "loss"] == 1.0
    found, where = effects(table), "100 images, constant"
    # In points of accuracy, and so that less loss is better.
    assert found[OVER_ADAM, where, "accuracy"] == pytest.approx(4)
    assert found[OVER_ADAM, where, "loss"] == pytest.approx(0.4)
    assert found[OVER_L2, where, "accuracy"] == pytest.approx(-6)
    assert found[OVER_L2, where, "loss"] == pytest.approx(0.2)
    # Accuracy would choose the talk's own λ, but another one is asked for.
    assert found[DECAY, f"{where}, against λ = 0.01", "accuracy"] == pytest.approx(15)
    assert found[DECAY, f"{where}, against λ = 0.01", "loss"] == pytest.approx(0.6)


def test_of_equal_decays_the_first_is_chosen_and_one_that_diverged_never():
    alike = {each: (0.5, 0.5) for each in ACCURACY}
    assert chosen(trial(loss=alike))[ADAMW, "loss"] == 0.01
    assert chosen(trial(loss={**alike, arm(ADAMW, 0.01): (np.nan, 0)}))[ADAMW, "loss"] == 1.0


@pytest.mark.parametrize(("seeds", "expected"), [(4, [2.0, 1.0, 2.0, 1.0]), (1, [1.0])])
def test_each_half_of_the_seeds_chooses_for_the_other(seeds, expected):
    """The validation loss is least for the even seeds with one decay, for the odd with another."""
    decays = [arm(ADAMW, 1.0), arm(ADAMW, 2.0)]

    def value(metric, arm, seed, evaluation):
        return abs(arm.decay - 1 - seed % 2) if metric == "validation_loss" else 0.5

    table = measurements(decays, seeds, value).with_columns(trial=pl.lit("a trial"))
    fitted = choices.cross_fit(choices.scores(table)).filter(pl.col("metric") == "loss")
    assert fitted["seed"].to_list() == list(range(seeds))
    assert fitted["decay"].to_list() == expected


def test_overfitting_and_schedule_are_compared_with_their_like():
    better = {**ACCURACY, arm(ADAMW, 0.01): (0.9, 0.94)}
    found = effects(
        trial(),
        trial(better, noise=0.3),
        trial(better, images=50),
        trial(better, schedule="cosine"),
        trial(images=1000),
    )
    grows = {key: value for key, value in found.items() if key[0] in (OVERFITTING, SCHEDULE)}
    in_accuracy = {key[:2]: value for key, value in grows.items() if key[2] == "accuracy"}
    assert in_accuracy == pytest.approx(
        {
            (OVERFITTING, "100 images, constant, against 1,000 right"): 0,
            (OVERFITTING, "100 images, 30 % wrong, constant, against 100 right"): 10,
            (OVERFITTING, "50 images, constant, against 1,000 right"): 10,
            (SCHEDULE, "100 images, cosine"): 10,
        }
    )
    assert all(value == 0 for key, value in grows.items() if key[2] == "loss")


def test_intervals_are_as_wide_as_all_comparisons_together_need():
    compared = compare(trial())
    judgements = verdicts.judge(compared, MATTERS)
    assert len(judgements) == 6  # three claims, two metrics
    effect = compared.filter(
        pl.col("claim") == OVER_ADAM, pl.col("metric") == "accuracy"
    )["effect"].to_numpy()  # fmt: skip
    assert judgements[0].interval == Difference.of(effect, np.zeros(4), comparisons=6)


def test_the_report_says_what_was_found_what_diverged_and_what_is_not_yet_run():
    diverged = (pl.col("weight_decay") == 1.0) & (pl.col("evaluation") == 2)
    table = trial().with_columns(
        pl.when(~diverged).then(pl.col("^(train|validation|test)_.*$")).otherwise(np.nan),
        status=pl.when(pl.col("weight_decay") == 1.0)
        .then(pl.lit("diverged"))
        .otherwise(pl.lit("finished")),
    )
    report = summarize("A title", pl.concat([table, trial(schedule="cosine")]), [0.01], MATTERS,
                       ["another trial"])  # fmt: skip
    said = "\n".join(report.findings)
    assert "It ends at 4.00 times its lowest (100 images)." in said
    assert f"{SCHEDULE}? In test accuracy" in said
    assert "Chosen at an end of what was tried: Adam+L2 0.1 by accuracy (100 images, con" in said
    assert "λ = 1, seed 3, before evaluation 2 (100 images, constant)." in said
    assert "Not yet run: another trial." in said
    _, constant, cosine, *_ = report.tables[1].rows
    # λ = 1 has the least loss, but diverged.
    assert constant[0] == "– 100 images, constant" and constant[4] == "reversed"
    assert cosine[:3] == ["– 100 images, cosine", "+4.00 [+4.00, +4.00]", "supported"]
    chosen = [row for row in report.tables[2].rows if row[0] == "– AdamW"]
    assert chosen[0][:2] == ["– AdamW", "0.01"] and chosen[1][5] == "1"
    assert len(report.data["results"]) == 2 * 4 * 4
    assert [figure.name for figure in report.figures] == ["effects", "decays-1"]

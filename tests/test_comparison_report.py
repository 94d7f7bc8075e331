"""The comparison's analysis, on a made-up table."""

import numpy as np
from made_up import arm, measurements

from experiments.comparison import plots
from experiments.comparison.report import percent, summarize
from experiments.training.arms import ADAM, L2, PER_STEP, TIMES_RATE

ARMS = [
    arm(ADAM), arm(L2, 0.1), arm(L2, 0.2), arm(TIMES_RATE, 0.0), arm(TIMES_RATE, 1.0),
    arm(PER_STEP, 0.001), arm(PER_STEP, 0.5),
]  # fmt: skip
# Test accuracy and loss, and the validation loss that chooses; the last arm diverges.
VALUES = {0.0: (0.8, 1.0, 0.9), 0.1: (0.9, 0.8, 0.7), 0.2: (0.7, 0.6, 0.8), 1e-3: (0.8, 0.5, 0.5)}


def value(metric, arm, seed, evaluation):
    if arm.decay_per_step == 0.5:
        return np.nan
    accuracy, loss, validation = VALUES[0.001 if arm.weight_decay else arm.decay]
    wobble = 0.001 * seed * (arm.l2 > 0)
    return {"test_accuracy": accuracy + wobble, "test_loss": loss + wobble,
            "validation_loss": validation}.get(metric, 0.25)  # fmt: skip


TABLE = measurements(ARMS, 3, value)


def test_every_arm_is_compared_with_adam_and_the_best_of_each_family_is_chosen():
    report = summarize("A title", TABLE, steps_per_epoch=100)
    said = "\n".join(report.findings)
    assert "Adam reaches 80.00 % test accuracy and 1.000 test loss." in said
    assert (
        "test accuracy is higher with Adam+L2 0.1. It is lower with Adam+L2 0.2. It is not "
        "distinguishable with AdamW, times rate 0, 1; AdamW, per step 0.001." in said
    )
    assert "AdamW, per step 0.5 diverged: some of its losses are not finite." in said
    assert "each family: Adam (test 80.00 %, loss 1.000); Adam+L2 0.1 (test 90.10 %" in said
    levels, differences = report.tables
    assert "mean of 3 seeds" in levels.title and "After 2 epochs" in levels.title
    adam, l2, *_, times_rate, per_step, _ = levels.rows
    assert adam[:3] == ["Adam", "", "∞"] and l2[:3] == ["Adam+L2", "0.1", "—"]
    assert times_rate[2:] == per_step[2:] and per_step[2] == "10"
    assert differences.rows[0][:1] == ["Adam+L2 0.1"]
    assert differences.rows[0][1].startswith("+10.10 [+")
    assert "5 different arms" in differences.note
    assert len(report.data["results"]) == len(ARMS) * 3 * 2


def test_without_a_second_seed_less_is_said():
    one = TABLE.filter(TABLE["seed"] == 0)
    report = summarize("A title", one, steps_per_epoch=100)
    assert "More than one seed is needed to tell whether the others differ." in report.findings
    assert report.tables[0].rows[0][7] == "—"  # no deviation of a single seed


def test_arms_that_are_the_same_run_share_a_line():
    labels = [style["label"] for _, style in plots._lines(percent(TABLE))]
    assert labels == [
        "Adam = decay × learning rate (λ = 0)", "Adam+L2 (λ = 0.1)", "Adam+L2 (λ = 0.2)",
        "AdamW, decay × learning rate (λ = 1) = decay per step (λ = 0.001)",
        "AdamW, decay per step (λ = 0.5)",
    ]  # fmt: skip

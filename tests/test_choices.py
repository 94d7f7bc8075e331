"""The study's trials, scores, choices and comparisons, on tables whose answer is known."""

import itertools

import msgspec
import numpy as np
import polars as pl
import pytest

from experiments.harness.settings import SettingsError
from experiments.study import candidates
from experiments.study.evidence import PRIMARY
from experiments.study.tasks import Bench, Task
from experiments.training.arms import ADAM, ADAMW, L2, Arm
from experiments.tuning import choices, comparisons
from experiments.tuning.candidates import CANDIDATE, Candidate
from experiments.tuning.measures import ACCURACY, CALIBRATED, LAST, LOSS, STOPPED, scores

TASK = Task(
    name="all",
    images=0,
    hidden=(8,),
    schedule="cosine",
    epochs=(2, 4, 8),
    l2=(1e-4, 1e-2),
    weight_decay=(0.1, 10.0),
    seeds=3,
)


def bench(**changed):
    task = msgspec.structs.replace(TASK, **changed)
    return Bench(task=task, data="digits", validation=0.25, batch_size=32, every=2)


def test_every_family_has_as_many_trials_and_a_quarter_of_them_are_adams():
    tried = candidates.trials(bench(), (1e-4, 1e-2), 24)
    by_family = {
        family: [c for c in tried if c.arm.family == family] for family in (ADAM, L2, ADAMW)
    }
    assert [len(mine) for mine in by_family.values()] == [24, 24, 24]
    shared = [[(c.arm.learning_rate, c.epochs) for c in mine] for mine in by_family.values()]
    assert shared[0] == shared[1] == shared[2]
    for family, (low, high) in ((L2, TASK.l2), (ADAMW, TASK.weight_decay)):
        decays = [c.arm.decay for c in by_family[family]]
        assert decays[:6] == [0.0] * 6 and all(low <= decay <= high for decay in decays[6:])
    assert {c.epochs for c in tried} == {2, 4, 8}
    rows = candidates.grid(bench(), tried, [7])
    assert len(rows) == 24 + 18 + 18  # Adam's own runs serve all families
    assert {row["seed"] for row in rows} == {7} and {row["floor"] for row in rows} == {0.0}
    assert all(row["first_cycle"] == row["epochs"] * bench().steps for row in rows)


def test_trials_cover_both_axes_evenly():
    tried = candidates.trials(bench(), (1e-4, 1e-2), 24)
    decayed = [c.arm for c in tried if c.arm.family == ADAMW and c.arm.decay]
    rates = np.log10([arm.learning_rate for arm in decayed])
    decays = np.log10([arm.decay for arm in decayed])
    quadrants = np.histogram2d(rates, decays, bins=2, range=[[-4, -2], [-1, 1]])[0]
    assert quadrants.min() >= 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": (3,)}, "every = 2 does not divide 3 epochs"),
        ({"images": 2000}, "images = 2000 is more than the 1078 training images"),
        ({"images": 16}, "batch_size = 32 is more than the 16 training images"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(changed, message):
    with pytest.raises(SettingsError, match=message):
        bench(**changed)


def measured(*runs):
    """A table of runs: (family, decay, epochs, seed, validation accuracies, test accuracies)."""
    rows = []
    for family, decay, epochs, seed, validation, test in runs:
        for i, (chosen_by, seen) in enumerate(zip(validation, test, strict=True), 1):
            both = {"validation": chosen_by, "test": seen}
            rows.append(
                {"family": family, "decay": decay, "learning_rate": 0.1, "epochs": epochs}
                | {"seed": seed, "evaluation": i}
                | {f"{split}_accuracy": value for split, value in both.items()}
                | {f"{split}_loss": 1 - value for split, value in both.items()}
                | {f"{split}_calibrated_loss": (1 - value) / 2 for split, value in both.items()}
            )
    return pl.DataFrame(rows)


def test_a_run_is_read_where_its_validation_score_is_best_and_at_its_end():
    table = measured((ADAM, 0.0, 6, 0, [0.5, 0.8, 0.8, np.nan], [0.4, 0.6, 0.7, np.nan]))
    read = scores(table, every=2)  # six epochs are three evaluations
    rows = {(row["measure"], row["read"]): row for row in read.to_dicts()}
    assert len(rows) == 6
    stopped, last = rows[ACCURACY, STOPPED], rows[ACCURACY, LAST]
    assert (stopped["epoch"], last["epoch"]) == (4, 6)  # the earliest of equals
    assert stopped["test"] == pytest.approx(60) and last["test"] == pytest.approx(70)
    assert rows[LOSS, STOPPED]["test"] == pytest.approx(-0.4)
    assert rows[CALIBRATED, LAST]["test"] == pytest.approx(-0.15)


def test_a_run_that_diverges_is_stopped_before_and_is_the_worst_at_its_end():
    table = measured((ADAM, 0.0, 6, 0, [0.5, 0.8, np.nan], [0.4, 0.6, np.nan]))
    of_accuracy = scores(table, every=2).filter(pl.col("measure") == ACCURACY)
    assert of_accuracy["test"].to_list() == [pytest.approx(60), -np.inf]


def test_the_best_mean_over_the_seeds_is_chosen_separately_by_each_measure():
    table = measured(
        (ADAM, 0.0, 2, 0, [0.7], [0]),
        (ADAMW, 0.1, 2, 0, [0.9], [0]), (ADAMW, 0.1, 2, 1, [0.5], [0]),
        (ADAMW, 0.2, 2, 0, [0.8], [0]), (ADAMW, 0.2, 2, 1, [0.8], [0]),
        (ADAMW, 0.3, 2, 0, [0.8], [0]), (ADAMW, 0.3, 2, 1, [0.8], [0]),
    )  # fmt: skip
    read = scores(table, every=2)
    worst_loss = (pl.col("decay") == 0.2) & (pl.col("measure") == CALIBRATED)
    changed = pl.when(worst_loss).then(-9.0).otherwise(pl.col("validation"))
    chosen = choices.best(read.with_columns(validation=changed), 1)
    found = {(row["family"], row["measure"]): row["decay"] for row in chosen.to_dicts()}
    assert found == {(ADAM, ACCURACY): 0.0, (ADAM, CALIBRATED): 0.0,
                     (ADAMW, ACCURACY): 0.2, (ADAMW, CALIBRATED): 0.3}  # fmt: skip
    assert Candidate(Arm(ADAMW, 0.2, 0.1), 2) in choices.of(chosen)
    settled = choices.settled(read, chosen).filter(pl.col("family") == ADAMW)
    decays = settled.group_by("measure").agg(pl.col("decay").unique())
    assert dict(decays.iter_rows()) == {ACCURACY: [0.2], CALIBRATED: [0.3], LOSS: [0.3]}


def test_the_expected_best_of_n_trials_is_the_mean_over_all_subsets():
    values = [3.0, 1.0, 4.0, 1.5, -np.inf]
    for n, found in enumerate(choices.best_so_far(values), 1):
        subsets = [max(subset) for subset in itertools.combinations(values, n)]
        assert found == pytest.approx(np.mean(subsets))


def settled(differences, task="all", measure=ACCURACY):
    rows = []
    for seed, change in enumerate(differences):
        for family, value in ((ADAM, 80.0), (L2, 80.0), (ADAMW, 80.0 + change)):
            rows.append({"task": task, "family": family, "measure": measure, "read": STOPPED,
                         "seed": seed, "test": value})  # fmt: skip
    return pl.DataFrame(rows)


ASKED = [("all", *comparison) for comparison in PRIMARY]
NOISE = np.random.default_rng(0).normal(0, 0.1, 30)


@pytest.mark.parametrize(
    ("shift", "spread", "verdict"),
    [
        (1.0, 1.0, comparisons.BETTER),
        (-1.0, 1.0, comparisons.WORSE),
        (0.1, 0.3, "better, but negligible"),
        (0.0, 1.0, comparisons.NEGLIGIBLE),
        (0.0, 20.0, comparisons.UNCLEAR),
    ],
)
def test_verdicts(shift, spread, verdict):
    centred = NOISE - NOISE.mean()
    of_measures = [
        settled(shift + spread * centred, measure=measure) for measure in (ACCURACY, CALIBRATED)
    ]
    matters = {ACCURACY: 0.2, CALIBRATED: 0.2}
    judged = comparisons.judge(pl.concat(of_measures), ASKED, matters)
    assert [(j.task, j.ours, j.base, j.measure) for j in judged] == ASKED
    assert {j.verdict for j in judged} == {verdict}
    assert all(j.lead.mean == pytest.approx(shift) for j in judged)


def test_p_values_are_corrected_for_all_comparisons():
    table = pl.concat(settled(0.06 + NOISE, measure=m) for m in (ACCURACY, CALIBRATED))
    (one, *_) = comparisons.judge(table, ASKED, {ACCURACY: 0.2, CALIBRATED: 0.2})
    assert one.p == pytest.approx(3 * one.lead.p)  # three comparisons with the same p


def test_growth_is_over_the_seeds_that_both_leads_have():
    more, less = (comparisons.lead(settled(x), "all", ADAMW, ADAM, ACCURACY)
                  for x in ([1.0, 2.0, 3.0], [0.5, 0.5]))  # fmt: skip
    assert comparisons.growth(more, less).changes == (0.5, 1.5)


def test_candidates_are_told_apart_by_all_that_they_are():
    assert [*Arm._fields[:3], "epochs"] == CANDIDATE


def test_the_trials_stay_the_same_with_every_version_of_scipy():
    arms = [c.arm for c in candidates.trials(bench(), (1e-4, 1e-2), 24) if c.arm.family == ADAMW]
    assert [(arm.learning_rate, arm.decay) for arm in arms[4:8]] == [
        (0.0015, 0.0),
        (0.00015, 0.0),
        (0.0046, 1.4),
        (0.00046, 6.7),
    ]

"""The study's sentences and cards, on made-up measurements: they say what the numbers say."""

import itertools
import tomllib
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from experiments.harness.statistics import Difference
from experiments.study import answer, guesses, plots, tables
from experiments.study.evidence import Evidence
from experiments.study.settings import Settings
from experiments.study.stages import FRESH, TALK, TUNING, Studied
from experiments.study.tasks import Bench
from experiments.training.arms import ADAM, ADAMW, L2
from experiments.tuning.comparisons import BETTER, NEGLIGIBLE, UNCLEAR, WORSE
from experiments.tuning.measures import ACCURACY, CALIBRATED, LAST, LOSS, STOPPED

ROOT = Path(__file__).parents[1]
CONFIG = msgspec.convert(tomllib.loads((ROOT / "configs/study.toml").read_text()), Settings)
CONSTANT, COSINE, NOISY, NOISY_COSINE = CONFIG.tasks
SEEDS = 10
SPREAD = np.linspace(-1, 1, SEEDS)  # whose mean is 0
BETTER_SMALL, WORSE_SMALL = f"{BETTER}, but {NEGLIGIBLE}", f"{WORSE}, but {NEGLIGIBLE}"
# AdamW's lead by verdict, in points, of which 0.3 matter here: its mean and its spread.
LEADS = {
    BETTER: (2.0, 0.1), BETTER_SMALL: (0.1, 0.1), NEGLIGIBLE: (0.0, 0.1), UNCLEAR: (0.0, 5.0),
    WORSE_SMALL: (-0.1, 0.1), WORSE: (-2.0, 0.1),
}  # fmt: skip
# AdamW's lead at the talk's learning rate, in points, by λ; all but 0.3 are the talk's.
TALK_LEADS = {0.001: 0.0, 0.01: 0.0, 0.3: 2.0, 1.0: -1.0, 10.0: -9.0}

# What multiplies these leads where they are not in accuracy.
TALK_SCALES = {(LOSS, LAST): 0.5, (LOSS, STOPPED): 0.25}


def studied(task, leads=None, rises=1.0, talk=TALK_LEADS, seeds=SEEDS, decay=0.03):
    """A task that was measured.

    Args:
      task: the task.
      leads: AdamW's lead by (base, measure, read): its mean and spread; 0 where nothing is given.
      rises: Adam's last validation loss over its lowest.
      talk: by AdamW's λ, by how much it is more accurate than Adam at the talk's learning rate.
      seeds: how many seeds there are.
      decay: what tuning chose for Adam+L2 and AdamW.
    """
    if not talk:
        task = msgspec.structs.replace(task, talk_seeds=0)
    bench = Bench(task=task, data="digits", validation=0.25, batch_size=32, every=5)
    epochs, rows = max(task.epochs), []

    def row(stage, family, lam, rate, measure, read, seed, validation, test):
        rows.append(
            {"stage": stage, "family": family, "decay": lam, "learning_rate": rate}
            | {"epochs": epochs, "seed": seed, "measure": measure, "read": read, "epoch": epochs}
            | {"validation": float(validation), "test": float(test)}
        )

    chosen = {ADAM: 0.0, L2: decay, ADAMW: decay}
    reads = list(itertools.product((ACCURACY, CALIBRATED, LOSS), (STOPPED, LAST)))
    for (measure, read), family, seed in itertools.product(reads, chosen, range(seeds)):
        mean, spread = (leads or {}).get((family, measure, read), (0.0, 0.0))
        # The lead is given by the base, which does worse by as much.
        test = 50 - mean - spread * SPREAD[seed]
        row(FRESH, family, chosen[family], 0.003, measure, read, seed, 0, test)
    for read, loss in ((STOPPED, 1.0), (LAST, rises)):
        row(TUNING, ADAM, 0.0, 0.003, LOSS, read, 1000, -loss, 0)
    for (measure, read), seed in itertools.product(reads, range(seeds)):
        for lam, lead in {0.0: 0.0, **talk}.items() if talk else ():
            family = ADAMW if lam else ADAM
            scaled = lead * TALK_SCALES.get((measure, read), 1.0)
            test = 50 + scaled + (0.01 * SPREAD[seed] if lam else 0)
            row(TALK, family, lam, 0.001, measure, read, seed, lead, test)
    of_chosen = [
        {"family": family, "decay": lam, "learning_rate": 0.003, "epochs": epochs}
        | {"measure": measure, "validation": 0.0}
        for measure, (family, lam) in itertools.product((ACCURACY, CALIBRATED), chosen.items())
    ]
    return Studied(bench, pl.DataFrame(rows), pl.DataFrame(of_chosen), pl.DataFrame())


def primary(constant, cosine=None, **options):
    return Evidence(CONFIG, [studied(CONSTANT, constant, **options), studied(COSINE, cosine)])


@pytest.mark.parametrize("verdicts", [*itertools.combinations_with_replacement(LEADS, 2)])
@pytest.mark.parametrize(
    ("base", "in_words", "sentence"),
    [(ADAM, "Adam", 0), (L2, "Adam with L2", -1)],
)
def test_a_sentence_says_every_verdict_beside_its_own_number(verdicts, base, in_words, sentence):
    evidence = primary(*({(base, ACCURACY, STOPPED): LEADS[verdict]} for verdict in verdicts))
    judged = [j for j in evidence.judgements if (j.base, j.measure) == (base, ACCURACY)]
    assert tuple(j.verdict for j in judged) == verdicts
    said = answer.sentences(evidence)[sentence]
    for j in judged:
        words = answer.SAYS[j.verdict].format(in_words) + ": "
        of_verdict = said[said.index(words) :].partition(";")[0]
        assert f"{answer.shown(j.lead)} points {answer.where(evidence, j.task)}" in of_verdict
    for other in LEADS.keys() - set(verdicts):
        assert answer.SAYS[other].format(in_words) + ":" not in said


def test_an_arm_without_decay_is_named_and_a_choice_at_an_end_is_in_the_table():
    evidence = primary(None, decay=0.0)
    said = answer.sentences(evidence)
    assert said[0].endswith("(Tuning chose no decay for AdamW at a constant rate.)")
    assert said[-1].endswith("(Tuning chose no decay for Adam+L2 at a constant rate.)")
    assert "exactly 0 points at a constant rate" in said[0]
    assert not any("no decay" in sentence for sentence in answer.sentences(primary(None)))
    rows = tables.chosen(primary(None, decay=9.0)).rows
    assert ("– AdamW, by accuracy", "λ high") in [(row[0], row[-1]) for row in rows]


@pytest.mark.parametrize(
    ("before", "after", "gone"),
    [
        ((0.3, 0.01), (0.02, 0.01), True),
        ((0.3, 0.01), (-0.02, 0.01), True),
        ((0.3, 0.01), (0.2, 0.01), False),
        ((0.3, 3.0), (0.02, 0.01), False),  # there may have been no lead
        ((-0.3, 0.01), (0.02, 0.01), False),
        ((0.0, 0.0), (0.0, 0.0), False),
    ],
)
def test_a_lead_in_loss_is_mostly_gone_only_if_there_was_one_and_half_is_gone(before, after, gone):
    of_task = {(ADAM, LOSS, LAST): before, (ADAM, CALIBRATED, STOPPED): after}
    said = answer.sentences(primary(of_task, of_task, talk=None))[1]
    assert said.startswith("Once both stop early")
    assert ("most of AdamW's lead" in said) is gone


def test_with_wrong_labels_the_lead_goes_step_by_step_and_so_it_does_in_the_figure():
    tuned, with_cosine = ({(ADAM, ACCURACY, STOPPED): (mean, 0.1)} for mean in (0.3, -0.05))
    noisy = [studied(NOISY, tuned), studied(NOISY_COSINE, with_cosine)]
    evidence = Evidence(CONFIG, [studied(CONSTANT), studied(COSINE), *noisy])
    said = answer.sentences(evidence)[-2]
    steps = [
        "leads Adam by +2.00 points at",
        "+2.00 if both stop",
        "+0.30 if",
        "; with a cosine it is −0.05",
    ]
    places = [said.index(step) for step in steps]
    assert places == sorted(places) and said.startswith("With 30 % wrong labels")
    (figure,) = plots.remains(evidence)
    drawn = [text.get_text() for axis in figure.figure.axes for text in axis.texts]
    assert drawn[3:] == ["+2.00", "+2.00", "+0.30"] and all(
        text in figure.title for text in drawn[3:]
    )
    assert not plots.remains(Evidence(CONFIG, [studied(CONSTANT, talk=None)]))
    # What λ does with wrong labels is not what the talk saw.
    without = Evidence(CONFIG, [studied(CONSTANT, talk=None), studied(COSINE), *noisy])
    assert not any(each.startswith("The talk's λ") for each in answer.sentences(without))
    assert any(each.startswith("The talk's λ") for each in answer.sentences(evidence))


def test_the_lead_in_loss_goes_step_by_step_from_the_talks_settings_to_the_tuned_ones():
    tuned = {(ADAM, CALIBRATED, STOPPED): (0.03, 0.001)}
    said = answer.sentences(primary(tuned))[2]
    steps = ["by +1.000 at the talk's", "+0.500 if both stop", "+0.0300 ["]
    places = [said.index(step) for step in steps]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("changed", "verdict", "holds", "said"),
    [
        ({}, "right, both ways", True, "do harm (−1.00 and −9.00 points) if they act whole"),
        ({0.3: 0.0}, "right", True, "do next to nothing (+0.00 and +0.00"),  # none would help
        (
            {1.0: 0.0, 10.0: 0.0},
            "right",
            True,
            "do next to nothing (+0.00 and +0.00 points of accuracy) if they act",
        ),
        ({0.3: 0.0, 1.0: 0.0, 10.0: 0.0}, "wrong", False, "next to nothing"),
        ({1.0: 1.0, 10.0: 1.0}, "right", True, "help (+1.00 and +1.00"),
        ({0.001: 1.0, 1.0: 0.0}, "open", None, "change Adam's accuracy by +1.00 and +0.00"),
    ],
)
def test_decays_were_too_small_only_if_a_larger_one_helps(changed, verdict, holds, said):
    evidence = primary(None, talk=TALK_LEADS | changed)
    (card,) = (c for c in guesses.cards(evidence) if c.claim.startswith("(2)"))
    assert (card.verdict, card.holds) == (verdict, holds)
    assert said in answer.sentences(evidence)[1]


def test_a_task_that_does_not_raise_overfitting_is_no_test_of_the_first_guess():
    led = {(ADAM, ACCURACY, read): LEADS[BETTER] for read in (STOPPED, LAST)}
    for rises, verdict in ((1.5, "right"), (1.1, "open")):
        tasks = [studied(CONSTANT, rises=1.2), studied(NOISY, led, rises=rises)]
        card = guesses.cards(Evidence(CONFIG, tasks))[0]
        assert card.verdict == verdict
        assert "20 % (right labels, constant rate)" in card.explanation
    assert card.number == "untested"


def test_a_lead_that_grows_only_at_the_last_epoch_makes_the_first_guess_partly_right():
    tasks = [studied(CONSTANT), studied(NOISY, {(ADAM, ACCURACY, LAST): (2.0, 0.1)}, rises=1.5)]
    card = guesses.cards(Evidence(CONFIG, tasks))[0]
    assert (card.verdict, card.holds) == ("partly right", None)


@pytest.mark.parametrize(
    ("lead", "verdict"),
    [
        *zip(
            LEADS.values(),
            ("right", "hardly right", "wrong", "open", "wrong", "wrong"),
            strict=True,
        )
    ],
)
def test_a_guess_that_a_lead_grows_is_right_if_it_does(lead, verdict):
    growth = Difference.of(lead[0] + lead[1] * SPREAD, 0 * SPREAD)
    assert guesses.grows(growth, 0.3) == verdict


def test_a_run_that_diverged_and_a_single_seed_support_nothing():
    diverged = {(ADAM, measure, LAST): (np.inf, 0.0) for measure in (ACCURACY, LOSS)}
    one = [studied(task, seeds=1) for task in (CONSTANT, COSINE, NOISY)]
    for evidence in Evidence(CONFIG, one), primary(diverged, diverged):
        said = answer.sentences(evidence)
        assert "most of" not in said[2]
        assert not any(c.verdict == "partly right" for c in guesses.cards(evidence))
        assert len(tables.all_of(evidence)) >= 4
    assert answer.sentences(Evidence(CONFIG, one))[0].count("cannot be told from Adam") == 1


def test_a_table_shows_what_the_settings_that_the_other_measure_chose_would_say():
    ahead, behind = (
        studied(CONSTANT, {(L2, ACCURACY, STOPPED): (lead, 0.0)}, decay=decay)
        for lead, decay in ((2.0, 0.03), (-2.0, 0.05))
    )
    both = ahead._replace(
        scores=pl.concat([ahead.scores, behind.scores.filter(pl.col("decay") == 0.05)]),
        chosen=pl.concat(
            each.chosen.filter(pl.col("measure") == by)
            for each, by in ((ahead, ACCURACY), (behind, CALIBRATED))
        ),
    )
    table = tables.otherwise(Evidence(CONFIG, [both]))
    (row,) = (row for row in table.rows if row[0].startswith("AdamW − Adam+L2, accuracy"))
    assert [cell.partition(" ")[0] for cell in row[1:]] == ["+2.00", "−2.00", "+2.00", "−2.00"]
    assert [heading.rpartition(", by ")[2] for heading in table.columns[1:3]] == [
        ACCURACY, CALIBRATED,
    ]  # fmt: skip

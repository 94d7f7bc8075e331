"""The rules that carry a tuned run over to another size: hand-computed numbers, laws, errors."""

import dataclasses
import itertools
import math
import re

import jax.numpy as jnp
import numpy as np
import pytest

import adamw_jax as aj

RUN = aj.TunedRun(
    learning_rate=1e-3,
    weight_decay=0.3,
    batch_size=100,
    examples=60_000,
    epochs=40,
    width=256,
)
TO = {"batch_size": 400, "examples": 120_000, "epochs": 10, "width": 1024}
HYPERPARAMETERS = "learning_rate", "weight_decay", "b1", "b2", "eps"


def values(run):
    return [getattr(run, name) for name in HYPERPARAMETERS]


def test_a_run_knows_its_steps_and_its_decay():
    assert (RUN.steps_per_epoch, RUN.steps) == (600, 24_000)
    assert RUN.decay_per_step == pytest.approx(3e-4)


# By a rule: where to go, and what it makes of one number of RUN, worked out by hand. The decay
# per step is 3e-4, an epoch has 600 steps and the run 24,000.
BY_HAND = [
    ({"batch_size": 400}, ["same α"], "learning_rate", 1e-3),
    ({"batch_size": 400}, ["root of batch"], "learning_rate", 2e-3),
    ({"batch_size": 25}, ["root of batch"], "learning_rate", 5e-4),
    ({"batch_size": 400}, ["linear in batch"], "learning_rate", 4e-3),
    ({"width": 1024}, ["same α over widths"], "learning_rate", 1e-3),
    ({"width": 1024}, ["one over width"], "learning_rate", 2.5e-4),
    ({"batch_size": 400, "width": 1024}, ["root of batch", "one over width"],
     "learning_rate", 5e-4),
    ({"batch_size": 400}, ["root of batch", "same λ"], "weight_decay", 0.3),
    # 3e-4 / 2e-3
    ({"batch_size": 400}, ["root of batch", "same decay per step"], "weight_decay", 0.15),
    # τ = 1/(3e-4·600) epochs, of 150 steps now: 1.2e-3 per step, / 2e-3
    ({"batch_size": 400}, ["root of batch", "same τ"], "weight_decay", 0.6),
    ({"batch_size": 400}, ["linear in batch", "same τ"], "weight_decay", 0.3),
    ({"examples": 120_000}, ["same τ"], "weight_decay", 0.15),
    ({"epochs": 10}, ["same τ"], "weight_decay", 0.3),
    ({"epochs": 10}, ["same share of run"], "weight_decay", 1.2),
    ({"batch_size": 400}, ["same α", "same share of run"], "weight_decay", 1.2),
    # 24,000 steps become 6,000: twice the decay per step, at twice the rate
    ({"batch_size": 400}, ["root of batch", "same normalized decay"], "weight_decay", 0.3),
    ({"epochs": 10}, ["same normalized decay"], "weight_decay", 0.6),
    # independent decay: a quarter of the rate, four times the λ
    ({"width": 1024}, ["one over width", "same decay per step"], "weight_decay", 1.2),
    ({"width": 1024}, ["one over width", "same λ"], "weight_decay", 0.3),
    ({"width": 1024}, ["one over width", "root of width"], "weight_decay", 0.6),
    ({"batch_size": 400}, ["same averages"], "b2", 0.999),
    ({"batch_size": 400}, ["same half-life"], "b2", 0.996005996001),  # 0.999⁴
    ({"batch_size": 50}, ["same half-life"], "b2", math.sqrt(0.999)),
    ({"batch_size": 400}, ["same half-life"], "b1", 0.9),
    ({"batch_size": 400}, ["SDE"], "b2", 0.996),
    ({"batch_size": 400}, ["SDE"], "b1", 0.6),
    ({"batch_size": 400}, ["SDE"], "eps", 5e-9),
]  # fmt: skip


@pytest.mark.parametrize(("to", "rules", "name", "expected"), BY_HAND)
def test_every_rule_gives_what_its_paper_says(to, rules, name, expected):
    report = aj.scaling_report(RUN, **to)
    kinds = {rule.name: rule.gives for rule in report.rules}
    given = {kinds[rule] for rule in rules}
    rest = [names[0] for kind, names in report.kinds.items() if kind not in given]
    assert getattr(report.run(*rules, *rest), name) == pytest.approx(expected, rel=1e-12)


def test_every_rule_is_worked_out_by_hand():
    assert {rule.name for rule in aj.scaling_report(RUN, **TO).rules} == {
        rule for _, rules, _, _ in BY_HAND for rule in rules
    }


def test_the_normalized_decay_is_the_conversions():
    new = aj.scaling_report(RUN, epochs=10).run("same normalized decay")
    old_norm, new_norm = (
        aj.normalized_from_per_step(run.decay_per_step, run.batch_size, run.examples, run.epochs)
        for run in (RUN, new)
    )
    assert new_norm == pytest.approx(old_norm, rel=1e-12)


def test_to_the_same_size_every_rule_leaves_the_run_as_it_is():
    report = aj.scaling_report(RUN, batch_size=100, width=256)
    assert list(report.kinds) == ["decay"]
    for run in report.runs.values():
        np.testing.assert_allclose(values(run), values(RUN), rtol=1e-12)
    assert "Nothing changes" in str(report)


def test_scaling_twice_is_scaling_once_and_back_is_the_identity():
    middle = {"batch_size": 200, "examples": 90_000, "epochs": 20, "width": 512}
    there, direct = aj.scaling_report(RUN, **middle), aj.scaling_report(RUN, **TO)
    assert len(direct.runs) == 3 * 2 * 6 * 3
    for names, run in direct.runs.items():
        half = there.run(*names)
        again = aj.scaling_report(half, **TO).run(*names)
        back = aj.scaling_report(half, batch_size=100, examples=60_000, epochs=40, width=256)
        np.testing.assert_allclose(values(again), values(run), rtol=1e-12)
        np.testing.assert_allclose(values(back.run(*names)), values(RUN), rtol=1e-12)
        for name, size in TO.items():
            assert getattr(run, name) == size


def test_the_names_may_come_in_any_order():
    report = aj.scaling_report(RUN, batch_size=400)
    names = "root of batch", "same τ", "same half-life"
    for order in itertools.permutations(names):
        assert report.run(*order) == report.run(*names)


def test_what_does_not_change_has_no_rule():
    assert list(aj.scaling_report(RUN, epochs=10).kinds) == ["decay"]
    assert "root of width" not in aj.scaling_report(RUN, batch_size=400).kinds["decay"]
    assert list(aj.scaling_report(RUN, width=512).kinds) == ["rate over widths", "decay"]


def test_no_decay_stays_none():
    report = aj.scaling_report(dataclasses.replace(RUN, weight_decay=0), **TO)
    assert {run.weight_decay for run in report.runs.values()} == {0}


def test_the_report_shows_every_rule_with_its_source_and_every_number():
    report = aj.scaling_report(RUN, batch_size=400, width=1024)
    shown = str(report)
    for rule in report.rules:
        assert rule.formula in shown
        if rule.found:
            note = " ".join(shown[shown.index(f"\n{rule.name}: ") :].split())
            assert note.startswith(f"{rule.name}: {rule.source}. Assumes: {rule.assumes}. Found in")
            assert re.search(r"\d{4}\.\d{4,5}", rule.source)
    for run in report.runs.values():
        for number in run.learning_rate, run.weight_decay, run.eps:
            assert f" {number:.4g} " in shown.replace("\n", " ")
    assert max(map(len, shown[shown.index("Assumes") :].splitlines())) <= 100


def test_a_batch_too_large_for_the_sde_is_said_and_not_filled_in():
    report = aj.scaling_report(RUN, batch_size=2000)
    assert re.search(r"\nSDE +— +— +— ", str(report))
    assert not any("SDE" in names for names in report.runs)
    with pytest.raises(ValueError, match="'SDE' has no b1 for 20 times the batch size"):
        report.run("same α", "same λ", "SDE")


BAD = [
    ({"learning_rate": 0}, "learning_rate must be a number in (0, ∞), got 0"),
    ({"weight_decay": -0.1}, "weight_decay must be a number in [0, ∞), got -0.1"),
    ({"batch_size": math.nan}, "batch_size must be a number in (0, ∞), got nan"),
    ({"examples": "all"}, "examples must be a number in (0, ∞), got 'all'"),
    ({"epochs": 0}, "epochs must be a number in (0, ∞), got 0"),
    ({"width": -1}, "width must be a number in (0, ∞), got -1"),
    ({"b1": 1.0}, "b1 must be a number in [0, 1), got 1.0"),
    ({"b2": 2}, "b2 must be a number in [0, 1), got 2"),
    ({"eps": -1e-8}, "eps must be a number in [0, ∞), got -1e-08"),
    ({"batch_size": 70_000}, "batch_size must be at most the number of examples, 60000"),
    ({"epochs": jnp.arange(2.0)}, "epochs must be a 0-d array of numbers"),
]


@pytest.mark.parametrize(("changed", "message"), BAD)
def test_a_run_that_cannot_be_is_refused_by_the_name_of_the_argument(changed, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(RUN, **changed)
    (name,) = changed
    if name in TO:
        with pytest.raises(ValueError, match=re.escape(message)):
            aj.scaling_report(RUN, **changed)


def test_a_width_needs_a_width():
    with pytest.raises(ValueError, match="width = 512 needs the tuned run's width"):
        aj.scaling_report(dataclasses.replace(RUN, width=None), width=512)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["sqrt", "same τ", "SDE"], "no rule is called 'sqrt' here; there are same α, root of"),
        (["root of batch", "same τ"], "run takes the names of one rule each for rate over batch"),
        (["same α", "root of batch", "SDE"], "got 'same α', 'root of batch', 'SDE'"),
        ([], "got none"),
    ],
)
def test_a_run_by_rules_takes_one_of_each_kind(names, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        aj.scaling_report(RUN, batch_size=400).run(*names)


def test_numpy_and_jax_scalars_are_numbers():
    run = dataclasses.replace(RUN, learning_rate=jnp.float32(0.5), batch_size=np.int64(100))
    assert (run.learning_rate, run.batch_size) == (0.5, 100.0)
    assert type(run.learning_rate) is type(run.batch_size) is float

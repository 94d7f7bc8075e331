"""How fast the report says that parameters decay, by hand and against real steps."""

import math

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from cases import CASES
from report_rows import HALVED, PARAMS, rows_of, taken_away

import adamw_jax as aj


def decays(tx, params=PARAMS, **options):
    return {path: row.decay_per_step for path, row in rows_of(tx, params, **options).items()}


def check_against_a_real_step(tx, params, step=0):
    real, reported = taken_away(tx, params, step), decays(tx, params, step=step)
    assert reported.keys() == real.keys()
    for path, decay in reported.items():
        np.testing.assert_allclose(real[path], decay, rtol=1e-3, atol=3e-6, err_msg=path)


# How fast: what a step takes away of every parameter, by hand.
BY_LEARNING_RATE = {"weight_decay": 0.5}
PER_STEP = {"decay_per_step": 0.02, "schedule": 0.5}
TAKEN_AWAY = {
    "none at all": (aj.adam(0.1), 0),
    "zero": (aj.adamw(0.1, weight_decay=0), 0),
    "adamw": (aj.adamw(0.1, **BY_LEARNING_RATE), 0.05),
    "cautious": (aj.cautious_adamw(0.1, **BY_LEARNING_RATE), 0.05),
    "proximal": (aj.adam_prox(0.1, **BY_LEARNING_RATE), 0.05 / 1.05),
    "proximal, larger than one": (aj.adam_prox(1.0, weight_decay=4.0), 0.8),
    "per step": (aj.decayed_per_step(aj.adam(0.1), **PER_STEP), 0.01),
    "sgdw": (aj.sgdw(0.1, **PER_STEP), 0.01),
    "adamwr": (aj.adamwr(0.1, 4, normalized_decay=0.05), 0.025),
    "L2 in plain descent": (aj.chain(aj.l2_regularization(0.5), aj.gd(0.1)), 0.05),
    "L2 before momentum": (aj.chain(aj.l2_regularization(0.5), aj.momentum_gd(0.1, 0.8)), 0.01),
    "twice": (aj.decayed_per_step(optax.adamw(0.1, **BY_LEARNING_RATE), 0.02), 0.07),
    "with an average": (
        aj.chain(aj.adamw(0.1, **BY_LEARNING_RATE), aj.temporal_average(0.9)),
        0.05,
    ),
    "optax.adamw": (optax.adamw(0.1, **BY_LEARNING_RATE), 0.05),
    "optax.sgd": (optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1)), 0.05),
    "after clipping": (
        optax.chain(optax.clip_by_global_norm(1.0), aj.adamw(0.1, **BY_LEARNING_RATE)),
        0.05,
    ),
    "inject_hyperparams": (optax.inject_hyperparams(aj.adamw)(0.1, **BY_LEARNING_RATE), 0.05),
    "apply_if_finite": (optax.apply_if_finite(aj.adamw(0.1, **BY_LEARNING_RATE), 3), 0.05),
}


@pytest.mark.parametrize("tx, expected", TAKEN_AWAY.values(), ids=TAKEN_AWAY)
def test_decays_and_timescales_are_what_a_step_takes_away(tx, expected):
    for row in rows_of(tx).values():
        np.testing.assert_allclose(row.decay_per_step, expected, rtol=1e-5)
        timescale = 1 / expected if expected else math.inf
        np.testing.assert_allclose(row.timescale, timescale, rtol=1e-5)
    check_against_a_real_step(tx, PARAMS)


@pytest.mark.parametrize("case", [c for c in CASES if "learning_rate" in c.numbers], ids=str)
def test_every_optimizer_is_reported_as_a_real_step_has_it(case):
    tx = case.tx()
    if case.name != "adam_l2":
        return check_against_a_real_step(tx, PARAMS)
    # Scaled, a decay is not a fraction: it takes the same from small parameters as from large ones.
    assert all(map(math.isnan, decays(tx).values()))
    once, twice = (taken_away(tx, jax.tree.map(lambda x, n=n: n * x, PARAMS)) for n in (1, 2))
    np.testing.assert_allclose(once["layer/kernel"], 2 * twice["layer/kernel"], rtol=1e-3)


MASKED = {
    "by rule": aj.adamw(0.1, **BY_LEARNING_RATE, mask=aj.decay_except()),
    "by function": aj.adamw(
        0.1,
        **BY_LEARNING_RATE,
        mask=lambda tree: {"embed": False, "layer": {"kernel": True, "bias": False}},
    ),
    "optax.masked": optax.masked(aj.adamw(0.1, **BY_LEARNING_RATE), aj.decay_except()),
    "optax.adamw": optax.adamw(0.1, **BY_LEARNING_RATE, mask=aj.decay_except()),
    "group": aj.partition({"*/kernel": aj.adamw(0.1, **BY_LEARNING_RATE), "*": optax.adam(0.1)}),
}


@pytest.mark.parametrize("tx", MASKED.values(), ids=MASKED)
def test_masks_of_every_kind_show(tx):
    got = decays(tx)
    np.testing.assert_allclose(got.pop("layer/kernel"), 0.05, rtol=1e-5)
    assert got == {"embed/embedding": 0, "layer/bias": 0}
    assert str(aj.decay_report(tx, PARAMS)).endswith("1 of 3 arrays decay: 4 of 12 numbers")


SCALED = {
    "adam_l2": aj.adam_l2(0.1, l2=0.5),
    "rmsprop": aj.chain(aj.l2_regularization(0.5), aj.rmsprop(0.1)),
    "Lion's sign": aj.chain(aj.l2_regularization(0.5), aj.lion(0.1)),
    "optax": optax.chain(optax.add_decayed_weights(0.5), optax.adam(0.1)),
}


@pytest.mark.parametrize("tx", SCALED.values(), ids=SCALED)
def test_l2_inside_an_adaptive_scaling_is_marked_as_no_fraction(tx):
    report = aj.decay_report(tx, PARAMS)
    for row in report.rows:
        assert math.isnan(row.decay_per_step) and math.isnan(row.timescale)
    *table, note = str(report).splitlines()
    assert all(line.endswith("  ?") for line in table[2:-1]) and note.startswith("?: ")


# η and λ at a step, in both conventions; a schedule for each.
SCHEDULED = {
    "learning rate": (aj.adamw(HALVED, weight_decay=0.1), 0.1),
    "weight_decay": (aj.adamw(1.0, weight_decay=lambda step: 0.1 * HALVED(step)), 0.1),
    "optax.adamw": (optax.adamw(HALVED, weight_decay=0.1), 0.1),
    "per step": (aj.decayed_per_step(aj.adam(0.1), 0.1, HALVED), 0.1),
    "group": (aj.partition({"*": aj.adamw(HALVED, weight_decay=0.1)}), 0.1),
    "sgdw": (aj.sgdw(0.1, decay_per_step=0.1, schedule=HALVED), 0.1),
}


@pytest.mark.parametrize("tx, start", SCHEDULED.values(), ids=SCHEDULED)
@pytest.mark.parametrize("step", [0, 5, 10])
def test_schedules_are_seen_at_a_step(tx, start, step):
    for decay in decays(tx, step=step).values():
        np.testing.assert_allclose(decay, start * (1 - step / 10), rtol=1e-5, atol=1e-9)
    check_against_a_real_step(tx, PARAMS, step)


def test_warm_restarts_are_seen_at_a_step():
    tx = aj.adamwr(0.1, 2, 2, normalized_decay=0.05)
    for step, eta, length in (0, 1, 2), (1, 0.5, 2), (2, 1, 4), (4, 0.5, 4), (6, 1, 8):
        np.testing.assert_allclose(
            list(decays(tx, step=step).values()), eta * 0.05 / length**0.5, rtol=1e-4
        )


def test_injected_schedules_are_seen_at_a_step():
    tx = optax.inject_hyperparams(aj.adamw)(HALVED, weight_decay=0.1)
    np.testing.assert_allclose(list(decays(tx, step=5).values()), 0.05, rtol=1e-5)


@pytest.mark.parametrize("steps, unit", [(None, "steps"), (10, "epochs"), (0.5, "epochs")])
def test_timescales_are_in_epochs_where_their_length_is_given(steps, unit):
    report = aj.decay_report(aj.adamw(0.1, weight_decay=0.5), PARAMS, steps_per_epoch=steps)
    assert report.unit == unit and f"τ in {unit}" in str(report).splitlines()[0]
    np.testing.assert_allclose([r.timescale for r in report.rows], 20 / (steps or 1), rtol=1e-5)


# What is not a fraction of the parameters


def test_without_eps_a_step_without_a_gradient_is_undefined():
    report = aj.decay_report(aj.adamw(0.1, eps=0), PARAMS)
    assert all(np.isnan(row.decay_per_step) for row in report.rows)
    assert "eps = 0" in str(report)


def test_a_decay_too_large_for_the_dtype_is_undefined():
    assert all(map(math.isnan, decays(aj.adamw(1e30, weight_decay=1e30)).values()))


def test_functions_of_an_equinox_module_are_named_as_what_is_in_the_way():
    network = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="activation.*Leave them out"):
        decays(aj.gd(0.1), network)


def test_what_grows_does_not_decay():
    # A sign forgotten: optax.add_decayed_weights without the minus of the learning rate.
    report = aj.decay_report(optax.add_decayed_weights(0.1), PARAMS)
    for row in report.rows:
        np.testing.assert_allclose(row.decay_per_step, -0.1, rtol=1e-6)
        assert math.isnan(row.timescale)
    *table, total = str(report).splitlines()
    assert all("  grows   -0.1" in line and "nan" not in line for line in table[2:])
    assert total == "0 of 3 arrays decay: 0 of 12 numbers"

"""The report of weight decay over a run, against float64 products and runs of real steps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from report_rows import PARAMS

import adamw_jax as aj

STEPS = 300
COSINE = optax.cosine_decay_schedule(0.02, STEPS)
WARM_UP = optax.warmup_cosine_decay_schedule(0.0, 0.02, 50, STEPS)
RESTARTS = aj.cosine_warm_restarts(20, 2)


def cosine(t, steps=STEPS):
    return 0.5 + 0.5 * math.cos(math.pi * t / steps)


def warm_up(t):
    return t / 50 if t < 50 else cosine(t - 50, STEPS - 50)


def cycle(t, length=20):
    """The steps since the restart, and the length of the cycle."""
    return (t, length) if t < length else cycle(t - length, 2 * length)


def per_step(schedule):
    return aj.decayed_per_step(aj.adam(0.1), 0.02, schedule)


# Optimizers, and what they take away in step t, in both conventions.
RUNS = {
    "constant": (aj.adamw(0.02, weight_decay=0.5), lambda t: 0.01),
    "constant, per step": (aj.decayed_per_step(aj.adam(COSINE), 0.01), lambda t: 0.01),
    "cosine": (aj.adamw(COSINE, weight_decay=0.5), lambda t: 0.01 * cosine(t)),
    "cosine, per step": (per_step(lambda t: 50 * COSINE(t)), lambda t: 0.02 * cosine(t)),
    "warm-up": (aj.adamw(WARM_UP, weight_decay=0.5), lambda t: 0.01 * warm_up(t)),
    "Optax": (optax.adamw(WARM_UP, weight_decay=0.5), lambda t: 0.01 * warm_up(t)),
    "restarts": (per_step(RESTARTS), lambda t: 0.02 * cosine(*cycle(t))),
    "adamwr": (
        aj.adamwr(0.1, 20, 2, normalized_decay=0.05),
        lambda t: 0.05 / cycle(t)[1] ** 0.5 * cosine(*cycle(t)),
    ),
    "both scheduled": (
        aj.adamw(COSINE, weight_decay=lambda t: 25 * COSINE(t)),
        lambda t: 0.01 * cosine(t) ** 2,
    ),
    "proximal": (aj.adam_prox(COSINE, weight_decay=0.5), lambda t: 1 - 1 / (1 + 0.01 * cosine(t))),
    "Muon": (aj.muon(COSINE, weight_decay=0.5), lambda t: 0.01 * cosine(t)),
    "injected": (
        optax.inject_hyperparams(aj.adamw)(COSINE, weight_decay=0.5),
        lambda t: 0.01 * cosine(t),
    ),
}


def rows_over(tx, params=PARAMS, steps=STEPS, **options):
    rows = aj.decay_report(tx, params, steps=steps, **options).rows
    return {row.path: row for row in rows}


def least_share(taken):
    """By its definition: how many of the largest make 90 %."""
    sums = [sum(sorted(taken, reverse=True)[:n]) for n in range(len(taken) + 1)]
    return min(n for n, s in enumerate(sums) if s >= 0.9 * sums[-1] * (1 - 1e-6)) / len(taken)


@pytest.mark.parametrize("tx, fraction", RUNS.values(), ids=RUNS)
def test_a_run_takes_away_the_product_of_its_schedules(tx, fraction):
    taken = np.array([fraction(t) for t in range(STEPS)])
    for row in rows_over(tx, steps_per_epoch=10).values():
        run = row.over_run
        assert run.per_step.dtype == np.float64
        np.testing.assert_allclose(run.per_step, taken, rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(run.remaining, np.prod(1 - taken), rtol=1e-5)
        np.testing.assert_allclose(row.decay_per_step, taken.max(), rtol=1e-5)
        np.testing.assert_allclose(row.timescale, 0.1 / taken.max(), rtol=1e-5)
        np.testing.assert_allclose(run.timescale_at_end, 0.1 / taken[-1], rtol=1e-2)
        np.testing.assert_allclose(run.share, least_share(taken), atol=1.01 / STEPS)


def test_decay_acts_in_fewer_steps_the_steeper_it_falls():
    names = "constant", "cosine", "both scheduled"
    share = {name: rows_over(RUNS[name][0])["layer/bias"].over_run.share for name in names}
    assert share["constant"] == 0.9
    assert aj.DecayOverRun(np.full(200, 0.1), 10.0).share == 0.9  # though no sum of these is exact
    # The solution s of s + sin(πs)/π = 0.9, the share of a cosine that has 90 % of its area.
    np.testing.assert_allclose(share["cosine"], 0.5962, atol=2 / STEPS)
    assert share["both scheduled"] < share["cosine"] < share["constant"]


def test_a_run_without_gradients_leaves_what_the_report_says():
    tx = aj.partition(
        {
            "embed/*": aj.adamw(WARM_UP, weight_decay=2.0),
            "*": aj.chain(per_step(RESTARTS), aj.temporal_average(0.9)),
        }
    )
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(zeros, state, params)
        return (optax.apply_updates(params, updates), state), None

    (after, _), _ = jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), length=STEPS)
    left = {path: row.over_run.remaining for path, row in rows_over(tx).items()}
    ratios = jax.tree.map(lambda new, old: new / old, after, PARAMS)
    np.testing.assert_allclose(ratios["embed"]["embedding"], left["embed/embedding"], rtol=1e-4)
    np.testing.assert_allclose(ratios["layer"]["kernel"], left["layer/kernel"], rtol=1e-4)
    assert 0.01 < left["layer/kernel"] != left["embed/embedding"] < 0.99


def test_what_is_left_out_remains_whole():
    rows = rows_over(aj.adamw(COSINE, weight_decay=0.5, mask=aj.decay_except()))
    assert rows["layer/kernel"].over_run.remaining < 0.5
    for path in "layer/bias", "embed/embedding":
        run = rows[path].over_run
        assert (run.remaining, run.share, run.timescale_at_end) == (1.0, 0.0, math.inf)
        assert not run.per_step.any()


def test_a_run_may_begin_later():
    tx, _ = RUNS["restarts"]
    whole, rest = rows_over(tx), rows_over(tx, step=100, steps=STEPS - 100)
    for path, row in rest.items():
        np.testing.assert_array_equal(row.over_run.per_step, whole[path].over_run.per_step[100:])


def test_a_run_of_one_step_is_that_step():
    tx, _ = RUNS["cosine"]
    (row, *_) = rows_over(tx, step=7, steps=1).values()
    (alone, *_) = aj.decay_report(tx, PARAMS, step=7).rows
    assert alone.over_run is None
    assert row.over_run.per_step.tolist() == [alone.decay_per_step] == [row.decay_per_step]


def test_a_parameter_that_grows_is_left_larger():
    tx = optax.chain(optax.add_decayed_weights(-0.1), optax.sgd(1.0))
    for row in rows_over(tx, steps=10).values():
        np.testing.assert_allclose(row.over_run.remaining, 1.1**10, rtol=1e-5)
        assert math.isnan(row.over_run.share) and math.isnan(row.over_run.timescale_at_end)
    lines = str(aj.decay_report(tx, PARAMS, steps=10)).splitlines()
    assert lines[2].split() == ["embed/embedding", "embedding", "3×2", "grows", "-0.1", "2.59"]


# Where a run is not the product of its steps
NO_FRACTION = {
    "L2 inside Adam": aj.adam_l2(0.1, l2=0.5),
    "L2 under momentum": aj.chain(aj.l2_regularization(0.5), aj.momentum_gd(0.1, 0.8)),
    "Schedule-Free": aj.schedule_free_adamw(0.1, weight_decay=0.5),
}


@pytest.mark.parametrize("tx", NO_FRACTION.values(), ids=NO_FRACTION)
def test_a_decay_with_a_memory_is_marked_as_no_fraction(tx):
    report = aj.decay_report(tx, PARAMS, steps=20)
    for row in report.rows:
        numbers = row.decay_per_step, row.timescale, row.over_run.remaining, row.over_run.share
        assert all(map(math.isnan, numbers))
    *table, _, _, note = str(report).splitlines()
    assert all(line.endswith("  ?") for line in table[2:])
    assert note.endswith("or depends on the steps before, as with L2 under momentum")


# Where a single number in the place of an array would not do


def test_a_mask_by_size_is_seen():
    larger = lambda tree: jax.tree.map(lambda p: p.size > 2, tree)  # noqa: E731
    rows = rows_over(aj.adamw(COSINE, weight_decay=0.5, mask=larger))
    decays = {path for path, row in rows.items() if row.over_run.remaining < 0.5}
    assert decays == {"embed/embedding", "layer/kernel"}
    assert rows["layer/bias"].over_run.remaining == 1


def test_a_limit_that_large_arrays_exceed_is_seen():
    limit = optax.chain(aj.adamw(COSINE, weight_decay=0.5), optax.clip_by_global_norm(0.05))
    assert all(row.over_run.remaining > 0 for row in rows_over(limit, {"w": jnp.ones(2)}).values())
    (row,) = rows_over(limit, {"w": jnp.ones(100)}).values()
    np.testing.assert_allclose(row.decay_per_step, 0.01, rtol=1e-4)
    np.testing.assert_allclose(row.up_to, 0.05 / 0.01 / 100**0.5, rtol=1e-3)


def test_a_model_that_a_step_would_fill_the_memory_with_is_measured_in_ten_thousand():
    params = {"kernel": jax.ShapeDtypeStruct((10**7, 10**7), jnp.float32), "frozen": None}
    (row,) = rows_over(aj.adamw(0.01, weight_decay=0.01), params, steps=10_000).values()
    assert row.shape == (10**7, 10**7)
    np.testing.assert_allclose(row.over_run.remaining, (1 - 1e-4) ** 10_000, rtol=1e-5)


def test_a_step_that_computes_much_is_taken_only_where_most_decays():
    # In all ten thousand steps, these products would take an hour.
    product = optax.stateless(lambda u, p: jax.tree.map(lambda u: u + u @ u, u))
    tx = aj.chain(product, aj.adamw(COSINE, weight_decay=0.5))
    (row,) = rows_over(tx, {"kernel": jnp.ones((1024, 1024))}, steps=10_000).values()
    assert row.over_run.remaining < 0.5


def test_prints_as_a_table():
    tx = aj.adamw(optax.linear_schedule(0.1, 0.0, 4), weight_decay=0.5, mask=aj.decay_except())
    report = aj.decay_report(tx, PARAMS["layer"], steps=5, steps_per_epoch=2)
    assert str(report) == (
        "parameter  kind    shape  decays  largest λ  τ in epochs  τ at the end  remains  acts in  "
        "why\n"
        "---------  ------  -----  ------  ---------  -----------  ------------  -------  -------  "
        "------------------------\n"
        "bias       bias    2      no                                                              "
        "left out by kind('bias')\n"
        "kernel     weight  2×2    yes     0.05       10           ∞             0.88     60%      "
        "not left out\n"
        "1 of 2 arrays decay: 4 of 6 numbers\n"
        "Over 5 steps: λ and τ in the step that takes most, τ in the last, what decay alone "
        "leaves, and the share of the steps that have 90 % of the decay"
    )


@pytest.mark.parametrize("bad", [0, -1, 2**31, 10.0, "10"], ids=repr)
def test_steps_are_a_whole_number(bad):
    with pytest.raises(ValueError, match=r"^steps must be a whole number in \[1, 2³¹") as caught:
        aj.decay_report(aj.adamw(0.1), PARAMS, step=1, steps=bad)
    assert str(caught.value).endswith(f"got {bad!r}")

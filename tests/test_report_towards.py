"""The report of decays towards other points than zero, and of those that larger weights outgrow."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj

PARAMS = {"kernel": jnp.full((2, 3), 0.7), "scale": jnp.full(3, -0.3)}
STEPS = 200
COSINE = optax.cosine_decay_schedule(0.02, STEPS)
DOWN = aj.scale_by_learning_rate(COSINE)
λ = 0.5


def with_pull(pull):
    added = optax.stateless_with_tree_map(lambda u, w: u + λ * pull(w))
    return aj.chain(aj.scale_by_adam(), added, DOWN)


def kept_first(params):
    return jax.tree.map(jnp.copy, params)


def towards_kept(updates, first, params):
    return jax.tree.map(lambda u, w, c: u + λ * (w - c), updates, params, first), first


KEPT = aj.chain(aj.scale_by_adam(), optax.GradientTransformation(kept_first, towards_kept), DOWN)
ONE = aj.chain(aj.scale_by_adam(), with_pull(lambda w: w - 1))
HUBER = with_pull(lambda w: jnp.clip(w, -0.2, 0.2))


def left_after_moving(tx, moved, steps=STEPS):
    """The parameters after steps without gradients that begin at other ones than the state."""
    zeros, state = jax.tree.map(jnp.zeros_like, PARAMS), tx.init(PARAMS)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(zeros, state, params)
        return (optax.apply_updates(params, updates), state), None

    (after, _), _ = jax.lax.scan(step, (moved, state), length=steps)
    return after


@pytest.mark.parametrize(
    "tx, towards, centers",
    [
        (with_pull(lambda w: w - 1), "fixed weights", {"kernel": 1, "scale": 1}),
        (KEPT, "earlier weights", {"kernel": 0.7, "scale": -0.3}),
        (aj.adamw(COSINE, weight_decay=λ), "zero", {"kernel": 0, "scale": 0}),
    ],
    ids=["one", "kept at init", "zero"],
)
def test_a_run_without_gradients_leaves_that_part_of_the_distance(tx, towards, centers):
    moved = jax.tree.map(lambda w: 2 * w, PARAMS)
    after = left_after_moving(tx, moved)
    for row in aj.decay_report(tx, PARAMS, steps=STEPS).rows:
        assert (row.towards, row.up_to) == (towards, math.inf)
        left = (after[row.path] - centers[row.path]) / (moved[row.path] - centers[row.path])
        np.testing.assert_allclose(left, row.over_run.remaining, rtol=1e-4)
        assert 0.1 < row.over_run.remaining < 0.5


def test_weights_within_the_limit_of_hubers_decay_shrink_by_its_fraction_and_larger_ones_less():
    small, large = ({"kernel": jnp.full((2, 3), w), "scale": jnp.ones(3)} for w in (0.19, 2.0))
    (row, _) = aj.decay_report(HUBER, PARAMS, steps=STEPS).rows
    np.testing.assert_allclose(row.up_to, 0.2, rtol=1e-4)
    left = left_after_moving(HUBER, small)["kernel"] / small["kernel"]
    np.testing.assert_allclose(left, row.over_run.remaining, rtol=1e-4)
    # A large one loses what one at the limit would, in every step.
    lost = large["kernel"] - left_after_moving(HUBER, large)["kernel"]
    np.testing.assert_allclose(lost, row.up_to * row.over_run.per_step.sum(), rtol=1e-4)


@pytest.mark.parametrize("limit", [0.02, 1.5, 30.0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_limit_is_found_wherever_it_is(limit, dtype):
    tx = aj.chain(aj.scale_by_adam(), with_pull(lambda w: jnp.clip(w, -limit, limit)))
    (row,) = aj.decay_report(tx, {"w": jnp.ones(2, dtype)}).rows
    np.testing.assert_allclose((row.decay_per_step, row.up_to), (0.01, limit), rtol=0.02)


def test_an_average_for_evaluation_pulls_nothing():
    tx = aj.chain(aj.adamw(COSINE, weight_decay=λ), aj.temporal_average(0.9))
    plain, averaged = (
        aj.decay_report(t, PARAMS, steps=20) for t in (aj.adamw(COSINE, weight_decay=λ), tx)
    )
    assert {row.towards for row in averaged.rows} == {"zero"}
    for row, other in zip(plain.rows, averaged.rows, strict=True):
        np.testing.assert_array_equal(row.over_run.per_step, other.over_run.per_step)


def test_an_optimizers_own_copy_of_the_parameters_is_no_decay_towards_them():
    params = jax.tree.map(lambda w: w.astype(jnp.bfloat16), PARAMS)
    wrapped = aj.with_master_weights, lambda tx: aj.with_stochastic_rounding(tx, 0)
    for options in {}, {"step": 3}, {"steps": 10}:
        for wrapper in wrapped:
            for row in aj.decay_report(wrapper(aj.adam(0.1)), params, **options).rows:
                assert (row.decay_per_step, row.towards) == (0, "")


def test_prints_what_is_pulled_where():
    tx = aj.partition({"kernel": HUBER, "first": KEPT, "scale": ONE, "*": aj.adam(0.1)})
    params = PARAMS | {"first": jnp.ones(2), "bias": jnp.ones(2)}
    head, _, *rows = str(aj.decay_report(tx, params)).splitlines()
    cells = [row[head.index("decays") : head.index("τ")].split("  ") for row in rows[:4]]
    assert [cell[0] for cell in cells] == [
        "no",
        "to earlier weights",
        "yes, up to 0.2",
        "to fixed weights",
    ]
    assert rows[4] == "3 of 4 arrays decay: 11 of 13 numbers"
    assert [note.split(":")[0] for note in rows[5:]] == [
        *("to fixed weights", "to earlier weights", "up to")
    ]

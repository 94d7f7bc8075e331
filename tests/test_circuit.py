"""Sharing: what is the same and sees the same is there once, which only the state shows."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES, mixed_params, walk

import adamw_jax as aj


def apart(tx):
    """A copy that is shared with nothing, since nothing is known of it."""
    return optax.GradientTransformationExtraArgs(
        lambda p: tx.init(p), lambda *a, **k: tx.update(*a, **k)
    )


def bytes_per_parameter(tx, size=1000):
    state = tx.init(jnp.zeros(size))
    return sum(x.nbytes for x in jax.tree.leaves(state) if x.ndim) / size


def belief(piece, b1=0.9, b2=0.99):
    """AdaBelief with every occurrence of a piece passed through `piece`."""
    surprise = aj.parallel(aj.chain(), piece(aj.momentum(b1)), merge=aj.difference())
    first = aj.chain(piece(aj.momentum(b1)), piece(aj.bias_correction(b1)))
    second = aj.chain(surprise, piece(aj.second_moment(b2)), piece(aj.bias_correction(b2)))
    return aj.parallel(first, second, merge=aj.rms_ratio(1e-8))


def test_sharing_changes_the_state_and_no_update():
    params = mixed_params()
    (shared, state), (separate, copies) = (
        walk(belief(piece), params) for piece in (lambda tx: tx, apart)
    )
    chex.assert_trees_all_equal(shared, separate)
    count = lambda tree: len(jax.tree.leaves(tree))  # noqa: E731
    leaves = count(params)
    assert (count(state), count(copies)) == (2 * leaves + 1, 3 * leaves + 2)
    assert bytes_per_parameter(belief(lambda tx: tx)) == 8


@pytest.mark.parametrize("rate", [0.1, optax.constant_schedule(0.1)], ids=["number", "schedule"])
@pytest.mark.parametrize(
    "case", [c for c in CASES if "learning_rate" in c.numbers and "per_step" not in c.name], ids=str
)
def test_every_optimizer_counts_its_steps_once(case, rate):
    state = case.tx(learning_rate=rate).init(mixed_params())
    counts = [x for x in jax.tree.leaves(state) if x.dtype == jnp.int32]
    assert len(counts) <= 1
    assert not counts or optax.tree.get(state, "count") is counts[0]


def test_parentheses_make_no_difference():
    a, b, c = aj.momentum(0.9), aj.bias_correction(0.9), aj.momentum(0.5)
    params = mixed_params()
    expected = walk(aj.chain(a, b, c), params)
    chex.assert_trees_all_equal(walk(aj.chain(aj.chain(a, b), c), params), expected)
    chex.assert_trees_all_equal(walk(aj.chain(a, aj.chain(b, c)), params), expected)
    chex.assert_trees_all_equal(walk(aj.chain(aj.chain(), a, b, aj.chain(c)), params), expected)


def test_what_opens_every_branch_may_stand_before_them():
    # parallel(chain(p, a), chain(p, b)) = chain(p, parallel(a, b)), the state too.
    p, a, b = aj.momentum(0.9), aj.bias_correction(0.9), aj.second_moment(0.99)
    params = {"w": jnp.float32([1.0, -2.0])}
    inside = aj.parallel(aj.chain(p, a), aj.chain(p, b), merge=aj.rms_ratio(1e-8))
    before = aj.chain(p, aj.parallel(a, b, merge=aj.rms_ratio(1e-8)))
    chex.assert_trees_all_equal(walk(inside, params), walk(before, params))


def test_the_same_piece_on_other_updates_is_another():
    params = {"w": jnp.ones(2)}
    state = aj.chain(aj.momentum(0.9), aj.momentum(0.9)).init(params)
    assert [type(s) for s in state] == [aj.MomentumState] * 2


@pytest.mark.parametrize(
    "one, other",
    [
        (aj.momentum(0.9), aj.momentum(0.8)),
        (aj.momentum(0.9), aj.momentum(0.9, nesterov=True)),
        (aj.momentum(0.9), aj.momentum(0.9, accumulator_dtype="bfloat16")),
        (aj.momentum(jnp.float32(0.9)), aj.momentum(jnp.float32(0.9))),  # never looked into
        (optax.trace(0.9), optax.trace(0.9)),
    ],
    ids=["number", "flag", "dtype", "array", "foreign"],
)
def test_what_is_not_known_to_be_the_same_is_kept_apart(one, other):
    state = aj.parallel(one, other, merge=jnp.add).init({"w": jnp.ones(2)})
    assert len(state) == 2


def test_the_same_array_and_the_same_foreign_transformation_are_the_same():
    rate, foreign = jnp.float32(0.9), optax.trace(0.9)
    for one, other in (aj.momentum(rate), aj.momentum(rate)), (foreign, foreign):
        assert len(aj.parallel(one, other, merge=jnp.add).init({"w": jnp.ones(2)})) == 1


def difference(one, other):
    """What the first puts out minus what the second does, after one step on ones."""
    tx, params = aj.parallel(one, other, merge=jnp.subtract), {"w": jnp.ones(2)}
    return float(tx.update(params, tx.init(params), params)[0]["w"][0])


def as_it_is():
    return lambda u: u


def doubled():
    return lambda u: 2 * u


def scaled(factor):
    return lambda u: factor * u


def test_other_arithmetic_or_numbers_under_one_description_are_not_shared():
    description = aj.describe(as_it_is)
    assert difference(aj.piece(description, as_it_is), aj.piece(description, doubled)) == -1
    pieces = [aj.piece(description, scaled, (factor,)) for factor in (1.0, 3.0)]
    assert difference(*pieces) == -2
    merges = [aj.Merge(description, scaled, (factor,)) for factor in (1.0, 3.0)]
    assert difference(*(aj.parallel(aj.chain(), merge=merge) for merge in merges)) == -2


def test_what_wraps_a_schedule_or_a_merge_is_not_taken_for_it():
    base = aj.cosine_warm_restarts(100)
    twice = functools.wraps(base)(lambda step: 2 * base(step))
    rates = [aj.scale_by_learning_rate(schedule) for schedule in (base, twice)]
    assert difference(*rates) == 1
    negative = functools.wraps(aj.sign())(lambda u: -u)
    assert "sign()" not in repr(aj.parallel(aj.chain(), merge=negative))
    assert difference(*(aj.parallel(aj.chain(), merge=m) for m in (aj.sign(), negative))) == 2


def test_a_foreign_description_tells_nothing():
    class Described(optax.GradientTransformationExtraArgs):
        description = "a scale"

    assert difference(*(Described(*optax.scale(factor)) for factor in (1.0, 2.0))) == -1


def test_arguments_that_change_later_do_not_change_what_was_made():
    rate, mask = np.array(0.75), {"w": True}
    before = aj.momentum(rate), aj.decoupled_weight_decay(1.0, mask)
    rate[...], mask["w"] = 0.5, False
    after = aj.momentum(rate), aj.decoupled_weight_decay(1.0, mask)
    assert repr(before[0]) == "momentum(0.75)"
    assert difference(before[0], after[0]) == 0.25 - 0.5
    assert difference(before[1], after[1]) == 1


def test_paths_of_the_state_are_short():
    state = aj.adamw(0.1).init({"w": jnp.ones(2)})
    assert [type(s).__name__ for s in state] == ["MomentumState", "StepsState", "SecondMomentState"]
    assert state[0].mu["w"].shape == (2,)  # as optax.adamw's


def test_the_state_of_another_optimizer_is_an_error():
    params = {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match="3 parts where this composition keeps 1"):
        aj.heavy_ball_gd(0.1).update(params, aj.adam(0.1).init(params), params)


def test_a_state_with_its_parts_exchanged_is_an_error():
    params = {"w": jnp.ones(2)}
    state = aj.chain(aj.second_moment(0.9), aj.momentum(0.9)).init(params)
    with pytest.raises(ValueError, match="a SecondMomentState where this optimizer keeps a Mom"):
        aj.chain(aj.momentum(0.9), aj.second_moment(0.9)).update(params, state, params)
    with pytest.raises(ValueError, match="a HeavyBallState where"):
        aj.momentum(0.9).update(params, aj.heavy_ball(0.9).init(params), params)
    with pytest.raises(ValueError, match="a MomentumState where this optimizer keeps a StepsSt"):
        aj.bias_correction(0.9).update(params, aj.momentum(0.9).init(params), params)
    with pytest.raises(ValueError, match="the state has None where this composition keeps 3"):
        aj.adam(0.1).update(params, None, params)


def test_parameters_are_widened_only_for_those_that_want_it():
    seen = []

    def init(params):
        seen.append(params["w"].dtype)
        return optax.EmptyState()

    part = optax.GradientTransformationExtraArgs(init, optax.identity().update)
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    aj.chain(part, aj.gd(0.1)).init(params)
    aj.parallel(part, merge=jnp.negative).init(params)
    assert seen == [jnp.bfloat16, jnp.float32]


def test_merges_leak_no_tracers():
    with jax.checking_leaks():
        aj.parallel(aj.chain(), merge=aj.Merge(aj.describe(scaled, 2.0), scaled, (2.0,)))


def test_a_count_at_the_largest_integer_stays_there():
    tx, params = aj.adam(0.1), {"w": jnp.ones(2)}
    last = np.iinfo(np.int32).max
    state = optax.tree.set(tx.init(params), count=jnp.int32(last))
    updates, state = tx.update(params, state, params)
    assert optax.tree.get(state, "count") == last
    chex.assert_trees_all_close(updates, {"w": -jnp.full(2, 0.1 * 0.1 / 0.001**0.5)}, rtol=1e-4)

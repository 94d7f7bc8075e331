"""Composition: `chain` and `parallel`."""

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
from cases import gradients_like, mixed_params, walk

import adamw_jax as aj


def test_chain_keeps_its_parts_states_in_a_tuple():
    state = aj.chain(aj.momentum(0.9), aj.gd(lambda step: 0.1)).init(jnp.ones(2))
    assert isinstance(state[0], aj.MomentumState)
    assert isinstance(state[1], aj.StepsState)


def test_chain_of_foreign_parts_is_optax_chain():
    params = mixed_params()
    parts = optax.clip_by_global_norm(0.5), optax.scale_by_adam(), optax.scale(-0.1)
    chex.assert_trees_all_equal(walk(aj.chain(*parts), params), walk(optax.chain(*parts), params))


def test_our_pieces_chain_in_optax():
    params = mixed_params()
    parts = aj.momentum(0.9), aj.bias_correction(0.9), aj.scale_by_learning_rate(0.1)
    (theirs, _), (ours, _) = (walk(chain(*parts), params) for chain in (optax.chain, aj.chain))
    chex.assert_trees_all_equal(theirs, ours)


def test_chain_takes_the_state_of_another_chain_for_an_error():
    with pytest.raises(ValueError, match="init"):
        aj.chain(aj.chain(), aj.chain()).update(jnp.ones(2), ((),))


@pytest.mark.parametrize("compose", [aj.chain, lambda *parts: aj.parallel(*parts, merge=jnp.add)])
def test_parts_must_be_transformations(compose):
    with pytest.raises(ValueError, match="gradient transformations.*got 3"):
        compose(aj.gd(0.1), 3)
    with pytest.raises(ValueError, match="got <function gd"):
        compose(aj.gd)  # forgot to call it


def test_parallel_needs_a_branch_and_a_function():
    with pytest.raises(ValueError, match="at least one branch"):
        aj.parallel(merge=jnp.add)
    with pytest.raises(ValueError, match="merge.*got 3"):
        aj.parallel(aj.chain(), merge=3)


@pytest.mark.parametrize("merge", [jnp.sum, lambda x: x[:1]], ids=["scalar", "slice"])
def test_parallel_refuses_a_merge_that_changes_the_shape(merge):
    tx = aj.parallel(aj.chain(), merge=merge)
    with pytest.raises(ValueError, match=r"merge.*of \(2,\)"):
        tx.update({"w": jnp.ones(2)}, tx.init({"w": jnp.ones(2)}))


def test_parallel_of_one_branch_is_the_branch_merged():
    params = {"w": jnp.ones(3)}
    tx = aj.parallel(aj.momentum(0.5), merge=jnp.negative)
    (updates, state), (expected, inner) = walk(tx, params), walk(aj.momentum(0.5), params)
    chex.assert_trees_all_equal(updates, jax.tree.map(jnp.negative, expected))
    chex.assert_trees_all_equal(state, (inner,))


def test_every_branch_sees_the_same_updates_and_the_parameters():
    seen = []

    def spy(updates, params):
        seen.append((updates, params))
        return updates

    params, gradients = {"w": jnp.ones(2)}, {"w": jnp.full(2, 3.0)}
    tx = aj.parallel(optax.stateless(spy), optax.stateless(spy), merge=jnp.add)
    updates, _ = tx.update(gradients, tx.init(params), params)
    chex.assert_trees_all_equal(updates, {"w": jnp.full(2, 6.0)})
    assert len(seen) == 2
    chex.assert_trees_all_equal(seen[0], (gradients, params))
    chex.assert_trees_all_equal(seen[1], (gradients, params))


def test_branches_and_merge_see_half_precision_as_float32():
    # Between second_moment and its correction a float16 g² of 1e-10 would be zero.
    params = {"w": jnp.full(2, 1e-5, jnp.float16)}
    seen = []
    branch = optax.stateless(lambda u, p: seen.append(u["w"].dtype) or u)
    tx = aj.parallel(branch, branch, merge=lambda a, b: seen.append(a.dtype) or (a * b) / a)
    updates, _ = tx.update(params, tx.init(params), params)
    assert set(seen) == {jnp.dtype("float32")}
    chex.assert_trees_all_equal(updates, params)


def test_parallel_can_stand_in_a_branch_of_parallel():
    params = mixed_params()
    inner = aj.parallel(aj.momentum(0.9), aj.chain(), merge=jnp.subtract)
    tx = aj.parallel(inner, aj.momentum(0.9), merge=jnp.add)  # (m − g) + m
    gradients = gradients_like(params)
    updates, _ = tx.update(gradients, tx.init(params), params)
    average, _ = aj.momentum(0.9).update(gradients, aj.momentum(0.9).init(params))
    expected = jax.tree.map(lambda m, g: (2 * m - g).astype(g.dtype), average, gradients)
    chex.assert_trees_all_close(updates, expected, rtol=2e-2)


def test_extra_arguments_reach_the_parts_that_want_them():
    def update(updates, state, params=None, *, value, **extra):
        return jax.tree.map(lambda u: u * value, updates), state

    foreign = optax.GradientTransformationExtraArgs(lambda params: (), update)
    for tx in aj.chain(aj.chain(), foreign), aj.parallel(foreign, optax.scale(1.0), merge=jnp.add):
        updates, _ = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), value=3.0)
        assert updates[0] in (3.0, 4.0)


def test_a_merge_can_be_called_by_itself():
    assert aj.rms_ratio(0.5)(jnp.float32(3.0), jnp.float32(4.0)) == 3 / 2.5
    assert aj.nesterov_lookahead(0.75)(jnp.float32(1.0), jnp.float32(3.0)) == 1.5


def test_a_merge_of_ones_own_takes_its_hyperparameters_as_operands(compilations):
    def made(weight):
        return aj.parallel(aj.chain(), aj.chain(), merge=aj.Merge(description, mixture, (weight,)))

    params = jnp.float32([1.0, 2.0])
    made(0.25).update(params, ())
    compilations.clear()
    updates, _ = made(0.5).update(params, ())
    chex.assert_trees_all_equal(updates, jnp.float32([1.0, 2.0]))
    assert not compilations


def mixture(weight):
    return lambda a, b: weight * a + (1 - weight) * b


description = aj.Description(mixture, (), {})


def test_what_an_arithmetic_raises_is_not_called_a_wrong_number_of_branches():
    def choosy(number):
        if number > 0:
            return lambda u: u
        return lambda u: -u

    with pytest.raises(jax.errors.TracerBoolConversionError):
        aj.parallel(aj.chain(), merge=aj.Merge(aj.describe(choosy, 0.5), choosy, (0.5,)))


def test_a_merge_takes_no_schedules():
    with pytest.raises(ValueError, match="a merge takes no schedules; mixture"):
        aj.Merge(aj.describe(mixture), mixture, (optax.constant_schedule(0.5),))


def test_too_few_branches_and_a_merge_that_is_not_called_are_refused():
    with pytest.raises(ValueError, match="does not take one array for each of 1 branches"):
        aj.parallel(aj.momentum(0.9), merge=aj.rms_ratio(1e-8))
    with pytest.raises(ValueError, match="does not take one array for each of 3 branches"):
        aj.parallel(*[aj.momentum(0.9)] * 3, merge=lambda a, b: a - b)
    with pytest.raises(ValueError, match=r"merge must be called: rms_ratio\(…\)"):
        aj.parallel(aj.momentum(0.9), aj.second_moment(0.9), merge=aj.rms_ratio)


def test_a_piece_that_changes_the_shape_is_refused():
    def total():
        return jnp.sum

    tx = aj.piece(aj.describe(total), total)
    with pytest.raises(ValueError, match=r"total must keep the shape: it made \(\) of \(2,\)"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))

"""Masks by rule: trees out of the ordinary, how they print, and wherever a mask goes."""

import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import walk
from decaying import moved
from transformer import by_path

import adamw_jax as aj

PARAMS = {
    "layer": {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 5.0)},
    "norm": {"scale": jnp.ones(2)},
    "embed": {"embedding": jnp.ones((3, 2))},
}


# Trees out of the ordinary

UNNAMED = {
    "list": ([jnp.ones((2, 2)), jnp.ones(2)], "0", "0"),
    "tuples in a dict": ({"layer": (jnp.ones((2, 2)), jnp.ones(2))}, "layer/0", "layer/0"),
    "a lone array": (jnp.ones(2), "", "the root"),
}


@pytest.mark.parametrize("tree, pattern, shown", UNNAMED.values(), ids=UNNAMED)
def test_trees_without_names_have_paths_but_no_kinds(tree, pattern, shown):
    for mask in aj.decay_except(), aj.decay_only(aj.kind("weight")):
        with pytest.raises(ValueError, match=rf"at {shown} has no name.*put a rule by path before"):
            aj.adamw(0.1, mask=mask).init(tree)
    first = jax.tree.leaves(aj.decay_only(pattern)(tree))
    assert first == [True] + [False] * (len(first) - 1)
    aj.adamw(0.1, mask=aj.decay_only(pattern)).init(tree)


def test_paths_of_unnamed_trees_are_listed_without_a_kind():
    with pytest.raises(ValueError, match=r"there are:\n  0  \(no name\)\n  1/w  \(weight\)$"):
        aj.decay_only("2")([jnp.ones(2), {"w": jnp.ones(2)}])


def test_none_keeps_its_place_and_needs_no_name():
    tree = {"w": jnp.ones((2, 2)), "frozen": None, "list": [None]}
    assert aj.decay_except()(tree)["w"] is True
    tx = aj.adamw(0.1, weight_decay=0.1, mask=aj.decay_except())
    updates, _ = walk(tx, tree)
    assert updates["frozen"] is None and updates["list"] == [None]
    expected, _ = walk(aj.adamw(0.1, weight_decay=0.1), {"w": tree["w"]})
    chex.assert_trees_all_equal(updates["w"], expected["w"])


def test_rules_for_what_has_no_gradient_still_match():
    # Where a gradient is None the parameter is still there, and so is its name.
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    gradients["norm"] = {"scale": None}
    for mask in aj.decay_except(aj.kind("scale")), aj.decay_only("norm/scale", "layer/kernel"):
        tx = aj.adamw(0.1, mask=mask)
        updates, _ = tx.update(gradients, tx.init(PARAMS), PARAMS)
        assert updates["norm"] == {"scale": None}


def test_rules_for_a_subtree_that_has_no_gradient_still_match():
    gradients = {**jax.tree.map(jnp.ones_like, PARAMS), "norm": None}
    tx = aj.adamw(0.1, mask=aj.decay_except("norm/*"))
    updates, _ = tx.update(gradients, tx.init(PARAMS), PARAMS)
    assert updates["norm"] is None


@pytest.mark.parametrize("tree", [{}, (), {"a": {}, "b": [()]}], ids=str)
@pytest.mark.parametrize("mask", [aj.decay_except(), aj.decay_only("*"), aj.decay_except("w")])
def test_rules_ask_nothing_of_empty_trees(tree, mask):
    assert mask(tree) == tree
    updates, _ = walk(aj.adamw(0.1, mask=mask), tree)
    assert updates == tree


# Arguments and printing

NO_RULES = [1, None, True, ("*",), ["*"], {"*": True}, aj.decay_except(), b"*"]


@pytest.mark.parametrize("bad", NO_RULES, ids=str)
def test_what_is_no_rule_is_refused_as_it_stands(bad):
    for make in aj.decay_except, aj.decay_only:
        with pytest.raises(ValueError, match="a rule is a path pattern") as caught:
            make("*", bad)
        assert str(caught.value).endswith(f"got {bad!r}")


@pytest.mark.parametrize("bad", [1, None, ["*"]], ids=str)
def test_a_path_takes_a_pattern(bad):
    with pytest.raises(ValueError, match="pattern") as caught:
        aj.path(bad)
    assert str(caught.value).endswith(f"got {bad!r}")


@pytest.mark.parametrize("bad", ["kernel", "biases", "", None, 1], ids=repr)
def test_an_unknown_kind_is_refused_with_the_kinds_there_are(bad):
    with pytest.raises(ValueError, match="'weight', 'bias', 'scale', 'embedding'") as caught:
        aj.kind(bad)
    assert str(caught.value).endswith(f"got {bad!r}")


def test_decay_only_needs_a_rule():
    with pytest.raises(ValueError, match="decay_only needs a rule"):
        aj.decay_only()


PRINTED = {
    "decay_except()": aj.decay_except(),
    "decay_except(path('*/head/*'))": aj.decay_except("*/head/*"),
    "decay_except(kind('bias'), path('*b'))": aj.decay_except(aj.kind("bias"), aj.path("*b")),
    "decay_only(path('*kernel'))": aj.decay_only("*kernel"),
    "kind('scale')": aj.kind("scale"),
    'path("it\'s/*")': aj.path("it's/*"),
    "decoupled_weight_decay(0.1, mask=decay_except())": aj.decoupled_weight_decay(
        0.1, aj.decay_except()
    ),
    "l2_regularization(0.1, mask=decay_only(kind('weight')))": aj.l2_regularization(
        0.1, aj.decay_only(aj.kind("weight"))
    ),
}


@pytest.mark.parametrize("text, value", PRINTED.items(), ids=PRINTED)
def test_rules_and_masks_print_as_the_calls_that_make_them(text, value):
    assert repr(value) == text
    assert repr(eval(text, vars(aj))) == text


def test_an_optimizer_with_a_mask_by_rule_prints_as_what_makes_it():
    tx = aj.adamw(0.1, weight_decay=0.1, mask=aj.decay_except("*/kernel", aj.kind("scale")))
    again = eval(repr(tx), vars(aj))
    assert repr(again) == repr(tx) and "kind('scale')" in repr(tx)
    chex.assert_trees_all_equal(walk(again, PARAMS), walk(tx, PARAMS))


def test_masks_and_rules_are_values():
    mask = aj.decay_except("head/*", aj.kind("bias"))
    assert mask == aj.decay_except("head/*", aj.kind("bias")) != aj.decay_except("head/*")
    assert hash(mask) == hash(pickle.loads(pickle.dumps(mask))) and mask in {mask}


# Wherever a mask goes

KERNEL = {"layer/kernel"}
PIECES = {
    "decoupled": lambda mask: aj.chain(aj.decoupled_weight_decay(0.1, mask), aj.gd(0.1)),
    "l2": lambda mask: aj.chain(aj.l2_regularization(0.1, mask), aj.gd(0.1)),
    "cautious": lambda mask: aj.chain(aj.cautious_weight_decay(0.1, mask), aj.gd(0.1)),
    "proximal": lambda mask: aj.chain(aj.gd(0.1), aj.proximal_weight_decay(0.1, mask)),
    "decayed_per_step": lambda mask: aj.decayed_per_step(aj.adam(0.1), 0.1, mask=mask),
    "optax.masked": lambda mask: optax.masked(optax.add_decayed_weights(-0.1), mask),
    "optax.add_decayed_weights": lambda mask: optax.add_decayed_weights(-0.1, mask),
    "optax.adamw": lambda mask: optax.adamw(0.1, mask=mask),
    "optimizer": lambda mask: aj.adamw(0.1, mask=mask),
    "L2 in Adam": lambda mask: aj.adam_l2(0.1, mask=mask),
    "sgdw": lambda mask: aj.sgdw(0.1, mask=mask),
    "lion": lambda mask: aj.lion(0.1, mask=mask),
    "adam_prox": lambda mask: aj.adam_prox(0.1, mask=mask),
    "adamwr": lambda mask: aj.adamwr(0.1, 4, mask=mask),
}


@pytest.mark.parametrize("piece", PIECES.values(), ids=PIECES)
def test_masks_by_rule_go_wherever_masks_go(piece):
    for mask in aj.decay_except(), aj.decay_only("*/kernel"):
        assert moved(piece(mask), PARAMS) == KERNEL
    others = {"norm/scale", "layer/bias", "embed/embedding"}
    assert moved(piece(aj.decay_except("*/kernel")), PARAMS) == others
    with pytest.raises(ValueError, match=r"path\('no such'\) matches no parameter"):
        piece(aj.decay_only("no such")).init(PARAMS)


def test_masks_by_rule_pass_through_jit_and_scan():
    tx = aj.adamw(0.1, weight_decay=0.5, mask=aj.decay_except())
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(1)
    def run(params):
        def step(carry, _):
            params, state = carry
            zeros = jax.tree.map(jnp.zeros_like, params)
            updates, state = tx.update(zeros, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), length=4)[0][0]

    run(PARAMS)
    shrunk = jax.tree.map(lambda new, old: float(jnp.min(new / old)), run(PARAMS), PARAMS)
    factors = by_path(shrunk)
    np.testing.assert_allclose(factors.pop("layer/kernel"), 0.95**4, rtol=1e-5)
    assert set(factors.values()) == {1.0}

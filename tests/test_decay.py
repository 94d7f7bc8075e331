"""Weight decay: where it stands, and which parameters it takes."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import decays_matrices, walk

import adamw_jax as aj

STAGES = pytest.mark.parametrize("decay", [aj.decoupled_weight_decay, aj.l2_regularization])
LAYER_PARAMS = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 5.0)}
PARAMS = {"layer": LAYER_PARAMS, "scale": jnp.ones(1)}
ZEROS = jax.tree.map(jnp.zeros_like, PARAMS)


def decayed(tx, params=PARAMS, updates=ZEROS):
    """The names of the leaves that the transformation changed."""
    got, _ = tx.update(updates, tx.init(params), params)
    flat = jax.tree_util.tree_leaves_with_path(got)
    return {jax.tree_util.keystr(path) for path, leaf in flat if jnp.any(leaf != 0)}


@STAGES
def test_adds_a_fraction_of_the_parameters(decay):
    params, updates = jnp.float32([2.0, -4.0]), jnp.float32([1.0, 1.0])
    tx = decay(0.25)
    got, state = tx.update(updates, tx.init(params), params)
    chex.assert_trees_all_equal(got, jnp.float32([1.5, 0.0]))
    assert state == optax.EmptyState()


@STAGES
def test_complex_parameters_shrink_towards_zero(decay):
    got, _ = decay(0.5).update(jnp.complex64([0]), optax.EmptyState(), jnp.complex64([2 + 4j]))
    chex.assert_trees_all_equal(got, jnp.complex64([1 + 2j]))


@STAGES
def test_needs_the_parameters(decay):
    for tx in decay(0.1), decay(0.1, mask=True), aj.adamw(0.1), aj.adam_l2(0.1):
        with pytest.raises(ValueError, match="parameters"):
            tx.update(PARAMS, tx.init(PARAMS))


KERNEL = {"['layer']['kernel']"}
LAYER = KERNEL | {"['layer']['bias']"}
MASKS = {
    "all": (True, LAYER | {"['scale']"}),
    "none": (False, set()),
    "tree": ({"layer": {"kernel": True, "bias": False}, "scale": False}, KERNEL),
    "prefix": ({"layer": True, "scale": False}, LAYER),
    "function": (decays_matrices, KERNEL),
    "function of a prefix": (lambda tree: {"layer": True, "scale": False}, LAYER),
    "NumPy booleans": ({"layer": np.True_, "scale": np.False_}, LAYER),
}


@STAGES
@pytest.mark.parametrize("mask, expected", MASKS.values(), ids=MASKS)
def test_mask_chooses_what_decays_as_in_optax(decay, mask, expected):
    assert decayed(decay(0.1, mask)) == expected
    assert decayed(optax.add_decayed_weights(0.1, mask)) == expected


@pytest.mark.parametrize("mask, expected", MASKS.values(), ids=MASKS)
def test_masked_optimizers_decay_the_same_leaves(mask, expected):
    # With zero gradients only decay moves.
    assert decayed(aj.adamw(0.1, mask=mask)) == expected
    assert decayed(aj.adam_l2(0.1, mask=mask)) == expected


def test_a_mask_may_be_none_where_a_parameter_is_none():
    params = {"w": jnp.ones((2, 2)), "frozen": None}
    for mask in decays_matrices, {"w": True, "frozen": None}, {"w": True, "frozen": False}:
        tx = aj.decoupled_weight_decay(0.1, mask)
        updates, _ = tx.update(params, tx.init(params), params)
        assert updates["frozen"] is None
        np.testing.assert_allclose(updates["w"], 1.1, rtol=1e-6)


def test_a_mask_may_be_a_tree_that_can_be_called():
    # An Equinox module is both; Optax takes it for a tree unless its leaves are functions.
    network = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    params = eqx.filter(network, eqx.is_array)
    mask = decays_matrices(params)
    assert callable(mask)
    for tx in aj.adamw(0.1, mask=mask), aj.adam_l2(0.1, mask=mask):
        updates, _ = walk(tx, params)
        chex.assert_trees_all_equal_structs(updates, params)
    expected, _ = walk(optax.adamw(0.1, mask=mask), params)
    chex.assert_trees_all_close(walk(aj.adamw(0.1, mask=mask), params)[0], expected, rtol=1e-4)


@STAGES
@pytest.mark.parametrize("as_function", [False, True])
def test_a_mask_that_does_not_match_is_refused_with_the_paths_that_differ(decay, as_function):
    mask = {"layer": {"kernel": True, "weight": True}, "scale": False}
    tx = decay(0.1, (lambda tree: mask) if as_function else mask)
    for call in tx.init, lambda p: tx.update(p, optax.MaskedState(optax.EmptyState()), p):
        with pytest.raises(ValueError, match="mask") as caught:
            call(PARAMS)
        message = str(caught.value)
        assert "['layer']['bias']" in message and "['layer']['weight']" in message
        assert "kernel" not in message and "scale" not in message


@pytest.mark.parametrize(
    "mask",
    [{}, {"layer": True}, {"layer": {"kernel": True}, "scale": True}, {"layer": (), "scale": True}],
    ids=str,
)
def test_incomplete_masks_are_refused(mask):
    for tx in aj.adamw(0.1, mask=mask), aj.adam_l2(0.1, mask=mask):
        with pytest.raises(ValueError, match="mask.*(layer|scale)"):
            tx.init(PARAMS)


def test_a_mask_of_other_containers_is_refused_with_the_path_where_they_differ():
    params = {"layers": (jnp.ones(2), jnp.ones(2)), "scale": jnp.ones(1)}
    tx = aj.adamw(0.1, mask={"layers": [True, False], "scale": False})
    with pytest.raises(ValueError, match=r"mask.*\['layers'\]") as caught:
        tx.init(params)
    assert "scale" not in str(caught.value)


@pytest.mark.parametrize("mark", [1, 0.0, "kernel", jnp.ones((2, 2))], ids=str)
def test_masks_must_hold_booleans(mark):
    tx = aj.adamw(0.1, mask={"layer": {"kernel": mark, "bias": False}, "scale": False})
    with pytest.raises(ValueError, match=r"(?s)mask must hold booleans.*\['layer'\]\['kernel'\]"):
        tx.init(PARAMS)


def test_where_the_decay_stands_is_the_difference_between_adam_l2_and_adamw():
    params, gradient = jnp.float32([10.0, -10.0]), jnp.float32([1e-3, 1e3])
    parts = aj.adam(1.0, eps=0), aj.decoupled_weight_decay(0.1)
    adamw, l2 = aj.adamw(1.0, eps=0, weight_decay=0.1), aj.adam_l2(1.0, eps=0, l2=0.1)

    def first_step(tx):
        return tx.update(gradient, tx.init(params), params)[0]

    np.testing.assert_allclose(first_step(adamw), [-1 - 1, -1 + 1], atol=1e-5)
    np.testing.assert_allclose(first_step(l2), [-1, -1], rtol=1e-5)
    # The pieces show it: the same stage, before the scaling and after it.
    scaling = parts[0].description.args[0]
    assert [part.name for part in l2.description.args][:2] == ["l2_regularization", "parallel"]
    assert [part.name for part in adamw.description.args][:2] == [
        "parallel",
        "decoupled_weight_decay",
    ]
    assert scaling == l2.description.args[1] == adamw.description.args[0]


def test_proximal_decay_never_passes_zero_however_large_it_is():
    params = jnp.asarray(np.random.default_rng(0).normal(size=10_000), jnp.float32)
    for decay in 1e-3, 1.0, 1e8, 1e38:
        tx = aj.proximal_weight_decay(decay)
        updates, _ = tx.update(jnp.zeros_like(params), tx.init(params), params)
        after = params + updates
        assert jnp.all(after * params >= 0) and jnp.all(jnp.abs(after) <= jnp.abs(params))


def test_cautious_decay_goes_by_signs_not_by_a_product_that_underflows():
    tx, params = aj.cautious_weight_decay(0.5), jnp.float32([1e-30, -1e-30, 0.0, 1e-30])
    updates = jnp.float32([-1e-30, -1e-30, 1.0, 0.0])
    got, _ = tx.update(updates, tx.init(params), params)
    chex.assert_trees_all_equal(got - updates, jnp.float32([0, -0.5e-30, 0, 0.5e-30]))


DECAYING = {
    "lion": aj.lion(0.1),
    "adamw": aj.adamw(0.1),
    "adam_prox": aj.adam_prox(0.1),
    "cautious_adamw": aj.cautious_adamw(0.1),
    "NumPy's": aj.adamw(0.1, weight_decay=np.float32(0.1)),
    "scheduled": aj.adamw(0.1, weight_decay=lambda step: 0.0),
    "twice": aj.decayed_per_step(aj.adam(0.1), 0.1),
    "in a group": aj.partition({"*": aj.chain(aj.adam(0.1), aj.sgdw(0.1))}),
}


@pytest.mark.parametrize("tx", DECAYING.values(), ids=DECAYING)
def test_no_decay_is_added_to_an_optimizer_that_decays(tx):
    with pytest.raises(ValueError, match="decays the parameters already"):
        aj.decayed_per_step(tx, 0.1)


@pytest.mark.parametrize("tx", [aj.lion(0.1, weight_decay=0), aj.adam_l2(0.1), optax.adamw(0.1)])
def test_decay_is_added_to_l2_and_to_what_cannot_be_read(tx):
    assert aj.decayed_per_step(tx, 0.1).init(PARAMS)


WRONG = {
    "decay_per_step": lambda: aj.decayed_per_step(aj.adam(0.1), -1.0),
    "schedule": lambda: aj.decayed_per_step(aj.adam(0.1), 0.1, -1.0),
    "decayed_per_step": lambda: aj.decayed_per_step(aj.adam, 0.1),
    "decay_per_step ": lambda: aj.sgdw(0.1, 0.9, None),
    "weight_decay": lambda: aj.adam_prox(0.1, weight_decay="a"),
    "eps_root": lambda: aj.adabelief(0.1, eps_root=-1.0),
    "decay_only": lambda: aj.adamw(0.1, mask="*kernel"),
    r"decay_except\(kind": lambda: aj.adamw(0.1, mask=aj.kind("bias")),
    "must be called": lambda: aj.adamw(0.1, mask=aj.decay_except),
    "static_args": lambda: optax.inject_hyperparams(aj.adamw)(0.1, mask=aj.decay_except()).init(
        PARAMS
    ),
}


@pytest.mark.parametrize("said, mistake", WRONG.items(), ids=WRONG)
def test_a_mistake_is_told_in_the_words_of_the_call(said, mistake):
    with pytest.raises(ValueError, match=said.strip()):
        mistake()


def test_the_mask_of_a_lone_array_may_be_a_numpy_boolean_or_array():
    for mask in np.True_, np.array(True), jnp.array(True):
        assert decayed(aj.adamw(0.1, mask=mask), jnp.ones(2), jnp.zeros(2)) == {""}

"""Trees and leaves out of the ordinary: as in Optax, or refused with their paths."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES, gradients_like, walk

import adamw_jax as aj

every_case = pytest.mark.parametrize("case", CASES, ids=str)

# What no peer takes, and what all take: leaves do not see each other, so that one tree holds them.
PYTHON_COMPLEX = {"Python complex": 0.5 + 1j}
ODD_LEAVES = {
    "empty": ({}, (), [{}]),
    "None": None,
    "scalar": jnp.float32(0.5),
    "Python number": 0.5,
    "NumPy scalar": np.float32(0.5),
    "NumPy array": np.float32([0.5, 1.0]),
    "NumPy float64": np.float64([0.5, 1.0]),
    "zero size": jnp.zeros((0, 3)),
    "tuples and lists": ([jnp.ones(2)], (jnp.ones((1, 1)),)),
}
ODD_TREES = {
    "odd leaves": ODD_LEAVES | PYTHON_COMPLEX,
    "empty": {},
    "a lone array": jnp.float32([1.0, 2.0]),
    "a lone scalar": jnp.float32(0.5),
}


@every_case
@pytest.mark.parametrize("params", ODD_TREES.values(), ids=ODD_TREES)
def test_odd_trees_keep_their_structure(case, params):
    tx = case.tx()
    updates, state = walk(tx, params, steps=2)
    chex.assert_trees_all_equal_structs(updates, params)
    chex.assert_trees_all_equal_structs(state, tx.init(params))
    for u, p in zip(jax.tree.leaves(updates), jax.tree.leaves(params), strict=True):
        assert jnp.shape(u) == jnp.shape(p) and u.dtype == jnp.result_type(p)
    chex.assert_tree_all_finite(updates)


@pytest.mark.parametrize("case", [c for c in CASES if c.peer and c.numbers], ids=str)
def test_odd_leaves_behave_as_in_optax(case):
    expected, _ = walk(case.peer(**case.numbers), ODD_LEAVES, steps=2)
    chex.assert_trees_all_close(walk(case.tx(), ODD_LEAVES, steps=2)[0], expected, rtol=1e-4)


@every_case
def test_where_an_update_is_none_the_state_stays(case):
    params = {"frozen": jnp.float32([1.0, 2.0]), "group": {"w": jnp.ones((2, 2))}}
    tx = case.tx()
    _, state = walk(tx, params, steps=1)
    some = {"frozen": None, "group": gradients_like(params["group"])}
    updates, new_state = tx.update(some, state, params)
    chex.assert_trees_all_equal_structs(updates, some)
    chex.assert_trees_all_equal_shapes_and_dtypes(new_state, state)
    before, after = map(leaves_by_path, (state, new_state))
    frozen = [path for path in before if "frozen" in path]
    chex.assert_trees_all_equal([after[p] for p in frozen], [before[p] for p in frozen])
    # The rest steps as if the frozen part were not there.
    alone, _ = walk(tx, {"group": params["group"]}, steps=1)
    assert jax.tree.structure(alone["group"]) == jax.tree.structure(updates["group"])


def leaves_by_path(tree):
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in flat}


@every_case
def test_a_whole_subtree_without_updates_stays(case):
    params = {"frozen": {"a": jnp.ones(2), "b": jnp.ones((2, 2))}, "w": jnp.ones(2)}
    tx = case.tx()
    state = tx.init(params)
    updates, new_state = tx.update({"frozen": None, "w": jnp.ones(2)}, state, params)
    assert updates["frozen"] is None
    chex.assert_trees_all_equal_shapes_and_dtypes(new_state, state)


INTEGERS = {"w": jnp.ones(2), "table": {"ids": jnp.arange(3)}, "flags": [True, jnp.zeros(1)]}


@pytest.mark.parametrize("case", [c for c in CASES if c.name != "chain"], ids=str)
def test_integer_parameters_are_refused_with_their_paths(case):
    with pytest.raises(ValueError) as caught:
        case.tx().init(INTEGERS)
    message = str(caught.value)
    assert "['table']['ids'] (int32)" in message and "['flags'][0] (bool)" in message
    assert "['w']" not in message and "['flags'][1]" not in message


@pytest.mark.parametrize("case", [c for c in CASES if c.name != "chain"], ids=str)
def test_integer_updates_are_refused_with_their_paths(case):
    params = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x)), INTEGERS)
    with pytest.raises(ValueError, match=r"update.*\['table'\]\['ids'\] \(int32\)"):
        case.tx().update(INTEGERS, case.tx().init(params), params)


@pytest.fixture
def module():
    """A network with activation functions among its leaves, and its gradients."""
    network = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    return network, eqx.filter_grad(lambda network: network(jnp.ones(2)).sum() ** 2)(network)


STATELESS = ["gd", "scale_by_learning_rate", "decoupled_weight_decay", "l2_regularization"]


@pytest.mark.parametrize("case", [c for c in CASES if c.name in STATELESS], ids=str)
def test_functions_among_the_parameters_are_no_error_where_nothing_touches_them(case, module):
    network, gradients = module
    updates, _ = case.tx().update(gradients, case.tx().init(network), network)
    peer = case.peer(**case.numbers)
    expected, _ = peer.update(gradients, peer.init(network), network)
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)


@pytest.mark.parametrize("case", [c for c in CASES if c.peer and c.numbers], ids=str)
def test_equinox_modules_train_as_in_optax(case, module):
    network, gradients = module
    params = eqx.filter(network, eqx.is_inexact_array)
    tx, peer = case.tx(), case.peer(**case.numbers)
    # The parameters may be the whole module, functions and all.
    updates, state = tx.update(gradients, tx.init(params), network)
    _, peer_state = peer.update(gradients, peer.init(params), params)
    chex.assert_trees_all_equal_structs(eqx.apply_updates(network, updates), network)
    updates, _ = tx.update(gradients, state, params)
    expected, _ = peer.update(gradients, peer_state, params)
    chex.assert_trees_all_close(updates, expected, rtol=1e-4)


def test_functions_are_refused_with_their_paths_where_they_would_need_a_moment(module):
    with pytest.raises(ValueError, match=r"\.activation .*\.final_activation \(function\)"):
        aj.adamw(0.1).init(module[0])


def test_functions_can_be_masked_out(module):
    network, gradients = module
    mask = jax.tree.map(eqx.is_array, network)
    tx = optax.masked(aj.adamw(0.1), lambda _: mask)
    updates, _ = tx.update(eqx.combine(gradients, network), tx.init(network), network)
    expected, _ = walk_once(aj.adamw(0.1), gradients, eqx.filter(network, eqx.is_array))
    chex.assert_trees_all_equal(eqx.filter(updates, eqx.is_array), expected)


def walk_once(tx, gradients, params):
    return tx.update(gradients, tx.init(params), params)

"""Masks by rule: which parameters they pick in real models, and what they say when they cannot."""

import pickle

import chex
import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import walk
from flax import nnx
from flax.training.train_state import TrainState
from transformer import MODELS, by_path, nnx_module, transformer

import adamw_jax as aj
from adamw_jax.parameters import parameters

every_model = pytest.mark.parametrize("model", MODELS)
PARAMS = {
    "layer": {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 5.0)},
    "norm": {"scale": jnp.ones(2)},
    "embed": {"embedding": jnp.ones((3, 2))},
}


def marked(mask, tree):
    """The paths of the parameters that a mask lets decay."""
    return {path for path, mark in by_path(mask(tree)).items() if mark} & set(by_path(tree))


def moved(tx, params):
    """The paths of the parameters that a step without a gradient moves: what decays."""
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    return {path for path, update in by_path(updates).items() if jnp.any(update != 0)}


def without_zeros(params):
    """The same tree with no zero in it, so that whatever decays can be seen to move."""
    return jax.tree.map(lambda x: x + (x == 0).astype(x.dtype), params)


# In real models


@every_model
def test_every_kind_is_known_as_a_reader_of_the_model_knows_it(model):
    found = parameters(transformer(model).params)
    assert {p.path: p.kind for p in found if p.is_there} == transformer(model).kinds


@every_model
def test_decay_except_decays_the_kernels_and_nothing_else(model):
    network = transformer(model)
    assert marked(aj.decay_except(), network.params) == network.kernels
    tx = aj.adamw(0.1, weight_decay=0.1, mask=aj.decay_except())
    assert moved(tx, network.params) == network.kernels


def mistaken(model, path, kind):
    """What the usual rule takes for a kernel, more than one axis, and is none."""
    if kind == "embedding":
        return True
    if "stacked" in model:
        return kind != "weight" and path.startswith("blocks")
    return path.endswith(("/query/bias", "/key/bias", "/value/bias"))  # (heads, head size)


@every_model
def test_counting_axes_would_decay_biases_and_norms(model):
    network = transformer(model)
    matrices = {path for path, leaf in by_path(network.params).items() if jnp.ndim(leaf) > 1}
    wrong = {path for path, kind in network.kinds.items() if mistaken(model, path, kind)}
    assert matrices == network.kernels | wrong
    # In a stacked model no parameter of a block, of whatever kind, has one axis.
    assert ("stacked" in model) == all(p in matrices for p in network.kinds if "block" in p)


@pytest.mark.parametrize("stacked", [False, True], ids=["plain", "stacked"])
def test_the_same_mask_fits_the_variables_of_an_nnx_optimizer_and_its_arrays(stacked):
    # nnx.Optimizer calls init with Variables and update with arrays.
    network = nnx_module(stacked)
    before = by_path(nnx.to_pure_dict(nnx.state(network, nnx.Param)))
    rule = aj.path("head/*")
    for mask in aj.decay_except(), aj.decay_except(rule), aj.decay_only(aj.kind("weight")):
        state = nnx.state(network, nnx.Param)
        assert marked(mask, state) == marked(mask, nnx.to_pure_dict(state))
    tx = aj.adamw(0.1, weight_decay=0.5, mask=aj.decay_except())
    optimizer = nnx.Optimizer(network, tx, wrt=nnx.Param)
    zeros = jax.tree.map(jnp.zeros_like, nnx.state(network, nnx.Param))
    nnx.jit(lambda optimizer, network: optimizer.update(network, zeros))(optimizer, network)
    after = by_path(nnx.to_pure_dict(nnx.state(network, nnx.Param)))
    kernels = transformer("NNX stacked" if stacked else "NNX plain").kernels
    for name, old in before.items():
        np.testing.assert_allclose(after[name], (0.95 if name in kernels else 1) * old, rtol=1e-6)


class Partitioned(nn.Module):
    """A layer whose parameters are in boxes that say how they are sharded."""

    box: object

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, kernel_init=self.box(nn.initializers.ones, ("in", "out")))(x)
        return nn.LayerNorm(scale_init=self.box(nn.initializers.ones, ("out",)))(x)


@pytest.mark.parametrize("box", [nn.with_partitioning, nn.with_logical_partitioning])
def test_boxes_around_arrays_are_no_part_of_the_path(box):
    params = Partitioned(box).init(jax.random.key(0), jnp.ones((1, 4)))["params"]
    assert isinstance(params["Dense_0"]["kernel"], nn.Partitioned)
    expected = {
        ("Dense_0/kernel", "weight"),
        ("Dense_0/bias", "bias"),
        ("LayerNorm_0/scale", "scale"),
        ("LayerNorm_0/bias", "bias"),
    }
    assert {(p.path, p.kind) for p in parameters(params)} == expected
    assert parameters(nn.unbox(params)) == parameters(params)
    for mask in aj.decay_except(), aj.decay_only("Dense_?/kernel"):
        tx = aj.adamw(0.1, weight_decay=0.5, mask=mask)
        assert moved(tx, without_zeros(params)) == {"Dense_0/kernel"}


@pytest.mark.parametrize("stacked", [False, True], ids=["plain", "stacked"])
def test_a_linen_train_state_decays_the_kernels(stacked):
    network = transformer("Linen stacked" if stacked else "Linen plain")
    params = network.params
    tx = aj.adamw(0.1, weight_decay=0.5, mask=aj.decay_except())
    state = TrainState.create(apply_fn=network.logits, params=params, tx=tx)
    after = state.apply_gradients(grads=jax.tree.map(jnp.zeros_like, params)).params
    before, after = by_path(params), by_path(after)
    for name, old in before.items():
        factor = 0.95 if name in network.kernels else 1
        np.testing.assert_allclose(after[name], factor * old, rtol=1e-6)


def test_functions_and_numbers_among_the_leaves_of_a_module_do_no_harm():
    # Gradients have None there, but the parameters may be the whole module.
    network = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    gradients = jax.tree.map(
        lambda x: jnp.zeros_like(x) if eqx.is_inexact_array(x) else None, network
    )
    tx = aj.chain(aj.decoupled_weight_decay(0.5, aj.decay_except()), aj.gd(0.1))
    updates, _ = tx.update(gradients, tx.init(network), network)
    decayed = {path for path, update in by_path(updates).items() if jnp.any(update != 0)}
    assert decayed == {"layers/0/weight", "layers/1/weight"}
    chex.assert_trees_all_equal_structs(eqx.apply_updates(network, updates), network)


# What things are called


class LayerNorm(eqx.Module):
    """A module that is known by its class alone."""

    weight: jax.Array


class Embedding(LayerNorm):
    pass


class Linear(LayerNorm):
    pass


def at(*path, leaf=1.0):
    """A tree of dictionaries with one leaf, an array unless it is a module."""
    tree = leaf if isinstance(leaf, eqx.Module) else jnp.full(2, leaf)
    for name in reversed(path):
        tree = {name: tree}
    return tree


KINDS_OF = [
    ("bias", at("dense", "bias")),
    ("bias", at("dense", "Bias")),
    ("bias", at("linear", "b")),
    ("bias", at("layer_norm", "beta")),
    ("bias", at("layer_norm", "offset")),
    ("bias", at("attention", "in_proj_bias")),
    ("scale", at("LayerNorm_0", "scale")),
    ("scale", at("batch_norm", "gamma")),
    ("scale", at("norm1", "weight")),
    ("scale", at("RMSNorm_0", "weight")),
    ("scale", at("second", leaf=LayerNorm(jnp.ones(2)))),
    ("embedding", at("token", "embedding")),
    ("embedding", at("token", "embeddings")),
    ("embedding", at("pos_embed")),
    ("embedding", at("lookup", leaf=Embedding(jnp.ones(2)))),
    ("weight", at("dense", "kernel")),
    ("weight", at("linear", "w")),
    ("weight", at("linear", "weight")),
    ("weight", at("second", leaf=Linear(jnp.ones(2)))),
    # The class decides where there is one, whatever the attribute is called.
    ("weight", at("norm", leaf=Linear(jnp.ones(2)))),
    ("weight", at("embed", leaf=Linear(jnp.ones(2)))),
    # Inside something that is called so, but not itself the table or the scale.
    ("weight", at("patch_embed", "kernel")),
    ("weight", at("norm", "kernel")),
]


@pytest.mark.parametrize(
    "expected, tree", KINDS_OF, ids=[parameters(tree)[0].path for _, tree in KINDS_OF]
)
def test_kinds_go_by_names_and_classes(expected, tree):
    assert [p.kind for p in parameters(tree)] == [expected]
    assert jax.tree.leaves(aj.decay_except()(tree)) == [expected == "weight"]
    assert jax.tree.leaves(aj.decay_only(aj.kind(expected))(tree)) == [True]
    for other in {"weight", "bias", "scale", "embedding"} - {expected}:
        with pytest.raises(ValueError, match="matches no parameter"):
            aj.decay_only(aj.kind(other))(tree)


HEAD, FIRST, SECOND = "Head/kernel", "layers/0/kernel", "layers/1/kernel"
BIASES = {"layers/0/bias", "layers/1/bias"}
TREE = {
    "Head": {"kernel": jnp.ones((2, 2))},
    "layers": [{"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)} for _ in range(2)],
}
PATTERNS = {
    "*": {HEAD, FIRST, SECOND} | BIASES,
    "*kernel": {HEAD, FIRST, SECOND},
    "Head/*": {HEAD},
    "Head*": {HEAD},
    "layers/*": {FIRST, SECOND} | BIASES,  # a star stands for slashes, too
    "layers/0/kernel": {FIRST},
    "layers/?/kernel": {FIRST, SECOND},
    "layers/[01]/kernel": {FIRST, SECOND},
    "layers/[!0]/*": {SECOND, "layers/1/bias"},
    "*/b*": BIASES,
    "[Hh]ead/*": {HEAD},
}
NO_MATCH = ["head/*", "*KERNEL", "kernel", "layers/[2-9]/*", "Head", "?/kernel", "layers\\*", ""]


@pytest.mark.parametrize("pattern, expected", PATTERNS.items(), ids=PATTERNS)
def test_patterns_match_whole_paths(pattern, expected):
    everything = PATTERNS["*"]
    for rule in pattern, aj.path(pattern):
        assert marked(aj.decay_only(rule), TREE) == expected
        assert marked(aj.decay_except(rule), TREE) == everything - expected


@pytest.mark.parametrize("pattern", NO_MATCH)
def test_a_rule_that_picks_nothing_is_refused_with_the_paths_there_are(pattern):
    for mask in aj.decay_except(pattern), aj.decay_only(aj.kind("bias"), pattern):
        with pytest.raises(ValueError) as caught:
            aj.adamw(0.1, mask=mask).init(TREE)
        lines = str(caught.value).splitlines()
        assert lines[0] == f"path({pattern!r}) matches no parameter; there are:"
        listed = [f"  {path}  ({'bias' if 'bias' in path else 'weight'})" for path in by_path(TREE)]
        assert lines[1:] == listed


def test_rules_add_up():
    mask = aj.decay_except(aj.kind("bias"), "Head/*")
    assert marked(mask, TREE) == {FIRST, SECOND}
    assert marked(aj.decay_only("Head/*", "layers/0/*"), TREE) == {HEAD, FIRST, "layers/0/bias"}
    # The default asks for no kind to be there; a kind that is asked for must be.
    assert marked(aj.decay_except(), TREE) == {HEAD, FIRST, SECOND}
    with pytest.raises(ValueError, match=r"^kind\('scale'\) matches no parameter; there are:\n"):
        aj.decay_except(aj.kind("scale"))(TREE)


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


NAMES_OF_KINDS = {
    "bias": "bias biases bias_ih_l0 in_proj_bias b b1 beta offset relative_position_bias_table",
    "scale": "scale gamma g logit_scale attn_norm ln_1/weight bn1/weight norm/0/weight "
    "LayerNorm_0/scale layer_norm2/weight",
    "embedding": "embedding embed pos_emb pos_embedding cls_token wte cls embed_tokens/weight",
    "weight": "kernel weight w W1 lora_a in_proj_weight normal_head/weight norm_proj/weight "
    "patch_embed/proj/weight unembed/kernel recurrent_kernel",
    "other": "B negative_slope temperature A_log unembed",
}


@pytest.mark.parametrize(
    "kind, paths", [(k, p) for k, ps in NAMES_OF_KINDS.items() for p in ps.split()]
)
def test_names_tell_the_kind_nested_and_flattened(kind, paths):
    *modules, name = paths.split("/")
    nested = {name: jnp.ones(2)}
    for module in reversed(modules):
        nested = {module: nested}
    trees = nested, {paths: jnp.ones(2)}, {paths.replace("/", "."): jnp.ones(2)}
    for tree in (*trees, {tuple(["a", *modules, name]): jnp.ones(2)}):
        assert [p.kind for p in parameters(tree)] == [kind]


def test_masks_and_rules_are_values():
    mask = aj.decay_except("head/*", aj.kind("bias"))
    assert mask == aj.decay_except("head/*", aj.kind("bias")) != aj.decay_except("head/*")
    assert hash(mask) == hash(pickle.loads(pickle.dumps(mask))) and mask in {mask}


@jax.tree_util.register_pytree_with_keys_class
class Odd:
    """A container whose keys are plain strings, and whose [] means something else."""

    def __init__(self, weight, bias):
        self.children = weight, bias

    def __getitem__(self, name):
        raise TypeError("no such thing")

    def tree_flatten_with_keys(self):
        return list(zip(["weight", "bias"], self.children, strict=True)), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def test_containers_of_any_sort_have_names():
    found = parameters({"norm": [Odd(jnp.ones(2), {"scale": jnp.ones(2)})]})
    assert [(p.path, p.kind) for p in found] == [
        ("norm/0/weight", "scale"),
        ("norm/0/bias/scale", "scale"),
    ]

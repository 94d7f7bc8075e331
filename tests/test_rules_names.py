"""Masks by rule: the kinds that names and classes tell, and the paths that patterns match."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from decaying import marked
from transformer import by_path

import adamw_jax as aj
from adamw_jax.parameters import parameters

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

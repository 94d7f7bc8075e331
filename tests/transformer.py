"""One small transformer in Flax NNX, Flax Linen and Equinox, each plain and layer-stacked.

Stacked means that all blocks are one block whose parameters have one more axis, over
which a scan runs. What each parameter is, is written down by hand in the tables at the end.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

VOCABULARY, LENGTH, WIDTH, HEADS, BLOCKS = 11, 6, 8, 2, 2

# Counting in steps of one, two and three: what comes next can be learned.
TOKENS = np.int32(
    [
        [(a + step * i) % VOCABULARY for i in range(LENGTH + 1)]
        for a in range(4)
        for step in (1, 2, 3)
    ]
)


def positions(key: jax.Array) -> jax.Array:
    return 0.1 * jax.random.normal(key, (LENGTH, WIDTH))


class NNXBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
        self.norm2 = nnx.RMSNorm(WIDTH, rngs=rngs)
        self.up = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        mask = nnx.make_causal_mask(x[..., 0])
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class NNXTransformer(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, *, stacked: bool):
        self.embed = nnx.Embed(VOCABULARY, WIDTH, rngs=rngs)
        self.positional_embedding = nnx.Param(positions(rngs.params()))
        self.stacked = stacked
        if stacked:
            make = nnx.split_rngs(splits=BLOCKS)(nnx.vmap(NNXBlock, in_axes=0, out_axes=0))
            self.blocks = make(rngs)
        else:
            self.blocks = nnx.List([NNXBlock(rngs) for _ in range(BLOCKS)])
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, VOCABULARY, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens) + self.positional_embedding[...]
        if self.stacked:
            run = nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
            x = run(x, self.blocks)
        else:
            for block in self.blocks:
                x = block(x)
        return self.head(self.norm(x))


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        mask = nn.make_causal_mask(x[..., 0])
        attention = nn.MultiHeadDotProductAttention(HEADS, name="attention")
        x = x + attention(nn.LayerNorm(name="norm1")(x), mask=mask)
        hidden = nn.Dense(2 * WIDTH, name="up")(nn.RMSNorm(name="norm2")(x))
        return x + nn.Dense(WIDTH, name="down")(nn.gelu(hidden)), None


class LinenTransformer(nn.Module):
    stacked: bool

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(VOCABULARY, WIDTH, name="embed")(tokens)
        x = x + self.param("positional_embedding", positions)
        if self.stacked:
            scan = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
            x, _ = nn.scan(LinenBlock, **scan, length=BLOCKS)(name="blocks")(x, None)
        else:
            for i in range(BLOCKS):
                x, _ = LinenBlock(name=f"blocks_{i}")(x)
        return nn.Dense(VOCABULARY, name="head")(nn.LayerNorm(name="norm")(x))


class EquinoxBlock(eqx.Module):
    norm1: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    second: eqx.nn.RMSNorm
    mlp: eqx.nn.MLP

    def __init__(self, key):
        keys = jax.random.split(key)
        bias = {f"use_{name}_bias": True for name in ("query", "key", "value", "output")}
        self.norm1 = eqx.nn.LayerNorm(WIDTH)
        self.attention = eqx.nn.MultiheadAttention(HEADS, WIDTH, **bias, key=keys[0])
        self.second = eqx.nn.RMSNorm(WIDTH)
        self.mlp = eqx.nn.MLP(WIDTH, WIDTH, 2 * WIDTH, 1, jax.nn.gelu, key=keys[1])

    def __call__(self, x):
        y, mask = jax.vmap(self.norm1)(x), jnp.tri(len(x), dtype=bool)
        x = x + self.attention(y, y, y, mask)
        return x + jax.vmap(lambda x: self.mlp(self.second(x)))(x)


class EquinoxTransformer(eqx.Module):
    lookup: eqx.nn.Embedding
    positional_embedding: jax.Array
    blocks: Any
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(self, key, *, stacked):
        keys = jax.random.split(key, 4)
        self.lookup = eqx.nn.Embedding(VOCABULARY, WIDTH, key=keys[0])
        self.positional_embedding = positions(keys[1])
        block_keys = jax.random.split(keys[2], BLOCKS)
        make = eqx.filter_vmap(EquinoxBlock)
        self.blocks = make(block_keys) if stacked else [EquinoxBlock(key) for key in block_keys]
        self.norm = eqx.nn.LayerNorm(WIDTH)
        self.head = eqx.nn.Linear(WIDTH, VOCABULARY, key=keys[3])

    def __call__(self, tokens):
        return jax.vmap(self._one)(tokens)

    def _one(self, tokens):
        x = jax.vmap(self.lookup)(tokens) + self.positional_embedding
        if isinstance(self.blocks, list):
            for block in self.blocks:
                x = block(x)
        else:
            arrays, rest = eqx.partition(self.blocks, eqx.is_array)
            x, _ = jax.lax.scan(lambda x, block: (eqx.combine(block, rest)(x), None), x, arrays)
        return jax.vmap(lambda x: self.head(self.norm(x)))(x)


def loss_of(logits: jax.Array) -> jax.Array:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, TOKENS[:, 1:])
    return jnp.mean(losses)


@dataclasses.dataclass(frozen=True)
class Transformer:
    """A model as its parameters and a function of them.

    Attributes:
      params: the parameters, nnx Variables under NNX; None where Equinox has no array.
      logits: (params, tokens) -> logits.
      kinds: what each parameter is, by its path.
    """

    params: Any
    logits: Callable[[Any, Any], jax.Array]
    kinds: dict[str, str]

    @property
    def kernels(self) -> set[str]:
        return {path for path, kind in self.kinds.items() if kind == "weight"}

    def loss(self, params: Any) -> jax.Array:
        return loss_of(self.logits(params, TOKENS[:, :-1]))


def drawn(shapes):
    """Parameters of these shapes, none of them zero, without compiling the initializers."""
    draw = np.random.default_rng(0).normal
    return jax.tree.map(lambda x: jnp.asarray(0.3 * draw(size=x.shape), x.dtype), shapes)


def nnx_abstract(stacked):
    model = nnx.eval_shape(lambda: NNXTransformer(nnx.Rngs(0), stacked=stacked))
    return nnx.split(model, nnx.Param)


def nnx_transformer(stacked):
    graph, shapes = nnx_abstract(stacked)
    return drawn(shapes), lambda params, tokens: nnx.merge(graph, params)(tokens)


def nnx_module(stacked) -> NNXTransformer:
    """The NNX model as a module of its own, to be trained in place."""
    graph, shapes = nnx_abstract(stacked)
    return nnx.merge(graph, drawn(shapes))


def linen_transformer(stacked):
    model = LinenTransformer(stacked)
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS[:, :-1])["params"]
    return drawn(shapes), lambda params, tokens: model.apply({"params": params}, tokens)


def equinox_transformer(stacked):
    make = functools.partial(EquinoxTransformer, stacked=stacked)
    shapes = eqx.filter_eval_shape(make, jax.random.key(0))
    shapes, rest = eqx.partition(shapes, lambda x: isinstance(x, jax.ShapeDtypeStruct))
    return drawn(shapes), lambda params, tokens: eqx.combine(params, rest)(tokens)


ATTENTION = "query", "key", "value", "out"
PROJECTIONS = "query_proj", "key_proj", "value_proj", "output_proj"
FLAX_BLOCK = {
    **{f"attention/{name}/kernel": "weight" for name in ATTENTION},
    **{f"attention/{name}/bias": "bias" for name in ATTENTION},
    **{"up/kernel": "weight", "up/bias": "bias", "down/kernel": "weight", "down/bias": "bias"},
    **{"norm1/scale": "scale", "norm1/bias": "bias", "norm2/scale": "scale"},
}
FLAX_REST = {
    **{"embed/embedding": "embedding", "positional_embedding": "embedding"},
    **{"norm/scale": "scale", "norm/bias": "bias", "head/kernel": "weight", "head/bias": "bias"},
}
EQUINOX_BLOCK = {
    **{f"attention/{name}/weight": "weight" for name in PROJECTIONS},
    **{f"attention/{name}/bias": "bias" for name in PROJECTIONS},
    **{"mlp/layers/0/weight": "weight", "mlp/layers/0/bias": "bias"},
    **{"mlp/layers/1/weight": "weight", "mlp/layers/1/bias": "bias"},
    **{"norm1/weight": "scale", "norm1/bias": "bias"},
    **{"second/weight": "scale", "second/bias": "bias"},
}
EQUINOX_REST = {
    **{"lookup/weight": "embedding", "positional_embedding": "embedding"},
    **{"norm/weight": "scale", "norm/bias": "bias", "head/weight": "weight", "head/bias": "bias"},
}
# The name of the model: what makes it, where its blocks are, what a block and the rest hold.
MODELS = {
    "NNX plain": (nnx_transformer, ("blocks/0", "blocks/1"), FLAX_BLOCK, FLAX_REST),
    "NNX stacked": (nnx_transformer, ("blocks",), FLAX_BLOCK, FLAX_REST),
    "Linen plain": (linen_transformer, ("blocks_0", "blocks_1"), FLAX_BLOCK, FLAX_REST),
    "Linen stacked": (linen_transformer, ("blocks",), FLAX_BLOCK, FLAX_REST),
    "Equinox plain": (equinox_transformer, ("blocks/0", "blocks/1"), EQUINOX_BLOCK, EQUINOX_REST),
    "Equinox stacked": (equinox_transformer, ("blocks",), EQUINOX_BLOCK, EQUINOX_REST),
}


@functools.cache
def transformer(name: str) -> Transformer:
    make, blocks, in_block, rest = MODELS[name]
    params, logits = make("stacked" in name)
    kinds = {f"{block}/{path}": kind for block in blocks for path, kind in in_block.items()}
    return Transformer(params, logits, kinds | rest)


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves by their paths, joined by slashes, as a reader of the model names them."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flat]
    # Variables and boxes hold their array under a name that is none of the model's.
    names = [name.removesuffix("/value").removesuffix("/raw_value") for name in names]
    return dict(zip(names, (leaf for _, leaf in flat), strict=True))

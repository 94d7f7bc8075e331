"""8 bits for each number, relative to the largest of its block."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax import trees
from adamw_jax.core import Description, describe, jitted
from adamw_jax.encodings import blocks
from adamw_jax.encodings.encoding import Encoding, check_real
from adamw_jax.hyperparameters import positive_integer
from adamw_jax.hyperparameters import seed as checked_seed

MIN_SIZE = 4096


class Quantized(NamedTuple):
    """A moment in 8 bits: two trees like the parameters.

    Attributes:
      codes: int8 where the moment may be negative, otherwise uint8, in the parameter's shape and
        sharding. A small parameter's moment stands here as it is, in working precision.
      scales: the largest number of each block, float32, with as many axes as the parameter,
        so that its sharding fits where it does not cut a block; 1 for a small parameter.
    """

    codes: Any
    scales: Any

    def decode(self) -> Any:
        """The moment, a tree like the parameters in float32 or wider."""
        return jax.tree.map(_decode, self.codes, self.scales)


def blockwise_quantization(
    seed: jax.typing.ArrayLike | None = 0, *, min_size: int = MIN_SIZE
) -> Encoding:
    """Keeps a moment in 8 bits a number and a float32 scale for each block of about 128.

    A code k > 0 stands for s ((k + 7)/133)⁴ in a signed moment and s ((k + 15)/268)⁸ in a second
    moment, where s is the largest number of the block: codes are dense near it, and the smallest
    is 1.3e-5 s, and (1.3e-5)² s in a second moment. A positive second moment never becomes zero.
    A step is therefore never much longer than with exact moments, however the gradients in a block
    differ. Block-wise scales are from arXiv 2110.02861; codes that are not linear, without which
    training diverges, also from arXiv 2602.23349. What is infinite or NaN stays so, and leaves the
    rest of its block alone.

    Rounding is stochastic, as in `stochastic_rounding`: of two neighbouring codes the nearer is
    the likelier, so that an average that moves by less than a code at each step does move.

    Args:
      seed: as in `stochastic_rounding`. With None codes are rounded to nearest, which saves the
        random bits: enough for a first moment with b1 ≤ 0.9, while a second moment stalls.
      min_size: ≥ 1; a parameter with fewer numbers has its moments in working precision. Biases
        and scales of layers are small, and together a negligible part of a model.

    Returns:
      An encoding. The state keeps a moment as `Quantized`, and with a seed a `StepsState`.

    Raises:
      ValueError: seed or min_size is out of range; or, at `init`, a moment is complex.
    """
    known = None if seed is None else checked_seed("seed", seed)
    smallest = positive_integer("min_size", min_size)
    return BlockwiseQuantization(known, int(smallest))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class BlockwiseQuantization(Encoding):
    """See `blockwise_quantization`."""

    seed: Any
    min_size: int = dataclasses.field(metadata={"static": True})

    @property
    def description(self) -> Description:
        """The call that made it."""
        return describe(blockwise_quantization, seed=self.seed, min_size=self.min_size)

    def start(self, moment, *, signed):
        """Codes of zeros, and the zeros of small parameters themselves."""
        check_real(moment, self)
        dtype = jnp.dtype(jnp.int8 if signed else jnp.uint8)

        def codes(x):
            return jnp.zeros_like(x, dtype=dtype) if x.size >= self.min_size else x

        def scales(x):
            if x.size < self.min_size:
                return jnp.ones((1,) * x.ndim, jnp.float32)
            return _scales_of_zeros(x)

        return Quantized(jax.tree.map(codes, moment), jax.tree.map(scales, moment))

    def decode(self, kept):
        """The moment in float32."""
        return kept.decode()

    def encode(self, moment, kept, bits):
        """Each number as the code above or below it."""
        leaves, structure = jax.tree_util.tree_flatten_with_path(moment, is_leaf=trees.is_none)
        old = zip(*map(structure.flatten_up_to, kept), strict=True)

        def leaf(path, x, codes, scales):
            if x is None:
                return codes, scales
            if is_small(codes):
                return x.astype(codes.dtype), scales
            drawn = bits and bits(path, x.shape)
            return _encode(x.astype(jnp.float32), codes.dtype, drawn)

        made = [leaf(path, x, *pair) for (path, x), pair in zip(leaves, old, strict=True)]
        return Quantized(*(structure.unflatten([pair[i] for pair in made]) for i in range(2)))


def is_small(codes: jax.Array) -> bool:
    """Whether a parameter is small, so that its moment is kept as it is."""
    return jnp.issubdtype(codes.dtype, jnp.inexact)


@dataclasses.dataclass(frozen=True)
class Code:
    """A code k > 0 stands for ((k + offset)/(levels + offset))^(2^roots); 0 for 0.

    Attributes:
      levels: the largest code of a finite number.
      offset: without it, the ratio of neighbours would be 2^(2^roots) at the smallest codes.
      roots: how many square roots take a number to its code.
      infinity: the code of ∞.
      nan: the code of NaN.
    """

    levels: int
    offset: int
    roots: int
    infinity: int
    nan: int

    def value(self, k: jax.Array) -> jax.Array:
        """What a code stands for, in [0, 1]."""
        x = (k + self.offset) / (self.levels + self.offset)
        for _ in range(self.roots):
            x = x * x
        return jnp.where(k > 0, x, 0)

    def below(self, x: jax.Array) -> jax.Array:
        """The largest code below the number, but one that has a code above it."""
        for _ in range(self.roots):
            x = jnp.sqrt(x)
        k = jnp.floor(x * (self.levels + self.offset) - self.offset)
        return jnp.clip(k, 0, self.levels - 1)


# A second moment is compared with the square of a first: its codes have twice the range of sizes.
CODES = {
    np.dtype(np.int8): Code(levels=126, offset=7, roots=2, infinity=127, nan=-128),
    np.dtype(np.uint8): Code(levels=253, offset=15, roots=3, infinity=254, nan=255),
}


@jitted
def _scales_of_zeros(x: jax.Array) -> jax.Array:
    # Computed, since that keeps the sharding; but not by the compiler, which is slow at it.
    return blocks.largest(jax.lax.optimization_barrier(x).astype(jnp.float32))


@functools.partial(jitted, static_argnums=1)
def _encode(x: jax.Array, dtype: np.dtype, bits: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    code, size = CODES[dtype], jnp.abs(x)
    size = jnp.where(jnp.isfinite(x), size, 0)
    scales = blocks.largest(size)
    ratio = size / blocks.spread(jnp.where(scales > 0, scales, 1), x)
    k = code.below(ratio)
    low, high = code.value(k), code.value(k + 1)
    chance = jnp.float32(0.5) if bits is None else (bits.astype(jnp.float32) + 0.5) / 2**16
    k = k + (ratio - low > chance * (high - low)).astype(k.dtype)
    if dtype == np.uint8:
        k = jnp.where(size > 0, jnp.maximum(k, 1), k)
    k = jnp.where(jnp.isinf(x), code.infinity, k)
    k = jnp.where(jnp.isnan(x), code.nan, jnp.sign(x) * k)
    return k.astype(dtype), scales


@jitted
def _decode(codes: jax.Array, scales: jax.Array) -> jax.Array:
    if is_small(codes):
        return codes
    code, signed = CODES[np.dtype(codes.dtype)], codes.astype(jnp.float32)
    k = jnp.abs(signed)
    x = code.value(k) * blocks.spread(scales, codes)
    x = jnp.sign(signed) * jnp.where(k == code.infinity, jnp.inf, x)
    return jnp.where(signed == code.nan, jnp.nan, x)

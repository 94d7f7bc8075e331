"""Blocks of about 128 neighbouring numbers, which fill an array of any shape.

A block takes whole axes from the last one on, as long as it stays small enough, and a part of the
next axis. A matrix of 784 × 256 has blocks of 1 × 128; a kernel of 3 × 3 × 32 × 64 blocks of
1 × 1 × 1 × 64. So no axis that may be sharded is cut unless it has to be, and an array with one
number for each block has as many axes as the array itself.
"""

import math

import jax
import jax.numpy as jnp

SIZE = 128


def shape_of_block(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the blocks of an array, with a number for each of its axes."""
    block, room = [1] * len(shape), SIZE
    for axis in reversed(range(len(shape))):
        length = shape[axis]
        if length <= room:
            block[axis] = length
            room //= max(length, 1)
        elif room > 1:
            # A divisor leaves no smaller block at the end, if there is one that is large enough.
            divisors = [n for n in range(-(-room // 2), room + 1) if length % n == 0]
            block[axis] = max(divisors, default=room)
            break
        if room < 2:
            break
    return tuple(block)


def largest(x: jax.Array) -> jax.Array:
    """The largest number of each block; x ≥ 0."""
    block = shape_of_block(x.shape)
    short = [(0, -n % b) for n, b in zip(x.shape, block, strict=True)]
    x = jnp.pad(x, short) if any(end for _, end in short) else x
    halves = [part for n, b in zip(x.shape, block, strict=True) for part in (n // b, b)]
    return jnp.max(x.reshape(halves), axis=tuple(range(1, len(halves), 2)))


def spread(blocks: jax.Array, like: jax.Array) -> jax.Array:
    """Repeats what there is for each block, in the shape of another array."""
    shape, block = like.shape, shape_of_block(like.shape)
    ones = [part for n in blocks.shape for part in (n, 1)]
    halves = [part for n, b in zip(blocks.shape, block, strict=True) for part in (n, b)]
    whole = [math.prod(pair) for pair in zip(halves[::2], halves[1::2], strict=True)]
    # Where shardings are part of types, that of two axes which become one has to be said.
    sharding = jax.typeof(like).sharding
    said = {"out_sharding": sharding} if any(sharding.spec) else {}
    x = jnp.broadcast_to(blocks.reshape(ones), halves).reshape(whole, **said)
    return x if x.shape == shape else jax.lax.slice(x, [0] * x.ndim, shape)

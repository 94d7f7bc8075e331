"""Which arrays of a network may be scaled without any change of the loss, measured.

Before a normalisation, L(cw) = L(w) for all c > 0. Then the gradient is orthogonal to w (Euler),
and at 2w it is half as large, ∇L(2w) = ∇L(w)/2. The latter is an equation for every number in w,
so that chance does not fulfil it, however little an array does.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

ALONE, JOINTLY, NO, NO_EFFECT = "alone", "jointly", "no", "no effect"
TOLERANCE = 0.05  # with which the gradient is halved: a normalisation's eps is felt, too
NOTHING = 1e-4  # a part of the loss; more than float32 rounds it by


def scale_invariance(
    loss: Callable[[Any], jax.Array], params: Any, siblings: Iterable[list[int]]
) -> list[str]:
    """Whether the loss depends on the scale of each array.

    In the place of arrays of zeros, which have no scale and hide that of others, there are random
    numbers of size 0.1.

    Args:
      loss: takes the parameters and returns a number. It must not draw random numbers anew.
      params: the parameters.
      siblings: groups of leaves, by their numbers, that are scaled together as well.

    Returns:
      For each leaf "alone", where it can be scaled by itself; "jointly", where it can be with
      all of its siblings that have an effect; "no"; or "no effect", where the loss stays the
      same when all its numbers move by about 1.

    Raises:
      ValueError: the loss is not a finite number.
    """
    leaves, structure = jax.tree.flatten(params)
    leaves = [_filled(i, jnp.asarray(leaf)) for i, leaf in enumerate(leaves)]

    def at(leaves):
        return jnp.asarray(loss(structure.unflatten(leaves)))

    if (shape := jax.eval_shape(at, leaves).shape) != ():
        raise ValueError(f"loss must return a number, got an array of shape {shape}")
    value, gradient = jax.jit(jax.value_and_grad(at))(leaves)
    if not jnp.isfinite(value):
        raise ValueError(f"loss must return a finite number, got {value}")

    @jax.jit
    def measured(leaves, gradient, mask):
        def dot(xs, ys):
            return sum(m * jnp.vdot(x, y) for m, x, y in zip(mask, xs, ys, strict=True))

        def moved(by, ys):
            pairs = zip(mask, leaves, ys, strict=True)
            return [x + (by * m).astype(x.dtype) * y for m, x, y in pairs]

        length = jnp.sqrt(dot(gradient, gradient))
        size = jnp.sqrt(sum(m * x.size for m, x in zip(mask, leaves, strict=True)))
        step = size / jnp.where(length > 0, length, 1)
        effects = [at(moved(by, gradient)) - value for by in (step, -step)]
        halved = jax.grad(at)(moved(1.0, leaves))
        off = [2 * new - old for new, old in zip(halved, gradient, strict=True)]
        off_half = jnp.sqrt(dot(off, off)) / length
        along = jnp.abs(dot(gradient, leaves)) / jnp.sqrt(dot(leaves, leaves)) / length
        return jnp.maximum(off_half, along), jnp.abs(jnp.stack(effects)).max() / jnp.abs(value)

    def answer(group):
        off, effect = measured(leaves, gradient, jnp.asarray([float(i in group) for i in places]))
        return NO_EFFECT if effect <= NOTHING else ALONE if off < TOLERANCE else NO

    places = range(len(leaves))
    answers = [answer([i]) for i in places]
    for siblings_of_one in siblings:
        group = [i for i in siblings_of_one if answers[i] == NO]
        if len(group) > 1 and answer(group) == ALONE:
            answers = [JOINTLY if i in group else old for i, old in enumerate(answers)]
    return answers


def _filled(i, leaf):
    noise = 0.1 * jax.random.normal(jax.random.key(i), leaf.shape, leaf.dtype)
    return jnp.where(jnp.any(leaf != 0), leaf, noise)

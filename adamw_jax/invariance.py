"""Which arrays of a network may be scaled without any change of the loss, measured.

Before a normalisation, L(cw) = L(w) for all c > 0. Then the gradient is orthogonal to w (Euler),
and at 2w it is half as large, ∇L(2w) = ∇L(w)/2. The latter is an equation for every number in w,
so that chance does not fulfil it, however little an array does.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
    """
    leaves, structure = jax.tree.flatten(params)
    leaves = [_filled(i, jnp.asarray(leaf)) for i, leaf in enumerate(leaves)]

    def at(leaves):
        return loss(structure.unflatten(leaves))

    @jax.jit
    def measured(leaves, groups):
        value, gradient = jax.value_and_grad(at)(leaves)

        def of_group(mask):
            def dot(xs, ys):
                return sum(m * jnp.vdot(x, y) for m, x, y in zip(mask, xs, ys, strict=True))

            def moved(by, ys):
                pairs = zip(mask, leaves, ys, strict=True)
                return [x + (by * m).astype(x.dtype) * y for m, x, y in pairs]

            halved = jax.grad(at)(moved(1.0, leaves))
            off = [2 * new - old for new, old in zip(halved, gradient, strict=True)]
            length = jnp.sqrt(dot(gradient, gradient))
            size = jnp.sqrt(sum(m * x.size for m, x in zip(mask, leaves, strict=True)))
            one = size / jnp.where(length > 0, length, 1)
            effects = jnp.stack([at(moved(by, gradient)) - value for by in (one, -one)])
            radial = jnp.abs(dot(gradient, leaves)) / jnp.sqrt(dot(leaves, leaves)) / length
            halves = jnp.sqrt(dot(off, off)) / length
            return jnp.maximum(halves, radial) < TOLERANCE, jnp.abs(effects).max() > NOTHING * abs(
                value
            )

        return jax.lax.map(of_group, groups)

    def asked(groups):
        masks = np.array([[i in group for i in range(len(leaves))] for group in groups], float)
        return zip(*map(np.asarray, measured(leaves, masks)), strict=True)

    alone = [
        (ALONE if invariant else NO) if effect else NO_EFFECT
        for invariant, effect in asked([[i] for i in range(len(leaves))])
    ]
    together = [[i for i in group if alone[i] == NO] for group in siblings]
    together = [group for group in together if len(group) > 1]
    found = asked(together) if together else ()
    for group, (invariant, _) in zip(together, found, strict=True):
        for i in group if invariant else ():
            alone[i] = JOINTLY
    return alone


def _filled(i, leaf):
    noise = 0.1 * jax.random.normal(jax.random.key(i), leaf.shape, leaf.dtype)
    return jnp.where(jnp.any(leaf != 0), leaf, noise)

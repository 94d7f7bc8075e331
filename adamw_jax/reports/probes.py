"""Steps without a gradient, taken from chosen parameters: what they take away is decay."""

import itertools
from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax import trees


class Probe(NamedTuple):
    """Where a step is taken, by the size of every number in the parameters.

    Attributes:
      first: the size at `init`, and in all steps before.
      now: the size in the step.
    """

    first: float
    now: float


def taken_away(
    optimizer: optax.GradientTransformation,
    shapes: optax.Params,
    steps: np.ndarray,
    probes: list[Probe],
    history: bool,
) -> list[np.ndarray | None]:
    """What steps without a gradient take from each parameter.

    Args:
      optimizer: any Optax transformation.
      shapes: the parameters' shapes and dtypes; None where there is no parameter.
      steps: the numbers of updates before the steps, consecutive int32s.
      probes: where the steps are taken.
      history: whether the updates before a step are done, at the size `first`; otherwise the
        state is the first one, with its counts set.

    Returns:
      For each parameter, None included, float64s of shape (probes, steps), from the
      parameter's first element.

    Raises:
      ValueError: the hyperparameters are tracers.
    """
    filled = _filling(shapes)

    def at_step(step):
        def leaf(path, leaf):
            is_count = bool(path) and getattr(path[-1], "name", None) == "count"
            return jnp.full_like(leaf, step) if is_count else leaf

        return lambda state: jax.tree_util.tree_map_with_path(leaf, state)

    def taken(state, now, zero):
        updates, _ = optimizer.update(filled(zero), state, filled(now))
        return jax.tree.map(lambda u: jnp.ravel(u)[:1].sum().real, updates)

    def fresh(first, now, zero):
        def of(step):
            return taken(at_step(step)(optimizer.init(filled(first))), now, zero)

        return jax.lax.map(of, jnp.asarray(steps))

    def after_history(first, now, zero):
        def walk(state, _):
            _, after = optimizer.update(filled(zero), state, filled(first))
            return after, taken(state, now, zero)

        start = optimizer.init(filled(first))
        _, found = jax.lax.scan(walk, start, length=int(steps[-1]) + 1)
        return jax.tree.map(lambda x: x[-len(steps) :], found)

    # Sizes and zeros are operands: the compiler would compute whole arrays from constants.
    sizes = jnp.asarray(probes, float).T
    of_probe = after_history if history else fresh
    loop = jax.jit(lambda *operands: jax.lax.map(lambda each: of_probe(*each), operands))
    found = _concrete(loop(*sizes, jnp.zeros(len(probes))))
    # Subtracted from zero, so that no decay is 0 and not −0.
    leaves = jax.tree.leaves(found, is_leaf=trees.is_none)
    return [None if x is None else 0.0 - np.asarray(x, np.float64) for x in leaves]


def single_numbers(shapes: optax.Params) -> optax.Params:
    """The same tree with one number in the place of each array that has any."""
    return jax.tree.map(
        lambda p: jax.ShapeDtypeStruct([min(n, 1) for n in p.shape], p.dtype), shapes
    )


def remembers(optimizer: optax.GradientTransformation, shapes: optax.Params) -> bool:
    """Whether the state depends on parameters that were seen in updates: NaN would stay in it."""
    filled = _filling(shapes)

    @jax.jit
    def after(seen, zero):
        state = optimizer.init(filled(zero + 1))
        return optimizer.update(filled(zero), state, filled(seen))[1]

    def same(x, y):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        return bool(jnp.all((x == y) | ((x != x) & (y != y))))  # NaN is not itself

    states = (jax.tree.leaves(_concrete(after(seen, 0.0))) for seen in (1.0, jnp.nan))
    return not all(itertools.starmap(same, zip(*states, strict=True)))


def _concrete(found):
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(found)):
        raise ValueError(
            "the report measures the optimizer, so it must be made outside jax.jit, and the "
            "optimizer must be made of numbers or arrays, not of tracers"
        )
    return found


def _filling(shapes):
    def filled(value):
        return jax.tree.map(lambda p: jnp.full(p.shape, value, p.dtype), shapes)

    return filled

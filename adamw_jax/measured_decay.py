"""What steps of an optimizer take away, measured: without a gradient, that is the decay."""

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax import trees


def measured_decay(
    optimizer: optax.GradientTransformation, shapes: optax.Params, steps: np.ndarray
) -> list[np.ndarray | None]:
    """The fraction of each parameter that each step takes away.

    One step is measured with the shapes as they are. Several are measured with one number in the
    place of each array, so that no model is too large. That assumes that a decay depends on
    the step in the same way whatever the shape; it is checked where most decays, and where it
    fails, all steps are measured with the shapes as they are.

    Args:
      optimizer: any Optax transformation.
      shapes: the parameters' shapes and dtypes; None where there is no parameter.
      steps: the numbers of updates before the measured steps, consecutive int32s.

    Returns:
      For each parameter, None included, float64 fractions like `steps`: NaN where there is no
      fixed fraction, or where it depends on the step before.
    """
    if len(steps) == 1:
        return _fractions(optimizer, shapes, steps)
    alone = jax.tree.map(
        lambda p: jax.ShapeDtypeStruct([min(n, 1) for n in p.shape], p.dtype), shapes
    )
    decays = _fractions(optimizer, alone, steps)
    total = sum((np.abs(np.nan_to_num(d)) for d in decays if d is not None), np.zeros(len(steps)))
    most = int(total.argmax())
    full_size = _fractions(optimizer, shapes, steps[most : most + 1])

    def agree(alone, full):
        return alone is None or np.allclose(alone[most], full, rtol=1e-2, atol=0, equal_nan=True)

    if all(map(agree, decays, full_size)):
        return decays
    return _fractions(optimizer, shapes, steps)


def _fractions(optimizer, shapes, steps):
    """As `measured_decay`, with these shapes."""

    def fractions(leaf, once, twice):
        if leaf is None:
            return None
        (first, *second), (double, *_) = once, twice
        is_fraction = np.isfinite(first) & np.isclose(2 * first, double, rtol=1e-2, atol=0)
        for after in second:  # what a step takes after the one before it
            is_fraction[1:] &= np.isclose(after[:-1], first[1:], rtol=1e-2, atol=0)
        # A schedule that ends at zero may be rounded to less.
        rounded = (-float(jnp.finfo(leaf.dtype).eps) / 4 < first) & (first < 0)
        return np.where(is_fraction, np.where(rounded, 0.0, first), np.nan)

    leaves = jax.tree.leaves(shapes, is_leaf=trees.is_none)
    return list(map(fractions, leaves, *_taken_away(optimizer, shapes, steps)))


def _taken_away(optimizer, shapes, steps):
    """What steps without a gradient take from parameters that are all 1, and all 2.

    For each parameter, None included, a list: what each of the steps takes as the first of the
    run, and if there are several steps, what the next one takes. One number for each step, from
    the parameter's first element, since all are alike.
    """

    def changes(operands):
        size, zero, step = operands

        def filled(value):
            return jax.tree.map(lambda p: jnp.full(p.shape, value, p.dtype), shapes)

        def at_step(path, leaf):
            is_count = bool(path) and getattr(path[-1], "name", None) == "count"
            return jnp.full_like(leaf, step) if is_count else leaf

        state = jax.tree_util.tree_map_with_path(at_step, optimizer.init(filled(size)))
        found = []
        for _ in range(min(len(steps), 2)):
            updates, state = optimizer.update(filled(zero), state, filled(size))
            found.append(jax.tree.map(lambda u: jnp.ravel(u)[:1].sum().real, updates))
        return found

    # Sizes and zeros are operands: the compiler would compute whole arrays from constants.
    loop = jax.jit(lambda *operands: jax.lax.map(changes, operands))
    zeros, ones, twos = (jnp.full(len(steps), size) for size in (0.0, 1.0, 2.0))
    measured = [loop(sizes, zeros, jnp.asarray(steps)) for sizes in (ones, twos)]
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(measured)):
        raise ValueError(
            "decay_report measures the decay, so it must be called outside jax.jit, and its "
            "optimizer must be made of numbers or arrays, not of tracers"
        )

    def taken(*changes):
        # Subtracted from zero, so that no decay is 0 and not −0.
        return [None if x is None else 0.0 - np.asarray(x, np.float64) for x in changes]

    def by_parameter(trees_of_changes):
        columns = (jax.tree.leaves(tree, is_leaf=trees.is_none) for tree in trees_of_changes)
        return list(map(taken, *columns))

    return map(by_parameter, measured)

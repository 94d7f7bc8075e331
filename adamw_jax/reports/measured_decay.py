"""Whether steps of an optimizer decay the parameters, how fast and towards what, measured."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax import trees
from adamw_jax.reports.probes import Probe, remembers, single_numbers, taken_away

SMALL, LARGE = 2.0**-10, 2.0**6
UNIT = [Probe(1, 1), Probe(2, 2), Probe(1, 2)]
SIZES = [*UNIT, *(Probe(first * SMALL, now * SMALL) for first, now in UNIT)]
SIZES += [Probe(LARGE, LARGE), Probe(2 * LARGE, 2 * LARGE)]


class Decay(NamedTuple):
    r"""The decay of one parameter, whose steps take d (θ − c) from it.

    Attributes:
      fractions: d, a float64 for each step; NaN where there is no fixed fraction.
      towards: c: "zero"; "fixed weights", other ones that the optimizer was made with; or
        "earlier weights", which it saw: the first ones or their average. Empty where nothing
        decays.
      up_to: the largest \|θ − c\| of which the fraction holds in the step that takes most.
        From larger ones a step takes the same.
    """

    fractions: np.ndarray
    towards: str
    up_to: float


def measured_decay(
    optimizer: optax.GradientTransformation, shapes: optax.Params, steps: np.ndarray
) -> list[Decay | None]:
    """The decay of each parameter.

    One step is measured with the shapes as they are. Several are measured with one number in the
    place of each array, so that no model is too large; so are the steps before them, if the
    optimizer remembers what the parameters were. That assumes that a decay depends on the
    step in the same way whatever the shape; it is checked where most decays, and where it
    fails, all steps are measured with the shapes as they are.

    Args:
      optimizer: any Optax transformation.
      shapes: the parameters' shapes and dtypes; None where there is no parameter.
      steps: the numbers of updates before the measured steps, consecutive int32s.

    Returns:
      A decay for each parameter; None where there is none.
    """
    alone = single_numbers(shapes)
    leaves = jax.tree.leaves(shapes, is_leaf=trees.is_none)
    history = steps[-1] > 0 and remembers(optimizer, alone)

    def taken(shapes, steps=steps, history=history):
        return taken_away(optimizer, shapes, steps, SIZES, history)

    def agree(alone, full):
        return alone is None or np.allclose(alone, full, rtol=1e-2, atol=0, equal_nan=True)

    def found():
        if len(steps) == 1 and not history:
            return taken(shapes)
        try:
            run = taken(alone)
        except (TypeError, ValueError):  # the optimizer holds arrays of the parameters' shapes
            return taken(shapes)
        total = sum((np.abs(np.nan_to_num(t[2])) for t in run if t is not None), 0.0 * steps)
        most = steps[total.argmax()][None]
        at_most = (taken(tree, most, False) for tree in (alone, shapes))
        return run if all(map(agree, *at_most)) else taken(shapes)

    return list(map(_decay, leaves, found()))


def _decay(leaf, taken):
    """The decay of a parameter, from what is taken away at all `SIZES`."""
    if leaf is None:
        return None
    limits = jnp.finfo(leaf.dtype)
    eps, tiny = float(limits.eps), float(limits.tiny)
    d, at, earlier = _fraction(taken[:3], eps)
    small, at_small, _ = _fraction(taken[3:6] / SMALL, eps)
    is_limited = np.isclose(small, at_small, rtol=1e-2, atol=0) & (np.abs(taken[3]) >= tiny)
    is_limited &= ~np.isclose(d, small, rtol=2e-2, atol=0)
    fractions = np.where(is_limited, small, d)
    most = int(np.abs(fractions).argmax())  # that of a NaN, if there is one
    d, at, (once, twice) = float(fractions[most]), float(at[most]), taken[6:, most]
    if math.isnan(d) or d == 0:
        return Decay(fractions, "", math.inf)
    if earlier[most]:
        return Decay(fractions, "earlier weights", math.inf)
    from_zero = is_limited[most] or math.isclose(at, d, rel_tol=max(1e-4, 8 * eps))
    towards = "zero" if from_zero else "fixed weights"
    distance = 2 * LARGE - (0 if from_zero else 1 - at / d)
    if not math.isfinite(twice) or math.isclose(twice, d * distance, rel_tol=2e-2):
        return Decay(fractions, towards, math.inf)
    if math.isclose(once, twice, rel_tol=1e-2):
        return Decay(fractions, towards, float(twice / d))
    return Decay(np.full_like(fractions, math.nan), "", math.inf)


def _fraction(taken, eps):
    """The fraction d, where d (θ − c) is taken: from θ = 1, from 2, and from 2 after 1.

    Returns:
      d, NaN where there is none; what is taken at 1; whether c is where θ was before.
    """
    at, twice, moved = taken
    with np.errstate(invalid="ignore"):  # of what overflowed
        together, alone = twice - at, moved - at
        # An optimizer that puts its own copy in the parameters' place takes all that moved.
        d = np.where(np.isclose(alone, 1, rtol=1e-2, atol=0), together, alone)
        fixed = np.isclose(together, d, rtol=1e-2, atol=0) & (np.abs(at) <= 1e3 * np.abs(d))
        earlier = np.maximum(np.abs(at), np.abs(twice)) <= 1e-2 * d
    d = np.where(np.isfinite(d) & (fixed | earlier), d, math.nan)
    # A schedule that ends at zero may be rounded to less.
    return np.where((-eps / 4 < d) & (d < 0), 0.0, d), at, earlier & ~fixed

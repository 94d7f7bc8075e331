"""A table of an optimizer's weight decay: what decays, what does not, why, and how fast.

The decay is measured, not computed from the hyperparameters, so that any library's optimizer
will do: without a gradient, what a step takes away is decay.
"""

import math
import numbers
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax

from adamw_jax import trees
from adamw_jax.combine import check_transformations
from adamw_jax.conventions import timescale_from_per_step
from adamw_jax.hyperparameters import positive
from adamw_jax.parameters import parameters
from adamw_jax.reasons import joined, reasons

NO_FRACTION = (
    "?: what a step takes away is not a fixed fraction of the parameter, as with L2 inside an "
    "adaptive scaling or where updates are clipped, or is undefined, as with eps = 0"
)


class DecayRow(NamedTuple):
    """One parameter of a `DecayReport`.

    Attributes:
      path: the names from the root, joined by slashes.
      kind: the parameter's kind, as the rule `kind` defines it; None where the path does not
        tell.
      shape: the parameter's shape.
      decay_per_step: the fraction of the parameter that a step takes away: 0 where it does
        not decay, negative where it grows, NaN where there is no fixed fraction.
      timescale: the number of steps, or epochs, in which the decay takes the parameter to
        1/e: infinite where it does not decay, NaN where it grows or there is no fixed
        fraction.
      why: the rules that decided, as `repr` shows them.
    """

    path: str
    kind: str | None
    shape: tuple[int, ...]
    decay_per_step: float
    timescale: float
    why: str


class DecayReport(NamedTuple):
    """What `decay_report` found; prints as a table.

    Attributes:
      rows: one row for each parameter, in the order of the tree.
      unit: the unit of the timescale, "steps" or "epochs".
    """

    rows: tuple[DecayRow, ...]
    unit: str

    def __str__(self) -> str:
        head = "parameter", "kind", "shape", "decays", "λ per step", f"τ in {self.unit}", "why"
        note = [NO_FRACTION] if any(math.isnan(row.decay_per_step) for row in self.rows) else []
        return "\n".join([printed(head, map(_cells, self.rows)), self._sum(), *note])

    def _sum(self) -> str:
        decaying = [math.prod(row.shape) for row in self.rows if row.decay_per_step > 0]
        total = sum(math.prod(row.shape) for row in self.rows)
        return (
            f"{len(decaying)} of {len(self.rows)} arrays decay: "
            f"{sum(decaying):,} of {total:,} numbers"
        )


def printed(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table as text, its columns aligned."""
    table = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def decay_report(
    optimizer: optax.GradientTransformation,
    params: optax.Params,
    *,
    steps_per_epoch: float | None = None,
    step: int = 0,
) -> DecayReport:
    """Measures how much of each parameter a step takes away, and says which rule decided it.

    The optimizer takes a step from θ = 1 without a gradient. The step is compiled and returns
    one number for each array, so that a model of any size fits, and abstract parameters
    (`jax.eval_shape`) will do. Where the decay depends on the gradient, the report shows the
    decay without one: for `cautious_weight_decay` its value where it applies, for LAMB the
    trust ratio of the decay alone. Where momentum follows L2, it shows the first step.
    `optax.MultiSteps` moves nothing in most steps, and the wrappers for bfloat16 parameters
    nothing by so little: report on the optimizer inside them.

    Args:
      optimizer: any Optax transformation. The report names rules only from this library's
        masks and groups by rule.
      params: the parameters, or a tree with their shapes and dtypes.
      steps_per_epoch: > 0; if given, the timescale is in epochs.
      step: ≥ 0, the number of updates before the one shown, which is what schedules see.

    Returns:
      A report, to be printed.

    Raises:
      ValueError: an argument is out of range, a parameter is not floating-point or
        complex (with the paths), or the hyperparameters are tracers.
    """
    check_transformations("decay_report", [optimizer])
    trees.check_floating(params, arrays_only=True)
    steps = positive("steps_per_epoch", 1 if steps_per_epoch is None else steps_per_epoch)
    if not (isinstance(step, numbers.Integral) and 0 <= step < 2**31):
        raise ValueError(f"step must be a whole number in [0, 2³¹), got {step!r}")
    found, shapes = parameters(params), jax.eval_shape(lambda tree: tree, params)
    leaves = jax.tree.leaves(shapes, is_leaf=trees.is_none)
    once, twice = _taken_away(optimizer, shapes, step)
    why = reasons(getattr(optimizer, "description", None), found)

    def row(parameter, leaf, decay, double, why):
        is_fraction = math.isfinite(decay) and math.isclose(2 * decay, double, rel_tol=1e-2)
        decay = decay if is_fraction else math.nan
        least = float(jnp.finfo(leaf.dtype).eps) / 4
        if 0 < decay < least:
            why = joined(why, f"too small for {leaf.dtype} without a gradient")
        elif -least < decay < 0:  # a schedule that ends at zero, rounded
            decay = 0.0
        timescale = timescale_from_per_step(decay, steps) if decay >= 0 else math.nan
        return DecayRow(parameter.path, parameter.kind, leaf.shape, decay, timescale, why)

    rows = zip(found, leaves, once, twice, why, strict=True)
    unit = "steps" if steps_per_epoch is None else "epochs"
    return DecayReport(tuple(row(*cells) for cells in rows if cells[1] is not None), unit)


def _taken_away(optimizer, shapes, step):
    """What a step without a gradient takes from parameters that are all 1, and all 2.

    One number for each parameter, from its first element, since all are alike; None where
    the parameter is None.
    """

    # The numbers are operands: the compiler would compute whole arrays from constants.
    @jax.jit
    def first_changes(size, zero, step):
        def filled(value):
            return jax.tree.map(lambda p: jnp.full(p.shape, value, p.dtype), shapes)

        def at_step(path, leaf):
            is_count = bool(path) and getattr(path[-1], "name", None) == "count"
            return jnp.full_like(leaf, step) if is_count else leaf

        state = jax.tree_util.tree_map_with_path(at_step, optimizer.init(filled(size)))
        updates, _ = optimizer.update(filled(zero), state, filled(size))
        firsts = jax.tree.map(lambda u: jnp.ravel(u)[:1].sum().real, updates)
        return jax.tree.leaves(firsts, is_leaf=trees.is_none)

    changes = [first_changes(size, 0.0, step) for size in (1.0, 2.0)]
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(changes)):
        raise ValueError(
            "decay_report measures the decay, so it must be called outside jax.jit, and its "
            "optimizer must be made of numbers or arrays, not of tracers"
        )
    # Subtracted from zero, so that no decay is 0 and not −0.
    return [[None if x is None else 0.0 - float(x) for x in leaves] for leaves in changes]


def _cells(row: DecayRow) -> tuple[str, ...]:
    if row.decay_per_step > 0:
        decay = "yes", f"{row.decay_per_step:.3g}", f"{row.timescale:.4g}"
    elif row.decay_per_step < 0:
        decay = "grows", f"{row.decay_per_step:.3g}", ""
    else:
        decay = "?" if math.isnan(row.decay_per_step) else "no", "", ""
    shape = "×".join(map(str, row.shape)) or "number"
    return row.path or "(the root)", row.kind or "?", shape, *decay, row.why

"""What decays, what does not, why, and how fast: a table of an optimizer's weight decay.

The shares are not computed from the hyperparameters but measured, so that the report is
true of any Optax optimizer: without a gradient, all that a step takes away is decay.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamw_jax import numerics
from adamw_jax.conventions import timescale_from_per_step
from adamw_jax.core import Description
from adamw_jax.masks import decay_except, decay_only
from adamw_jax.rules import Parameter, as_rule, first_matches, parameters


class DecayRow(NamedTuple):
    """One parameter of a `DecayReport`.

    Attributes:
      path: names from the root, joined by slashes.
      kind: "weight", "bias", "scale" or "embedding"; None where nothing tells.
      shape: of the parameter.
      decay_per_step: share of the parameter that a step takes away; 0 where none decays,
        NaN where what is taken away is no share of the parameter (L2 inside an adaptive
        scaling).
      timescale: steps, or epochs, in which that takes it to 1/e; infinite where none
        decays.
      why: the rules that decided.
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
      rows: one for each parameter, in the order of the tree.
      unit: of the timescale, "steps" or "epochs".
    """

    rows: tuple[DecayRow, ...]
    unit: str

    def __str__(self) -> str:
        head = "parameter", "kind", "shape", "decays", "λ per step", f"τ in {self.unit}", "why"
        table = [head, *map(_cells, self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
        return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:], self._sum()])

    def _sum(self) -> str:
        decaying = [math.prod(row.shape) for row in self.rows if row.decay_per_step > 0]
        total = sum(math.prod(row.shape) for row in self.rows)
        return (
            f"{len(decaying)} of {len(self.rows)} arrays decay: "
            f"{sum(decaying):,} of {total:,} numbers"
        )


def decay_report(
    optimizer: optax.GradientTransformation,
    params: optax.Params,
    *,
    steps_per_epoch: float | None = None,
    step: int = 0,
) -> DecayReport:
    """Finds out how much of each parameter a step takes away, and which rule says so.

    The optimizer takes a step at θ = 1 without a gradient, on arrays of one number each;
    so a large model costs nothing, and abstract parameters (`jax.eval_shape`) will do.
    Decay that depends on the gradient (`cautious_weight_decay`) is shown where it applies.
    Of momentum after L2 the first step is shown. `optax.MultiSteps` moves nothing in most
    steps: report on the optimizer inside.

    Args:
      optimizer: any Optax transformation. The reasons are known for masks by rule and
        groups of this library.
      params: the parameters, or anything like them with shapes and dtypes.
      steps_per_epoch: makes the timescale one in epochs.
      step: the step at which schedules are seen, the number of updates before it.

    Returns:
      A report; `print` it.
    """
    found, shapes = parameters(params), jax.eval_shape(lambda tree: tree, params)
    leaves = jax.tree.leaves(shapes, is_leaf=numerics.is_none)
    once, twice = (_taken_away(optimizer, shapes, size, step) for size in (1.0, 2.0))
    why = _reasons(getattr(optimizer, "description", None), found)

    def row(parameter, leaf, share, double, why):
        share = share if math.isclose(2 * share, double, rel_tol=1e-3) else math.nan
        timescale = timescale_from_per_step(share, steps_per_epoch or 1)
        path, kind, _ = parameter
        return DecayRow(path, kind, leaf.shape, share, timescale, why)

    rows = zip(found, leaves, once, twice, why, strict=True)
    unit = "steps" if steps_per_epoch is None else "epochs"
    return DecayReport(tuple(row(*cells) for cells in rows if cells[1] is not None), unit)


def _taken_away(optimizer, shapes, size, step):
    """What a step without a gradient takes away from each parameter, all of them `size`."""

    def filled(value):
        def leaf(p):
            dtype = jnp.complex64 if jnp.issubdtype(p.dtype, jnp.complexfloating) else jnp.float32
            return jnp.full((1,) * len(p.shape), value, dtype)

        return jax.tree.map(leaf, shapes)

    state = optimizer.init(filled(size))
    if optax.tree.get_all_with_path(state, "count"):
        state = optax.tree.set(state, count=jnp.int32(step))
    updates, _ = optimizer.update(filled(0.0), state, filled(size))
    leaves = jax.tree.leaves(updates, is_leaf=numerics.is_none)
    return [None if u is None else 0.0 - float(jnp.ravel(u)[0].real) for u in leaves]


def _reasons(part: Any, found: list[Parameter]) -> list[str]:
    """Which rules decide on each parameter, read off the composition."""
    match part:
        case dict():  # the groups of a partition
            reasons = [(as_rule(rule), _reasons(tx, found)) for rule, tx in part.items()]
            picked = first_matches([rule for rule, _ in reasons], found, required=False)
            inside = dict(reasons)
            return [
                _joined(f"in {rule}", inside[rule][i]) if rule else ""
                for i, rule in enumerate(picked)
            ]
        case Description() if part.constructor in (decay_except, decay_only):
            mask = part.constructor(*(rule.constructor(*rule.args) for rule in part.args))
            verb = "picked" if mask.picked else "left out"
            picked = first_matches(mask.rules, found, required=False)
            return [f"{verb} by {rule or 'no rule'}" for rule in picked]
        case Description():
            parts = [*part.args, *part.kwargs.values()]
            inside = [_reasons(inner, found) for inner in parts]
            own_mask = part.kwargs.get("mask")
            if own_mask is not None and not isinstance(own_mask, Description):
                inside.append(["a mask without rules"] * len(found))
            return [_joined(*reasons) for reasons in zip([""] * len(found), *inside, strict=True)]
        case _:
            return [""] * len(found)


def _joined(*reasons: str) -> str:
    return "; ".join(dict.fromkeys(filter(None, reasons)))


def _cells(row: DecayRow) -> tuple[str, ...]:
    if row.decay_per_step == 0:
        decays, share, timescale = "no", "", ""
    elif math.isnan(row.decay_per_step):
        decays, share, timescale = "L2", "scaled", ""
    else:
        decays, share, timescale = "yes", f"{row.decay_per_step:.3g}", f"{row.timescale:.4g}"
    shape = "×".join(map(str, row.shape)) or "number"
    return row.path or "(the root)", row.kind or "?", shape, decays, share, timescale, row.why

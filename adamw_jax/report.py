"""A table of an optimizer's weight decay: what decays, what does not, why, and how fast.

The decay is measured, not computed from the hyperparameters, so that any library's optimizer
will do: without a gradient, what a step takes away is decay.
"""

import dataclasses
import math
import numbers
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax import trees
from adamw_jax.combine import check_transformations
from adamw_jax.conventions import timescale_from_per_step
from adamw_jax.hyperparameters import positive
from adamw_jax.measured_decay import measured_decay
from adamw_jax.parameters import parameters
from adamw_jax.reasons import joined, reasons

NO_FRACTION = (
    "?: what a step takes away is not a fixed fraction of the parameter, as with L2 inside an "
    "adaptive scaling or where updates are clipped, or is undefined, as with eps = 0"
)
DEPENDS = ", or depends on the steps before, as with L2 under momentum"
IN_A_RUN = (
    "Over {:,} steps: λ and τ in the step that takes most, τ in the last, what decay alone leaves, "
    "and the share of the steps that have 90 % of the decay"
)


@dataclasses.dataclass(frozen=True, eq=False)
class DecayOverRun:
    """The decay of one parameter over a run, from d, the fractions that its steps take away.

    Attributes:
      per_step: d, a float64 for each step, NaN where there is no fixed fraction.
      timescale_at_end: the timescale in the last step, in the unit of the report: infinite
        where it takes nothing away, NaN where the parameter grows or there is no fixed
        fraction.
    """

    per_step: np.ndarray
    timescale_at_end: float

    @property
    def remaining(self) -> float:
        """∏ (1 − d), the fraction of the parameter that decay alone leaves after the run."""
        return float(np.prod(1 - self.per_step))

    @property
    def share(self) -> float:
        """The share of the steps in which decay acts, which have nine tenths of all decay.

        It is the least share of the steps whose d add up to 0.9 ∑ d, wherever in the run they
        are: 0.9 where d is constant, 0 where nothing decays, NaN where the parameter grows
        in a step or there is no fixed fraction.
        """
        if not self.per_step.min() >= 0:
            return math.nan
        sums = np.cumsum(np.sort(self.per_step)[::-1])
        enough = 0.9 * (1 - 1e-9) * sums[-1]  # so that no step is added by rounding
        return float(np.searchsorted(sums, enough) + (sums[-1] > 0)) / len(sums)


class DecayRow(NamedTuple):
    """One parameter of a `DecayReport`.

    Attributes:
      path: the names from the root, joined by slashes.
      kind: the parameter's kind, as the rule `kind` defines it; None where the path does not
        tell.
      shape: the parameter's shape.
      decay_per_step: the fraction of the parameter that a step takes away, over a run the
        step that takes most: 0 where it does not decay, negative where it grows, NaN where
        there is no fixed fraction.
      timescale: the number of steps, or epochs, in which the decay takes the parameter to
        1/e if every step is like that one: infinite where it does not decay, NaN where it
        grows or there is no fixed fraction.
      why: the rules that decided, as `repr` shows them.
      over_run: the decay in all steps of a run; None in a report on one step.
    """

    path: str
    kind: str | None
    shape: tuple[int, ...]
    decay_per_step: float
    timescale: float
    why: str
    over_run: DecayOverRun | None = None


class DecayReport(NamedTuple):
    """What `decay_report` found; prints as a table.

    Attributes:
      rows: one row for each parameter, in the order of the tree.
      unit: the unit of the timescale, "steps" or "epochs".
    """

    rows: tuple[DecayRow, ...]
    unit: str

    def __str__(self) -> str:
        run = next((row.over_run for row in self.rows if row.over_run), None)
        numbers = "λ per step", f"τ in {self.unit}"
        if run:
            numbers = "largest λ", numbers[1], "τ at the end", "remains", "acts in"
        head = "parameter", "kind", "shape", "decays", *numbers, "why"
        notes = [IN_A_RUN.format(len(run.per_step))] if run else []
        if any(math.isnan(row.decay_per_step) for row in self.rows):
            notes.append(NO_FRACTION + DEPENDS * bool(run))
        return "\n".join([printed(head, map(_cells, self.rows)), self._sum(), *notes])

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
    steps: int | None = None,
) -> DecayReport:
    """Measures how much of each parameter a step takes away, and says which rule decided it.

    The optimizer takes a step from θ = 1 without a gradient. The step is compiled and returns
    one number for each array, so that a model of any size fits, and abstract parameters
    (`jax.eval_shape`) will do. Where the decay depends on the gradient, the report shows the
    decay without one: for `cautious_weight_decay` its value where it applies, for LAMB the
    trust ratio of the decay alone. Where momentum follows L2, it shows the first step.
    `optax.MultiSteps` moves nothing in most steps, and the wrappers for bfloat16 parameters
    nothing by so little: report on the optimizer inside them.

    With `steps`, every step of a run is measured in the same way, from the first state with its
    counts set to that step, so that schedules are followed and nothing else is. Where a step
    takes away something else after the one before it, as with L2 under momentum or in
    Schedule-Free, there is no fixed fraction. In place of each array there is a single
    number, unless that makes a difference in the step that takes most.

    Args:
      optimizer: any Optax transformation. The report names rules only from this library's
        masks and groups by rule.
      params: the parameters, or a tree with their shapes and dtypes.
      steps_per_epoch: > 0; if given, the timescale is in epochs.
      step: ≥ 0, the number of updates before the one shown, which is what schedules see.
      steps: ≥ 1; if given, the report is on so many steps from `step` on.

    Returns:
      A report, to be printed. With `steps`, its rows have `over_run`.

    Raises:
      ValueError: an argument is out of range, a parameter is not floating-point or
        complex (with the paths), or the hyperparameters are tracers.
    """
    check_transformations("decay_report", [optimizer])
    trees.check_floating(params, arrays_only=True)
    per_epoch = positive("steps_per_epoch", 1 if steps_per_epoch is None else steps_per_epoch)
    if not (isinstance(step, numbers.Integral) and 0 <= step < 2**31):
        raise ValueError(f"step must be a whole number in [0, 2³¹), got {step!r}")
    if steps is not None and not (
        isinstance(steps, numbers.Integral) and 0 < steps <= 2**31 - step
    ):
        raise ValueError(f"steps must be a whole number in [1, 2³¹ − step], got {steps!r}")
    found, shapes = parameters(params), jax.eval_shape(lambda tree: tree, params)
    leaves = jax.tree.leaves(shapes, is_leaf=trees.is_none)
    decays = measured_decay(optimizer, shapes, step + np.arange(steps or 1, dtype=np.int32))
    why = reasons(getattr(optimizer, "description", None), found)

    def timescale(decay):
        return timescale_from_per_step(decay, per_epoch) if decay >= 0 else math.nan

    def row(parameter, leaf, decays, why):
        decay = float(decays[np.abs(decays).argmax()])  # NaN, if there is one
        if 0 < decay < float(jnp.finfo(leaf.dtype).eps) / 4:
            why = joined(why, f"too small for {leaf.dtype} without a gradient")
        over_run = None if steps is None else DecayOverRun(decays, timescale(float(decays[-1])))
        cells = parameter.path, parameter.kind, leaf.shape, decay, timescale(decay), why
        return DecayRow(*cells, over_run)

    rows = zip(found, leaves, decays, why, strict=True)
    unit = "steps" if steps_per_epoch is None else "epochs"
    return DecayReport(tuple(row(*cells) for cells in rows if cells[1] is not None), unit)


def _cells(row: DecayRow) -> tuple[str, ...]:
    decay, run = row.decay_per_step, row.over_run
    answer = "yes" if decay > 0 else "grows" if decay < 0 else "?" if math.isnan(decay) else "no"
    cells = [f"{decay:.3g}", _printed_number(row.timescale)]
    if run:
        cells += [_printed_number(run.timescale_at_end), f"{run.remaining:.3g}"]
        cells += ["" if math.isnan(run.share) else f"{run.share:.0%}"]
    if answer in ("?", "no"):
        cells = [""] * len(cells)
    shape = "×".join(map(str, row.shape)) or "number"
    return row.path or "(the root)", row.kind or "?", shape, answer, *cells, row.why


def _printed_number(timescale: float) -> str:
    if math.isnan(timescale):
        return ""
    return "∞" if timescale == math.inf else f"{timescale:.4g}"

"""A report of weight decay as data, and as a table."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from adamw_jax.reports.tables import printed

NO_FRACTION = (
    "?: what a step takes away is not a fixed fraction of the parameter, as with L2 inside an "
    "adaptive scaling or where updates are clipped, or is undefined, as with eps = 0"
)
DEPENDS = ", or depends on the steps before, as with L2 under momentum"
TOWARDS = {
    "fixed weights": "to fixed weights: λ is the fraction of the distance to weights that the "
    "optimizer was made with",
    "earlier weights": "to earlier weights: λ is the fraction of the distance to the first "
    "weights, or to an average of those since",
}
UP_TO = (
    "up to: λ is that of weights at most so large, or so far away; from others a step takes no more"
)
IN_A_RUN = (
    "Over {:,} steps: λ and τ in the step that takes most, τ in the last, what decay alone leaves, "
    "and the share of the steps that have 90 % of the decay"
)


@dataclasses.dataclass(frozen=True, eq=False)
class DecayOverRun:
    """The decay of one parameter over a run, from d, the fractions that its steps take away.

    Where the decay is not towards zero, they are fractions of the distance.

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
      decay_per_step: the fraction of the parameter, or of its distance to `towards`, that a
        step takes away, over a run the step that takes most: 0 where it does not decay,
        negative where it grows, NaN where there is no fixed fraction.
      timescale: the number of steps, or epochs, in which the decay takes the parameter to
        1/e if every step is like that one: infinite where it does not decay, NaN where it
        grows or there is no fixed fraction.
      why: the rules that decided, as `repr` shows them.
      over_run: the decay in all steps of a run; None in a report on one step.
      towards: "zero"; "fixed weights", which the optimizer was made with; or "earlier
        weights", the first ones or their average. Empty where nothing decays.
      up_to: the largest size, or distance, of which the fraction holds in that step, if all
        parameters are alike: from larger ones it takes no more. Otherwise infinite.
    """

    path: str
    kind: str | None
    shape: tuple[int, ...]
    decay_per_step: float
    timescale: float
    why: str
    over_run: DecayOverRun | None = None
    towards: str = ""
    up_to: float = math.inf


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
        notes += [note for to, note in TOWARDS.items() if any(r.towards == to for r in self.rows)]
        notes += [UP_TO] * any(row.up_to < math.inf for row in self.rows)
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


def _cells(row: DecayRow) -> tuple[str, ...]:
    decay, run = row.decay_per_step, row.over_run
    answer = "?" if math.isnan(decay) else "grows" if decay < 0 else "yes" if decay else "no"
    if row.towards in TOWARDS and decay > 0:
        answer = f"to {row.towards}"
    if row.up_to < math.inf:
        answer += f", up to {row.up_to:.3g}"
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

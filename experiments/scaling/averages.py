"""Whether the best β₂ depends on the batch size, and what the rules for it cost."""

from collections.abc import Sequence

import numpy as np

import adamw_jax
from experiments.harness import formats
from experiments.harness.report import Table
from experiments.scaling.cells import Cell, base
from experiments.scaling.surfaces import Surfaces


def scores(surfaces: Surfaces) -> dict[int, dict[float, np.ndarray]]:
    """By batch size and β₂, the scores with α and λ tuned, float64[seeds]."""
    cells, least = surfaces.cells, surfaces.least()
    start = cells[base(cells)]
    b2s = sorted({cell.b2 for cell in cells})
    found: dict[int, dict[float, np.ndarray]] = {}
    for batch in sorted({cell.batch_size for cell in cells}):
        for b2 in b2s:
            here = start._replace(batch_size=batch, b2=b2)
            found.setdefault(batch, {})[b2] = least[cells.index(here)]
    return found


def predicted(old: Cell, batch_size: int) -> dict[str, float | None]:
    """β₂ by each rule, None where the rule has none, from a cell to another batch size."""
    report = adamw_jax.scaling_report(old.tuned(1.0, 1.0), batch_size=batch_size)
    made = {}
    for rule in report.kinds["averages"]:
        try:
            made[rule] = report.run("same α", "same λ", rule).b2
        except ValueError:
            made[rule] = None
    return made


def _at(curve: dict[float, np.ndarray], b2: float) -> float:
    """The mean score at a β₂, interpolated linearly over log(1 − β₂); beyond an end, at the end."""
    x = -np.log1p(-np.array([*curve]))
    return float(np.interp(-np.log1p(-b2), x, [each.mean() for each in curve.values()]))


def compare(surfaces: Surfaces) -> tuple[Table, str]:
    """A table of β₂ over batch sizes, and what it says in a sentence."""
    found, start = scores(surfaces), surfaces.cells[base(surfaces.cells)]
    best = {batch: min(curve, key=lambda b2: curve[b2].mean()) for batch, curve in found.items()}
    old = start._replace(b2=best[start.batch_size])
    rows, costs = [], {}
    for batch, curve in found.items():
        rows.append(
            [
                f"batch {batch:,}",
                *(f"{each.mean():.4f}" for each in curve.values()),
                f"{best[batch]:g}",
            ]
        )
        if batch == start.batch_size:
            continue
        for rule, b2 in predicted(old, batch).items():
            if b2 is None:
                rows.append([f"batch {batch:,}, {rule}", *[""] * len(curve), "none"])
                continue
            cost = 100 * (_at(curve, b2) / curve[best[batch]].mean() - 1)
            costs.setdefault(rule, []).append(cost)
            shown = f"{b2:.6g}: {formats.signed(cost, 1)} %"
            rows.append([f"batch {batch:,}, {rule}", *[""] * len(curve), shown])
    spread = {
        batch: 100 * (max(e.mean() for e in curve.values()) / curve[best[batch]].mean() - 1)
        for batch, curve in found.items()
    }
    listed = "; ".join(
        f"{batch:,}: {best[batch]:g}, and the worst costs {spread[batch]:.1f} %" for batch in found
    )
    by_rule = ", ".join(f"“{rule}” {np.max(each):.1f} %" for rule, each in costs.items())
    said = (
        f"The best β₂ by batch size, with α and λ tuned for each: {listed}. From batches of "
        f"{start.batch_size:,}, the rules cost at most: {by_rule}."
    )
    note = (
        "Calibrated loss with α and λ tuned for each β₂. Under the batch sizes, what a rule makes "
        "of the base's best β₂, and what that costs; scores between the values are interpolated."
    )
    columns = ["", *(f"β₂ = {b2:g}" for b2 in _b2s(found)), "best"]
    return Table("β₂ over batch sizes", columns, rows, note), said


def _b2s(found: dict[int, dict[float, np.ndarray]]) -> Sequence[float]:
    return [*next(iter(found.values()))]

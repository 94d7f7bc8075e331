"""The tables of costs, predictions and optima."""

import math
from collections.abc import Mapping

import numpy as np

from experiments.harness import formats
from experiments.harness.report import Table
from experiments.scaling.cells import Cell, base, factors, moves
from experiments.scaling.surfaces import Carried, Surfaces, reach
from experiments.training.scores import ERROR, LOSS

ByFactor = Mapping[float, Mapping[str, Carried]]
NAMES = {
    "batch_size": "batch sizes",
    "images": "numbers of images",
    "width": "widths",
    "epochs": "numbers of epochs",
}


def factor_text(factor: float) -> str:
    """A factor, below 1 as a fraction."""
    return f"{factor:g}" if factor > 1 else f"1/{1 / factor:g}"


def cost_text(each: Carried, digits: int = 1) -> str:
    """A cost with its interval."""
    mean, low, high = (formats.signed(x, digits) for x in each.interval)
    return f"{mean} [{low}, {high}]"


def costs(
    axis: str,
    loss: ByFactor,
    error: ByFactor,
    powers: Mapping[str, np.ndarray],
    most: float,
) -> Table:
    """A row for each rule: its powers, what it costs by factor, and how far it carries over."""
    some = next(iter(loss))
    rows = []
    for rule in sorted(loss[some], key=lambda r: np.mean([e[r].costs[0] for e in loss.values()])):
        reached = reach(loss, rule, most)
        misses = np.exp(np.mean([np.log(each[rule].misses) for each in loss.values()], 0))
        points = float(np.mean([each[rule].costs[0] for each in error.values()]))
        rows.append(
            [
                rule,
                *(cost_text(each[rule]) for each in loss.values()),
                f"{reached:g}" if reached > 1 else "no",
                formats.signed(points),
                *(f"{miss:.1f}" for miss in misses),
                "{} of {}".format(*np.sum([each[rule][2:] for each in loss.values()], 0)),
            ]
        )
    columns = ["", *map(factor_text, loss), "carries over", "error", "misses α by", "λ by"]
    columns.append("beyond the grid")
    note = (
        "Cost in percent of the calibrated loss of tuning again, by the factor, means over all "
        f"moves with 95 % intervals. Carries over: by which factor, up and down, at below {most:g} "
        "%. Error: mean cost in points over all moves. Misses: the factor between prediction and "
        "the cell's own optimum, a geometric mean. Beyond the grid: predictions, which then "
        "count at its edge."
    )
    if axis in powers:
        alpha, decay = (
            "{} [{}, {}]".format(
                *map(formats.signed, [power[0], *np.quantile(power[1:], [0.025, 0.975])])
            )
            for power in powers[axis].T
        )
        note += f" Measured powers: α ∝ size^{alpha}, λ ∝ size^{decay}."
    return Table(f"What following a rule costs over {NAMES[axis]}", columns, rows, note)


def _label(cell: Cell, like: Cell | None = None) -> str:
    """A cell's sizes; only those that differ from another's."""
    shown = {
        "batch": cell.batch_size,
        "images": cell.images,
        "width": cell.width,
        "epochs": cell.epochs,
        "β₂": cell.b2,
    }
    differ = [like is None or a != b for a, b in zip(cell, like or cell, strict=True)]
    return ", ".join(
        f"{name} {value:,}" for (name, value), d in zip(shown.items(), differ, strict=True) if d
    )


def _intervals(optima: np.ndarray) -> list[str]:
    """α and λ of one cell with their 95 % intervals, from their logarithms."""
    low, high = np.exp(np.quantile(optima[1:], [0.025, 0.975], axis=0))
    return [
        f"{x:.2g} [{a:.2g}, {b:.2g}]" for x, a, b in zip(np.exp(optima[0]), low, high, strict=True)
    ]


def beside(surfaces: Surfaces) -> Table:
    """Each rule's prediction from the base cell, beside what was measured."""
    cells, start, optima = surfaces.cells, base(surfaces.cells), surfaces.optima()
    rows = []
    for move in moves(cells):
        if move.old != start:
            continue
        measured = _intervals(optima[:, move.new])
        rows.append([_label(cells[move.new], cells[start]) + ", measured", *measured, ""])
        for rule, factor in factors(cells[start], cells[move.new]).items():
            predicted = optima[:, start] + np.log(factor)
            cost = 100 * surfaces.costs(move.new, predicted)[0] / surfaces.least()[move.new].mean()
            numbers = (f"{x:.2g}" for x in np.exp(predicted[0]))
            rows.append([rule, *numbers, cost_text(Carried(cost, np.ones(2), 0, 1))])
    note = (
        f"From {_label(cells[start])}, where α = {' and λ = '.join(_intervals(optima[:, start]))} "
        "are best. Cost in percent of the calibrated loss, with 95 % intervals."
    )
    return Table("Predicted and measured", ["", "α", "λ", "cost, %"], rows, note)


def every_cell(surfaces: Mapping[str, Surfaces]) -> Table:
    """The optimum in every cell."""
    loss, error = surfaces[LOSS], surfaces[ERROR]
    rows = []
    for i, cell in enumerate(loss.cells):
        optima = loss.optima()[:, i]
        tau = math.exp(-optima[0].sum()) / cell.steps
        edges = [name for name, at in zip(("α", "τ"), loss.at_edge[i], strict=True) if at]
        rows.append(
            [
                _label(cell),
                *_intervals(optima),
                formats.timescale(tau),
                f"{loss.least()[i].mean():.4g}",
                f"{error.least()[i].mean():.4g}",
                " ".join(edges),
            ]
        )
    columns = ["", "α", "λ", "τ", LOSS, ERROR, "at an end"]
    note = (
        "The optimum by calibrated loss, with 95 % intervals; τ in epochs. Scores: validation "
        "images, means of the seeds, each at the optimum of the others. At an end: of the grid."
    )
    return Table("The optimum in every cell", columns, rows, note)

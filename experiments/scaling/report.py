"""What the scores say about the rules, in sentences, tables and a plot."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from experiments.harness import formats, plots
from experiments.harness.report import Figure, Report, Table
from experiments.scaling import averages
from experiments.scaling.cells import AXES, Cell, base, factors, moves
from experiments.scaling.surfaces import Carried, Surfaces, carried, exponents, reach
from experiments.training.scores import ERROR, LOSS

ByFactor = Mapping[float, Mapping[str, Carried]]
NAMES = {
    "batch_size": "batch sizes",
    "images": "numbers of images",
    "width": "widths",
    "epochs": "numbers of epochs",
}


def summarize(runs: pl.DataFrame, config: Any) -> Report:
    """Finds the optima, and what following each rule from one to another costs.

    Args:
      runs: a row for every run, as `Surfaces.of` takes it.
      config: the settings.
    """
    cells = config.cells
    surfaces = {measure: Surfaces.of(runs, measure, cells) for measure in (LOSS, ERROR)}
    steps = moves(cells)
    loss = carried(surfaces[LOSS], steps, relative=True)
    error = carried(surfaces[ERROR], steps, relative=False)
    powers = exponents(surfaces[LOSS])
    axes = [axis for axis in AXES if axis in loss]
    tables = [_rules(axis, loss[axis], error[axis], powers, config.carries) for axis in axes]
    tables += [_beside(surfaces[LOSS]), _cells(surfaces)]
    findings = [finding(axis, loss[axis], config.carries) for axis in axes]
    findings.append(at_ends(surfaces[LOSS], loss))
    if len(config.b2s) > 1:
        table, said = averages.compare(surfaces[LOSS])
        tables.insert(-2, table)
        findings.insert(-1, said)
    figure = _figure(axes, loss, config.carries)
    return Report("", findings, tables, [figure], {"runs": runs.to_dicts()})


def best(by_factor: ByFactor) -> str:
    """The rule with the least mean cost over all factors."""
    rules = next(iter(by_factor.values()))
    return min(
        rules, key=lambda rule: np.mean([each[rule].costs[0] for each in by_factor.values()])
    )


def nothing(by_factor: ByFactor) -> str:
    """The rule that changes neither α nor λ."""
    return next(rule for rule in next(iter(by_factor.values())) if rule.rpartition("same λ")[1])


def finding(axis: str, by_factor: ByFactor, most: float) -> str:
    """Which rule carries over along an axis, and what changing nothing costs."""
    rules = next(iter(by_factor.values()))
    reached = {rule: reach(by_factor, rule, most) for rule in rules}
    largest = max(max(f, 1 / f) for f in by_factor)
    carry = [rule for rule in rules if reached[rule] == largest]
    first = best(by_factor)
    ends = [f for f in by_factor if math.isclose(max(f, 1 / f), largest)]
    said = {
        rule: " and ".join(f"{_cost(by_factor[f][rule])} % for {_factor(f)}" for f in ends)
        for rule in (first, nothing(by_factor))
    }
    verdict = (
        f"{len(carry)} of {len(rules)} rules carry over by {largest:g}"
        if carry
        else f"no rule carries over by {largest:g}"
    )
    return (
        f"Over {NAMES[axis]}, {verdict}. The cheapest is “{first}”, which costs {said[first]}; "
        f"“{nothing(by_factor)}”, which changes nothing, costs {said[nothing(by_factor)]}."
    )


def at_ends(surfaces: Surfaces, loss: Mapping[str, ByFactor]) -> str:
    """How often an optimum or a prediction is at an end of the grid or beyond."""
    at = surfaces.at_edge.sum(0)
    each = [c for by in loss.values() for rules in by.values() for c in rules.values()]
    beyond, total = sum(c.beyond for c in each), sum(c.moves for c in each)
    return (
        f"Of {len(surfaces.cells)} optima, {at[0]} are at an end of the grid in α and {at[1]} in "
        f"τ. Of {total:,} predictions, {beyond:,} are beyond the grid and count at its edge."
    )


def _factor(factor: float) -> str:
    return f"{factor:g}" if factor > 1 else f"1/{1 / factor:g}"


def _cost(each: Carried, digits: int = 1) -> str:
    mean, low, high = (formats.signed(x, digits) for x in each.interval)
    return f"{mean} [{low}, {high}]"


def _rules(
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
                *(_cost(each[rule]) for each in loss.values()),
                f"{reached:g}" if reached > 1 else "no",
                formats.signed(points),
                *(f"{miss:.1f}" for miss in misses),
            ]
        )
    columns = ["", *map(_factor, loss), "carries over", "error", "misses α by", "and λ by"]
    note = (
        "Cost in percent of the calibrated loss of tuning again, by the factor, means over all "
        f"moves with 95 % intervals. Carries over: by which factor, up and down, at below {most:g} "
        "%. Error: mean cost in points over all moves. Misses: the factor between prediction and "
        "the cell's own optimum, a geometric mean."
    )
    if axis in powers:
        alpha, decay = (
            "{} [{}, {}]".format(
                *map(formats.signed, [power[0], *np.quantile(power[1:], [0.025, 0.975])])
            )
            for power in powers[axis].T
        )
        note += f" Measured powers: α ∝ size^{alpha}, λ ∝ size^{decay}."
    return Table(f"Over {NAMES[axis]}", columns, rows, note)


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


def _beside(surfaces: Surfaces) -> Table:
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
            rows.append([rule, *numbers, _cost(Carried(cost, np.ones(2), 0, 1))])
    note = (
        f"From {_label(cells[start])}, where α = {' and λ = '.join(_intervals(optima[:, start]))} "
        "are best. Cost in percent of the calibrated loss, with 95 % intervals."
    )
    return Table("Predicted and measured", ["", "α", "λ", "cost, %"], rows, note)


def _cells(surfaces: Mapping[str, Surfaces]) -> Table:
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


def _figure(axes: Sequence[str], loss: Mapping[str, ByFactor], most: float) -> Figure:
    """A row for each rule: its cost at the largest factor up and down."""
    heights = [len(next(iter(loss[axis].values()))) + 1.5 for axis in axes]
    figure, grid = plots.subplots(1, len(axes), height=0.36 * sum(heights) / len(axes) + 0.4)
    grid[0, 0].get_gridspec().set_height_ratios(heights)
    for panel, axis in zip(grid[:, 0], axes, strict=True):
        _panel(panel, loss[axis], most)
        panel.set_title(f"over {NAMES[axis]}")
    grid[-1, 0].set_xlabel("cost of following the rule, % of the loss")
    found = [f"{NAMES[axis]}: {best(loss[axis])}" for axis in axes]
    caption = (
        "What following a rule costs in calibrated loss, at the largest factor up and down, means "
        "over all such moves with 95 % intervals of the seeds; 0 is tuning again, and the dotted "
        f"line is {most:g} %. The scale is linear to 10 % and logarithmic beyond."
    )
    return Figure("scaling", "The cheapest rules over " + "; over ".join(found), figure, caption)


def _panel(panel: Any, by_factor: ByFactor, most: float) -> None:
    largest = max(max(f, 1 / f) for f in by_factor)
    rules = sorted(
        next(iter(by_factor.values())),
        key=lambda rule: -np.mean([each[rule].costs[0] for each in by_factor.values()]),
    )
    sides = [f for f in sorted(by_factor) if math.isclose(max(f, 1 / f), largest)]
    for factor, color, shift in zip(sides, (plots.ORANGE, plots.BLUE), (-0.15, 0.15), strict=False):
        rows = np.arange(len(rules)) + shift
        mean, low, high = np.array([by_factor[factor][rule].interval for rule in rules]).T
        bars = np.abs(np.array([mean - low, high - mean]))
        panel.errorbar(mean, rows, xerr=bars, fmt="o", color=color, label=f"× {_factor(factor)}")
    panel.axvline(most, color=plots.BLACK, ls=":", lw=1.5)
    panel.set_xscale("symlog", linthresh=10, linscale=1.5)
    panel.set_xticks([0, 5, 10, 30, 100], ["0", "5", "10", "30", "100"])
    panel.minorticks_off()
    panel.set_yticks(np.arange(len(rules)), rules)
    panel.legend(loc="lower right")

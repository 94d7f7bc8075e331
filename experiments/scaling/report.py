"""What the scores say about the rules, in sentences, tables and a plot."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from experiments.harness import plots
from experiments.harness.report import Figure, Report
from experiments.scaling import averages, tables
from experiments.scaling.cells import AXES, moves
from experiments.scaling.surfaces import Surfaces, carried, exponents, reach
from experiments.scaling.tables import NAMES, ByFactor, cost_text, factor_text
from experiments.training.scores import ERROR, LOSS

LABEL = 42  # letters in a line of a rule's name, in the plot


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
    made = [tables.costs(axis, loss[axis], error[axis], powers, config.carries) for axis in axes]
    made += [tables.beside(surfaces[LOSS]), tables.every_cell(surfaces)]
    findings = [finding(axis, loss[axis], config.carries) for axis in axes]
    findings.append(at_ends(surfaces[LOSS], loss))
    if len(config.b2s) > 1:
        table, said = averages.compare(surfaces[LOSS])
        made.insert(-2, table)
        findings.insert(-1, said)
    figure = _figure(axes, loss, config.carries)
    return Report("", findings, made, [figure], {"runs": runs.to_dicts()})


def best(by_factor: ByFactor) -> str:
    """The rule with the least mean cost over all factors."""
    rules = next(iter(by_factor.values()))
    return min(
        rules, key=lambda rule: np.mean([each[rule].costs[0] for each in by_factor.values()])
    )


def nothing(by_factor: ByFactor) -> str:
    """The rule that changes neither α nor λ."""
    return next(rule for rule in next(iter(by_factor.values())) if "same λ" in rule)


def finding(axis: str, by_factor: ByFactor, most: float) -> str:
    """Which rule carries over along an axis, and what changing nothing costs."""
    rules = next(iter(by_factor.values()))
    reached = {rule: reach(by_factor, rule, most) for rule in rules}
    furthest, largest = max(reached.values()), max(by_factor)
    carry = [f"“{rule}”" for rule in rules if reached[rule] == furthest]
    ends = [f for f in by_factor if math.isclose(max(f, 1 / f), largest)]
    first, same = best(by_factor), nothing(by_factor)
    said = {
        rule: " and ".join(f"{cost_text(by_factor[f][rule])} % at {factor_text(f)}" for f in ends)
        for rule in (first, same)
    }
    subject = carry[0] if len(carry) == 1 else f"{len(carry)} of {len(rules)} rules"
    limit = "the largest factor" if furthest == largest else f"and none by {largest:g}"
    verb = "carries" if len(carry) == 1 else "carry"
    verdict = f"{subject} {verb} over by {furthest:g}, {limit}"
    if furthest == 1:
        verdict = "no rule carries over"
    return (
        f"Over {NAMES[axis]}, {verdict}. The cheapest, “{first}”, costs {said[first]}; "
        f"“{same}”, which changes nothing, costs {said[same]}."
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


def _figure(axes: Sequence[str], loss: Mapping[str, ByFactor], most: float) -> Figure:
    """A row for each rule: its cost at the largest factor up and down."""
    wrapped = {axis: [textwrap.fill(rule, LABEL) for rule in _ordered(loss[axis])] for axis in axes}
    lines = [max(1 + rule.count("\n") for rule in wrapped[axis]) for axis in axes]
    rows = [len(wrapped[axis]) for axis in axes]
    inches = [0.7 + 0.24 * row * line + 0.1 * row for row, line in zip(rows, lines, strict=True)]
    figure, grid = plots.subplots(1, len(axes), height=sum(inches) / len(axes))
    panels = grid[:, 0]
    panels[0].get_gridspec().set_height_ratios(inches)
    for panel, axis in zip(panels, axes, strict=True):
        _panel(panel, loss[axis], most)
        panel.sharex(panels[0])
        panel.set_yticks(range(len(wrapped[axis])), wrapped[axis], fontsize=11)
        panel.set_ylim(-0.6, len(wrapped[axis]) - 0.4)
        panel.set_title(f"over {NAMES[axis]}")
    panels[0].set_xscale("symlog", linthresh=10, linscale=1.5)
    panels[0].set_xticks([0, 5, 10, 30, 100], ["0", "5", "10", "30", "100"])
    panels[0].minorticks_off()
    panels[0].set_xlim(left=max(panels[0].get_xlim()[0], -15))
    panels[-1].set_xlabel("cost of following the rule, % of the loss")
    found = "; ".join(
        f"over {NAMES[axis]} “{best(loss[axis]).partition(' = ')[0]}”" for axis in axes
    )
    caption = (
        "What following a rule costs in calibrated loss, at the largest factor up and down, means "
        "over all such moves with 95 % intervals of the seeds; 0 is tuning again, and the dotted "
        f"line is {most:g} %. The scale is linear to 10 % and logarithmic beyond."
    )
    return Figure("scaling", f"The cheapest rules: {found}", figure, caption)


def _ordered(by_factor: ByFactor) -> list[str]:
    """The rules, the cheapest last, which is at the top of the plot."""
    return sorted(
        next(iter(by_factor.values())),
        key=lambda rule: -np.mean([each[rule].costs[0] for each in by_factor.values()]),
    )


def _panel(panel: Any, by_factor: ByFactor, most: float) -> None:
    largest, rules = max(max(f, 1 / f) for f in by_factor), _ordered(by_factor)
    sides = [f for f in sorted(by_factor) if math.isclose(max(f, 1 / f), largest)]
    for factor, color, shift in zip(sides, (plots.ORANGE, plots.BLUE), (-0.15, 0.15), strict=True):
        mean, low, high = np.array([by_factor[factor][rule].interval for rule in rules]).T
        bars = np.abs(np.array([mean - low, high - mean]))
        rows, label = np.arange(len(rules)) + shift, f"× {factor_text(factor)}"
        panel.errorbar(mean, rows, xerr=bars, fmt="o", color=color, label=label)
    panel.axvline(most, color=plots.BLACK, ls=":", lw=1.5)
    panel.legend(loc="lower left")  # where the costly rules leave room

"""What the scores say about the best timescale, in sentences, tables and a plot."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

import adamw_jax
from experiments.harness import formats, plots
from experiments.harness.curves import smooth
from experiments.harness.report import Figure, Report, Table
from experiments.scaling import tables as scaling_tables
from experiments.scaling.cells import Cell as Size
from experiments.scaling.cells import moves
from experiments.scaling.surfaces import Surfaces, carried
from experiments.scaling.tables import ByFactor
from experiments.timescale.law import LAW, Cell, Choice, Cost, Law, costs, scores
from experiments.training.scores import ERROR, LOSS, MEASURES

MOST = 5  # percent of the loss below which a rule carries over
SAME = 2  # a τ that changes by less than this factor is about the same
HIGHEST = 50  # where the plot ends, in percent above the least loss
COLORS = plots.BLUE, plots.VERMILION, plots.GREEN, plots.PURPLE, plots.ORANGE, plots.SKY


def summarize(runs: pl.DataFrame, cells: Sequence[Cell], timescales: Sequence[float]) -> Report:
    """Finds the best τ in every cell and how it depends on the cell.

    Args:
      runs: a row for every run, as `scores` takes it.
      cells: all cells, ascending.
      timescales: τ, ascending.
    """
    scored = {measure: scores(runs, measure, cells) for measure in MEASURES}
    laws = {measure: Law.of(s, cells, timescales) for measure, s in scored.items()}
    chosen = {measure: [Choice.of(c, timescales) for c in s] for measure, s in scored.items()}
    cost = costs(scored[LOSS], laws[LOSS], cells, timescales)
    findings = [
        answer(laws[LOSS], cells),
        price(cost),
        ends(chosen[LOSS], laws[LOSS], timescales),
    ]
    tables = [_rules(cost, laws)] + [
        _cells(measure, choices, cells, timescales) for measure, choices in chosen.items()
    ]
    tables += carried_over(runs, cells)
    figure = _figure(chosen[LOSS], laws[LOSS], cells, timescales)
    return Report("", findings, tables, [figure], {"runs": runs.to_dicts()})


def answer(law: Law, cells: Sequence[Cell]) -> str:
    """Whether the best τ is the same for the least and the largest batch size and images."""
    ratios = _ratios(cells)
    changes, low, high = (ratios**exponents for exponents in (law.exponents, law.low, law.high))
    same = (low > 1 / SAME) & (high < SAME)
    differs = ~same & ((low > 1) | (high < 1))
    verdict = "not" if differs[:2].any() else "about" if same[:2].all() else "perhaps not"
    rooted = changes[0] * ratios[0] ** (law.exponents[2] / 2)
    batch, images, rate = (
        f"{x:.2g} [{a:.2g}, {b:.2g}]" for x, a, b in zip(changes, low, high, strict=True)
    )
    return (
        f"AdamW's best timescale in epochs is {verdict} the same for all: with {ratios[0]:.3g} "
        f"times the batch size it is {batch} times as long, with {ratios[1]:.3g} times the images "
        f"{images} times, and with {ratios[2]:.3g} times the learning rate {rate} times, all else "
        f"being equal. If the learning rate goes with the root of the batch size, {ratios[0]:.3g} "
        f"times the batch size makes it {rooted:.2g} times as long."
    )


def _ratios(cells: Sequence[Cell]) -> np.ndarray:
    """By how much the batch size, the images and, in a cell, α vary, float64[3]."""
    first, last = cells[0], cells[-1]
    rate = first.rates[-1] / first.rates[0]
    return np.array([last.batch_size / first.batch_size, last.images / first.images, rate])


def price(cost: Mapping[str, Cost]) -> str:
    """Which rule costs least, and what the others and the fitted law cost."""
    rules = sorted(cost.keys() - {LAW}, key=lambda rule: cost[rule].mean)
    first, *others = (f"{cost[rule].mean:.3f} and {cost[rule].most:.3f}" for rule in [*rules, LAW])
    listed = ", ".join(f"{r} {c}" for r, c in zip([*rules[1:], LAW], others, strict=True))
    return (
        f"Of the rules that could give τ, {rules[0]} for all costs least in this sample, in "
        f"calibrated loss on average and at most {first}. The others: {listed}."
    )


def ends(chosen: Sequence[Choice], law: Law, timescales: Sequence[float]) -> str:
    """Where no decay is good enough, and how often a better τ may lie beyond the grid."""
    none = sum(c.near[-1] for c in chosen)
    grid = np.isin(law.best, np.log([timescales[0], timescales[-1]])).sum()
    return (
        f"In {none} of {len(chosen)} cells the seeds cannot tell no decay from the best. On {grid} "
        f"of {len(law.best)} curves the best τ is at an end of the grid, and a better one may lie "
        "beyond."
    )


def _rules(cost: Mapping[str, Cost], laws: Mapping[str, Law]) -> Table:
    powers = ("0", "0", "0"), ("1", "−1", "−1"), ("1", "−1", "0"), _exponents(laws[LOSS])
    rows = [
        [rule, *exponents, f"{c.constant:.2g}", f"{c.mean:.4f}", f"{c.most:.4f}"]
        for (rule, c), exponents in zip(cost.items(), powers, strict=True)
    ]
    rows.append([f"{LAW}, by error", *_exponents(laws[ERROR]), "", "", ""])
    columns = ["", "batch size", "images", "α", "constant", "costs on average", "at most"]
    note = (
        "Exponents of τ, those of the fitted laws with 95 % intervals. Constant: τ in epochs, λ, "
        "the decay per step, or a factor of the law's τ; the one that costs least on average. "
        "Cost: calibrated loss above the curve's least."
    )
    return Table("A rule for all", columns, rows, note)


def _exponents(law: Law) -> list[str]:
    ends = zip(law.exponents, law.low, law.high, strict=True)
    return ["{} [{}, {}]".format(*map(formats.signed, each)) for each in ends]


def _cells(
    measure: str, chosen: Sequence[Choice], cells: Sequence[Cell], timescales: Sequence[float]
) -> Table:
    rows = []
    for cell, c in zip(cells, chosen, strict=True):
        rate, near = cell.rates[c.rate], np.append(timescales, np.inf)[c.near]
        per_step = adamw_jax.per_step_from_timescale(c.timescale, cell.steps)
        rows.append(
            [
                f"{cell.images:,} images, batch {cell.batch_size:,}",
                f"{cell.steps:,}",
                f"{rate:.3g}",
                formats.timescale(c.timescale),
                f"{formats.timescale(near.min())} to {formats.timescale(near.max())}",
                f"{adamw_jax.weight_decay_from_per_step(per_step, rate):.2g}",
                f"{c.curve[:-1].min():.4g}",
                f"{c.curve[-1]:.4g}",
            ]
        )
    columns = ["", "steps per epoch", "α", "best τ", "near best", "λ", measure, "without decay"]
    note = (
        "τ in epochs. Scores are means over the seeds on the validation images, at the α of the "
        "best. Near best: the τ of the grid that a paired t-test at 5 % does not find worse than "
        "the best; ∞ is no decay."
    )
    return Table(f"The best timescale by {measure.partition(',')[0]}", columns, rows, note)


def carried_over(runs: pl.DataFrame, cells: Sequence[Cell]) -> list[Table]:
    """What the rules of `adamw_jax.scaling_report` cost from each cell to each other.

    In every cell α is on three values, which go with the root of the batch size; so only the
    rules that give α by that root can be told apart.
    """
    sizes = [Size(cell.batch_size, cell.images, 1, 1, 0.0) for cell in cells]
    least = min(cell.batch_size for cell in cells)
    batch = pl.col("batch_size")
    there = runs.filter(pl.col("timescale").is_finite()).with_columns(
        learning_rate=(pl.col("learning_rate") / (batch / least).sqrt()).round_sig_figs(6),
        width=1,
        epochs=1,
        b2=0.0,
    )
    offsets = np.log([size.batch_size / least for size in sizes]) / 2
    loss, error = (
        carried(Surfaces.of(there, measure, sizes, offsets), moves(sizes), relative=relative)
        for measure, relative in ((LOSS, True), (ERROR, False))
    )
    return [_root(axis, loss[axis], error[axis]) for axis in loss]


def _root(axis: str, loss: ByFactor, error: ByFactor) -> Table:
    """The costs along an axis by the rules that do not give another α than the root's."""
    roots = [
        {
            factor: {r: c for r, c in by_rule.items() if "α" not in r and "linear" not in r}
            for factor, by_rule in each.items()
        }
        for each in (loss, error)
    ]
    return scaling_tables.costs(axis, roots[0], roots[1], {}, MOST)


def _figure(
    chosen: Sequence[Choice], law: Law, cells: Sequence[Cell], timescales: Sequence[float]
) -> Figure:
    pairs = zip(cells, chosen, strict=True)
    panels = [list(group) for _, group in itertools.groupby(pairs, lambda pair: pair[0].images)]
    figure, (axes,) = plots.subplots(len(panels), height=4.4)
    for axis, panel in zip(axes, panels, strict=True):
        _panel(axis, panel, timescales)
    axes[0].set_ylabel("loss above the least, %", loc="top")
    for axis in axes[1:]:
        axis.tick_params(labelleft=False)
    found = ", ".join(_best(panel) for panel in panels)
    title = f"The best timescale, in epochs: {found}"
    caption = (
        "Calibrated validation loss over the timescale of the decay, at the best learning rate of "
        "each batch size; means over the seeds. Star: the best timescale; bar: those that seeds "
        "cannot tell from it. ∞ is no decay."
    )
    return Figure("timescale", title, figure, caption)


def _best(panel: Sequence[tuple[Cell, Choice]]) -> str:
    """The best τ with a number of images, from the least to the largest over batch sizes."""
    found = sorted(choice.timescale for _, choice in panel)
    least, largest = f"{found[0]:.2g}", f"{found[-1]:.2g}"
    between = least if least == largest else f"{least} to {largest}"
    return f"{between} with {panel[0][0].images:,} images"


def _panel(axis: Any, panel: Sequence[tuple[Cell, Choice]], timescales: Sequence[float]) -> None:
    """Draws the curves for one number of images, and below them the best τ of each."""
    x = np.append(timescales, timescales[-1] ** 2 / timescales[-2])  # the last is for infinity
    rows = -HIGHEST / 10 * (1 + np.arange(len(panel)))
    for (_, c), row, color in zip(panel, rows, itertools.cycle(COLORS)):
        fine, curve = smooth(c.curve[:-1], timescales)
        above = 100 * (c.curve / curve.min() - 1)
        axis.plot(np.exp(fine), 100 * (curve / curve.min() - 1), color=color)
        axis.plot(x, above, "o", color=color, markersize=4)
        axis.plot(x[-2:], above[-2:], ":", color=color)
        axis.plot(x[c.near][[0, -1]], [row, row], color=color, lw=6, alpha=0.4)
        axis.plot(c.timescale, row, "*", color=color, markersize=14)
    axis.set(title=f"{panel[0][0].images:,} images", xscale="log", xlabel="timescale τ, epochs")
    axis.set_xticks(x, [*map("{:g}".format, timescales), "∞"])
    axis.minorticks_off()
    axis.set_ylim(rows[-1] - HIGHEST / 15, HIGHEST)
    percent = np.linspace(0, HIGHEST, 6)
    batches = [f"batch {cell.batch_size:,}" for cell, _ in panel]
    axis.set_yticks([*rows, *percent], [*batches, *map("{:g}".format, percent)])
    for label, color in zip(axis.get_yticklabels()[: len(rows)], itertools.cycle(COLORS)):
        label.set_color(color)

"""The scores of a cell over α and τ, where they are least, and what a prediction costs."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from experiments.harness.curves import smooth
from experiments.scaling.cells import Cell, Move, factors
from experiments.training.scores import MEASURES

FINE, RESAMPLES = 61, 500


class Surfaces(NamedTuple):
    """The scores of all cells, interpolated smoothly over log α and log τ.

    Attributes:
      cells: the sizes of the runs.
      offsets: log α of each cell is that of the grid plus this, float64[cells].
      rates: log α of the fine grid, float64[FINE].
      timescales: log τ of the fine grid, float64[FINE].
      scores: float64[cells, FINE, FINE, seeds], over α and τ.
      weights: how often a bootstrap sample has each seed, divided by their number,
        float64[RESAMPLES + 1, cells, seeds]; the first sample has each once.
      best: where the mean of a sample's seeds is least, an index into the flattened fine grid,
        int[RESAMPLES + 1, cells].
      others: the same for all seeds but one, int[cells, seeds].
      at_edge: whether the measured score of a cell is least at an edge of the grid, over α and
        over τ, bool[cells, 2].
    """

    cells: Sequence[Cell]
    offsets: np.ndarray
    rates: np.ndarray
    timescales: np.ndarray
    scores: np.ndarray
    weights: np.ndarray
    best: np.ndarray
    others: np.ndarray
    at_edge: np.ndarray

    @classmethod
    def of(
        cls,
        runs: pl.DataFrame,
        measure: str,
        cells: Sequence[Cell],
        offsets: np.ndarray | None = None,
    ) -> "Surfaces":
        """Interpolates and finds all optima.

        Args:
          runs: a row for every run: the fields of its cell, `learning_rate`, `timescale`, `seed`
            and the metrics; each cell has its own seeds.
          measure: one of `MEASURES`.
          cells: in any order.
          offsets: what is to be added to the logarithm of `learning_rate` in each cell; nothing
            by default.
        """
        order = pl.DataFrame([*map(Cell._asdict, cells)]).with_row_index("cell")
        table = runs.join(order, on=Cell._fields).sort("cell", "learning_rate", "timescale", "seed")
        rates, timescales = (runs[name].unique().sort() for name in ("learning_rate", "timescale"))
        coarse = (
            table.select(MEASURES[measure])
            .to_series()
            .to_numpy()
            .reshape(len(cells), len(rates), len(timescales), -1)
        )
        y, over_timescales = smooth(coarse.swapaxes(2, 3), timescales.to_list(), FINE)
        x, scores = smooth(over_timescales.transpose(0, 3, 2, 1), rates.to_list(), FINE)
        scores = scores.transpose(0, 3, 1, 2)
        seeds = scores.shape[-1]
        drawn = np.random.default_rng(0).multinomial(
            seeds, np.full(seeds, 1 / seeds), (RESAMPLES, len(cells))
        )
        weights = np.concatenate([np.ones((1, len(cells), seeds)), drawn]) / seeds
        flat = scores.reshape(len(cells), -1, seeds)
        best = np.array([(flat[c] @ weights[:, c].T).argmin(0) for c in range(len(cells))]).T
        others = (flat.sum(-1, keepdims=True) - flat).argmin(1)
        least = np.stack(
            np.unravel_index(coarse.mean(-1).reshape(len(cells), -1).argmin(1), coarse.shape[1:3]),
            -1,
        )
        at_edge = (least == 0) | (least == np.array(coarse.shape[1:3]) - 1)
        offsets = np.zeros(len(cells)) if offsets is None else offsets
        return cls(cells, offsets, x, y, scores, weights, best, others, at_edge)

    def optima(self) -> np.ndarray:
        """The logarithms of α and λ of the optimum, float64[RESAMPLES + 1, cells, 2]."""
        rate, timescale = np.unravel_index(self.best, self.scores.shape[1:3])
        x, y = self.rates[rate] + self.offsets, self.timescales[timescale]
        steps = np.log([cell.steps for cell in self.cells])
        return np.stack([x, -y - x - steps], -1)

    def least(self) -> np.ndarray:
        """The scores of seeds at the optimum of the others, float64[cells, seeds]."""
        flat = self.scores.reshape(len(self.cells), -1, self.scores.shape[-1])
        return np.take_along_axis(flat, self.others[:, None, :], 1)[:, 0]

    def costs(self, cell: int, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What it costs in a cell to follow predictions.

        Args:
          cell: the index of the cell.
          predicted: log α and log λ by each bootstrap sample, float64[RESAMPLES + 1, 2].

        Returns:
          The score above that at the optimum, float64[RESAMPLES + 1], each a mean over the seeds
          of its sample; and whether the prediction is beyond the grid, bool[RESAMPLES + 1].
        """
        x = predicted[:, 0] - self.offsets[cell]
        y = -predicted.sum(-1) - math.log(self.cells[cell].steps)
        i, beyond_x = _nearest(self.rates, x)
        j, beyond_y = _nearest(self.timescales, y)
        above = self.scores[cell][i, j] - self.least()[cell]
        return (self.weights[:, cell] * above).sum(-1), beyond_x | beyond_y


def _nearest(grid: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the grid's nearest values, and whether a value is beyond the ends."""
    step = grid[1] - grid[0]
    index = np.rint((values - grid[0]) / step).astype(int)
    beyond = (index < 0) | (index >= len(grid))
    return np.clip(index, 0, len(grid) - 1), beyond


class Carried(NamedTuple):
    """What following a rule costs in moves along one axis by one factor.

    Attributes:
      costs: the mean over the moves, float64[RESAMPLES + 1]; the first is that of all seeds.
      misses: by which factors α and λ miss the new cell's optimum, geometric means, float64[2].
      beyond: how many of the predictions are beyond the grid.
      moves: how many moves there are.
    """

    costs: np.ndarray
    misses: np.ndarray
    beyond: int
    moves: int

    @property
    def interval(self) -> tuple[float, float, float]:
        """The mean cost and its 95 % interval."""
        low, high = np.quantile(self.costs[1:], [0.025, 0.975])
        return float(self.costs[0]), float(low), float(high)


def carried(
    surfaces: Surfaces, moves: Sequence[Move], *, relative: bool
) -> dict[str, dict[float, dict[str, Carried]]]:
    """What following each rule costs, by axis, factor and rule.

    Args:
      surfaces: the scores.
      moves: from cell to cell.
      relative: whether costs are in percent of the score at the new cell's optimum.
    """
    optima, least = surfaces.optima(), surfaces.least().mean(-1)
    found: dict[str, dict[float, dict[str, list]]] = {}
    for move in moves:
        rules = factors(surfaces.cells[move.old], surfaces.cells[move.new])
        by_rule = found.setdefault(move.axis, {}).setdefault(move.factor, {})
        for rule, factor in rules.items():
            predicted = optima[:, move.old] + np.log(factor)
            cost, beyond = surfaces.costs(move.new, predicted)
            scale = 100 / least[move.new] if relative else 1
            miss = np.abs(predicted[0] - optima[0, move.new])
            by_rule.setdefault(rule, []).append((scale * cost, miss, beyond[0]))
    return {
        axis: {
            factor: {rule: _mean(each) for rule, each in rules.items()}
            for factor, rules in sorted(by_factor.items())
        }
        for axis, by_factor in found.items()
    }


def _mean(each: Sequence[tuple[np.ndarray, np.ndarray, bool]]) -> Carried:
    costs, misses, beyond = zip(*each, strict=True)
    return Carried(np.mean(costs, 0), np.exp(np.mean(misses, 0)), int(sum(beyond)), len(each))


def reach(by_factor: Mapping[float, Mapping[str, Carried]], rule: str, most: float) -> float:
    """The largest factor by which a rule carries over, 1 if by none.

    Args:
      by_factor: the costs in percent, by factor and rule.
      rule: its name.
      most: the percentage that the upper end of the interval must be below.
    """
    reached = 1.0
    for factor in sorted({max(f, 1 / f) for f in by_factor}):
        sides = [f for f in by_factor if math.isclose(max(f, 1 / f), factor)]
        if any(max(by_factor[f][rule].interval) >= most for f in sides):
            break
        reached = factor
    return reached


def exponents(surfaces: Surfaces) -> dict[str, np.ndarray]:
    """The powers of batch size, images and width with which α and λ go.

    They are fitted to the optima of the cells of the full grid by least squares in logarithms.

    Returns:
      By axis, float64[RESAMPLES + 1, 2] for α and λ; axes of one value are left out.
    """
    base = max(surfaces.cells, key=lambda c: sum(c[3:] == d[3:] for d in surfaces.cells))
    full = [i for i, cell in enumerate(surfaces.cells) if cell[3:] == base[3:]]
    names = [a for a in Cell._fields[:3] if len({getattr(surfaces.cells[i], a) for i in full}) > 1]
    x = np.array([[1.0, *(math.log(getattr(surfaces.cells[i], a)) for a in names)] for i in full])
    fitted = np.einsum("ac,rcd->rad", np.linalg.pinv(x), surfaces.optima()[:, full])
    return {name: fitted[:, 1 + i] for i, name in enumerate(names)}

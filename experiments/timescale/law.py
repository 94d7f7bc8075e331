"""Where the scores are best over τ, how that depends on the cell and α, and what a rule costs."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy import stats

from experiments.harness.curves import optimum, smooth
from experiments.training.scores import MEASURES

RESAMPLES = 1000
LAW = "the fitted law"


class Cell(NamedTuple):
    """A number of images and a batch size.

    Attributes:
      images: training images.
      batch_size: images in a step.
      steps: steps in an epoch.
      rates: values of α, ascending.
    """

    images: int
    batch_size: int
    steps: int
    rates: tuple[float, ...]


def scores(runs: pl.DataFrame, measure: str, cells: Sequence[Cell]) -> np.ndarray:
    """The scores of all runs, float64[cells, rates, timescales + 1, seeds]; last, without decay.

    Args:
      runs: a row for every run: its cell's `images` and `batch_size`, `learning_rate`,
        `timescale`, `seed` and the metrics.
      measure: one of `MEASURES`.
      cells: all cells, ascending.
    """
    table = runs.sort("images", "batch_size", "learning_rate", "timescale", "seed")
    shape = len(cells), len(cells[0].rates), runs["timescale"].n_unique(), -1
    return table.select(MEASURES[measure]).to_series().to_numpy().reshape(shape)


class Choice(NamedTuple):
    """What is best in a cell.

    Attributes:
      rate: the index of α.
      timescale: the best τ at this α.
      curve: the mean scores at this α, float64[timescales + 1]; the last is without decay.
      near: which of them are near the best, bool[timescales + 1].
    """

    rate: int
    timescale: float
    curve: np.ndarray
    near: np.ndarray

    @classmethod
    def of(cls, scored: np.ndarray, timescales: Sequence[float]) -> "Choice":
        """Chooses α together with τ.

        Near the best is where a one-sided paired t-test at 5 % does not find the score worse. The
        variance is that of all differences from the best together: few seeds give none for each.

        Args:
          scored: the cell's scores, float64[rates, timescales + 1, seeds].
          timescales: τ, ascending.
        """
        decayed = scored[:, :-1].mean(-1)
        rate, least = np.unravel_index(decayed.argmin(), decayed.shape)
        worse = np.delete(scored[rate], least, 0) - scored[rate, least]
        others, seeds = worse.shape
        error = np.sqrt(worse.var(-1, ddof=1).mean() / seeds)
        margin = stats.t.ppf(0.95, others * (seeds - 1)) * error
        mean = scored[rate].mean(-1)
        best = np.exp(optimum(decayed[rate], timescales))
        return cls(int(rate), float(best), mean, mean <= mean[least] + margin)


class Law(NamedTuple):
    """τ ∝ batchᵃ·imagesᵇ·αᶜ, fitted to the best τ of all curves.

    Attributes:
      exponents: a, b and c, float64[3].
      low: the lower ends of their 95 % intervals, float64[3].
      high: the upper ends, float64[3].
      best: log τ that is best on each curve, float64[curves].
      fitted: log τ by the law, float64[curves].
    """

    exponents: np.ndarray
    low: np.ndarray
    high: np.ndarray
    best: np.ndarray
    fitted: np.ndarray

    @classmethod
    def of(cls, scored: np.ndarray, cells: Sequence[Cell], timescales: Sequence[float]) -> "Law":
        """Fits by least squares in logarithms, and samples each cell's seeds with replacement."""
        seeds, decayed = scored.shape[-1], scored[:, :, :-1]
        drawn = np.random.default_rng(0).multinomial(
            seeds, np.full(seeds, 1 / seeds), (RESAMPLES, len(cells))
        )
        best = optimum(decayed.mean(-1), timescales).reshape(-1)
        sampled = optimum(np.einsum("crts,ncs->ncrt", decayed, drawn / seeds), timescales)
        # The first column, log e = 1, is for the law's constant.
        x = np.log([(math.e, c.batch_size, c.images, rate) for c in cells for rate in c.rates])
        solve = np.linalg.pinv(x)
        samples = sampled.reshape(RESAMPLES, -1) @ solve.T
        low, high = np.quantile(samples[:, 1:], [0.025, 0.975], axis=0)
        return cls((solve @ best)[1:], low, high, best, x @ solve @ best)


class Cost(NamedTuple):
    """What it costs to take τ from a rule.

    Attributes:
      constant: the rule's constant that costs least on average.
      mean: the score above the curve's least, a mean over the curves.
      most: the same on the curve where it is most.
    """

    constant: float
    mean: float
    most: float


def cost(curves: np.ndarray, x: np.ndarray, shift: np.ndarray) -> Cost:
    """What a rule for x costs, with the best constant.

    Args:
      curves: scores float[curves, n]; beyond an end of `x` the score there counts.
      x: where the scores are, float[n], ascending.
      shift: x by the rule, but for the constant that is added on all curves, float[curves].
    """
    above = curves - curves.min(-1, keepdims=True)
    constants = np.linspace(x[0] - shift.max(), x[-1] - shift.min(), 1000)
    costs = np.array([np.interp(constants + s, x, y) for s, y in zip(shift, above, strict=True)])
    least = costs.mean(0).argmin()
    return Cost(constants[least], costs[:, least].mean(), costs[:, least].max())


def costs(
    scored: np.ndarray, law: Law, cells: Sequence[Cell], timescales: Sequence[float]
) -> dict[str, Cost]:
    """What each rule costs: one τ, one λ or one decay per step for all curves, and the law.

    The constants are τ, λ, the decay per step, and the factor of the law's τ.
    """
    steps, rates = np.log([(c.steps, rate) for c in cells for rate in c.rates]).T
    x, curves = smooth(scored[:, :, :-1].mean(-1).reshape(len(steps), -1), timescales)
    # τ = 1/(λ·α·steps): the logarithm of λ is subtracted.
    made = {}
    for rule, sign, shift in (
        ("one τ", 1, 0 * steps),
        ("one λ", -1, -steps - rates),
        ("one decay per step", -1, -steps),
        (LAW, 1, law.fitted),
    ):
        found = cost(curves, x, shift)
        made[rule] = found._replace(constant=math.exp(sign * found.constant))
    return made

"""Test error over learning rate and weight decay: can the two be tuned one at a time?

Fig. 2 of the AdamW paper (arXiv 1711.05101) on another data set: a network is trained with every
pair of a learning rate α and a decay, by Adam+L2 and by AdamW in both conventions of its decay.
Each seed draws its own training images, wrong labels and initial weights, the same for all pairs.
Where the good pairs lie along a diagonal, a change of α calls for a change of the decay; where
they lie along the axes, each can be tuned on its own.

The number for this is the correlation of log α and log λ over the good cells, those whose error
is within some points of the least: −1 on a falling diagonal, 0 where the two are separable. A
region that is cut off by the grid's edge looks more separable than it is.
"""

import functools
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
import polars as pl
from matplotlib.colors import LogNorm
from matplotlib.patheffects import withStroke

import adamw_jax
from adamw_jax import sweep
from experiments.harness import data, formats, plots, settings
from experiments.harness.context import Context
from experiments.harness.report import Figure, Report, Table
from experiments.harness.sweeps import run_grid
from experiments.training import arms
from experiments.training.arms import L2, PER_STEP, TIMES_RATE, Arm
from experiments.training.classifier import classifier_run
from experiments.training.loop import steps_per_epoch
from experiments.training.models import MLP
from experiments.training.plots import NAMES
from experiments.training.sample import sample

Values = Annotated[tuple[settings.Positive, ...], settings.SOME]
DECAYS = {L2: "decay λ′", TIMES_RATE: "decay λ", PER_STEP: "decay λ"}
CONDITIONS = {
    L2: "with Adam+L2",
    TIMES_RATE: "with AdamW if the learning rate multiplies it",
    PER_STEP: "if a step takes it whole",
}
OUTLINE = [withStroke(linewidth=4, foreground="white")]
FEW = 5  # fewer good cells than this have no correlation
BRIGHT = 2  # the colors end at this many times the least error


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The keys of `configs/landscape.toml`."""

    data: Annotated[Literal["digits", "fashion-mnist"], settings.about("the data set")]
    images: Annotated[settings.CountOrZero, settings.about("training images; 0 for all")]
    noise: Annotated[
        float, msgspec.Meta(ge=0, le=1), settings.about("fraction of them with wrong labels")
    ]
    hidden: Annotated[tuple[settings.Count, ...], settings.about("sizes of the hidden layers")]
    learning_rates: Annotated[Values, settings.about("α, of a cosine schedule")]
    l2: Annotated[Values, settings.about("λ′ of Adam+L2")]
    weight_decay: Annotated[Values, settings.about("λ of AdamW, times α")]
    decay_per_step: Annotated[Values, settings.about("λ of AdamW, without α")]
    epochs: Annotated[settings.Count, settings.about("passes over the training images")]
    batch_size: Annotated[settings.Count, settings.about("images in a step")]
    seeds: Annotated[settings.Count, settings.about("runs of every pair, with seeds 0, 1, …")]
    good: Annotated[
        settings.Positive, settings.about("points above the least error that are still good")
    ]

    @property
    def arms(self) -> list[Arm]:
        """Every pair of every family: rate by rate, each with every decay."""
        families = {L2: self.l2, TIMES_RATE: self.weight_decay, PER_STEP: self.decay_per_step}
        return [
            Arm(family, decay, rate)
            for family, decays in families.items()
            for rate in self.learning_rates
            for decay in decays
        ]


class Surface(NamedTuple):
    """The test error of a family over learning rate and decay.

    Attributes:
      family: the family of arms.
      rates: α, [rates].
      decays: λ or λ′ in the family's own convention, [decays].
      error: percent, the mean over the seeds, [decays, rates]; a diverged run counts as 100.
    """

    family: str
    rates: np.ndarray
    decays: np.ndarray
    error: np.ndarray

    def is_good(self, points: float) -> np.ndarray:
        """Which cells are near the least error, bool[decays, rates]."""
        return self.error <= self.error.min() + points

    def correlation(self, points: float) -> float:
        """Correlation of log α and log λ over the good cells; NaN if few, or if one is constant."""
        rows, columns = np.nonzero(self.is_good(points))
        x, y = np.log(self.rates)[columns], np.log(self.decays)[rows]
        if len(x) < FEW or np.ptp(x) == 0 or np.ptp(y) == 0:
            return np.nan
        return float(np.corrcoef(x, y)[0, 1])

    def lost(self) -> float:
        """Points lost by tuning α first, at the least decay, and then the decay at that α."""
        rate = self.error[np.argmin(self.decays)].argmin()
        return float(self.error[:, rate].min() - self.error.min())


def run(config: Settings, context: Context) -> Report:
    """Trains with every pair."""
    axes = "learning_rates", "l2", "weight_decay", "decay_per_step"
    settings.check_ascending(**{key: getattr(config, key) for key in axes})
    there = data.SIZES[config.data]
    size = sample(there.images, images=config.images, noise=config.noise)
    steps = steps_per_epoch(size.train, config.batch_size)
    network = functools.partial(MLP, (there.pixels, *config.hidden, 10))
    training = classifier_run(arms.scheduled, network, size, config.batch_size, config.epochs, 1)
    grid = sweep.product(
        arms.grid(config.arms),
        first_cycle=[config.epochs * steps],
        floor=[0.0],
        seed=range(config.seeds),
    )
    results = run_grid(
        "landscape",
        training,
        grid,
        lambda: data.load(config.data, context.data_dir),
        context,
        watch=["train_loss"],
        identity={
            "data": config.data,
            "images": config.images,
            "noise": config.noise,
            "hidden": list(config.hidden),
            "batch_size": config.batch_size,
        },
    )
    table = arms.table(config.arms, results)
    return _report(surfaces(table), config, steps, cells(table))


def surfaces(table: pl.DataFrame) -> list[Surface]:
    """A surface for each family, from a single evaluation of every pair and seed."""
    error = 100 * (1 - pl.col("test_accuracy").fill_nan(0.0))
    cells = table.group_by("family", "learning_rate", "decay", maintain_order=True).agg(
        error.mean().alias("error")
    )
    made = []
    for (family,), pairs in cells.group_by("family", maintain_order=True):
        rates, decays = (pairs[name].unique().sort() for name in ("learning_rate", "decay"))
        error = pairs.sort("decay", "learning_rate")["error"].to_numpy()
        shape = len(decays), len(rates)
        made.append(Surface(str(family), rates.to_numpy(), decays.to_numpy(), error.reshape(shape)))
    return made


def cells(table: pl.DataFrame) -> list[dict[str, Any]]:
    """The numbers of every pair: means over the seeds, NaN where a run diverged."""
    pair = ["family", "learning_rate", "decay", "decay_per_step"]
    means = table.group_by(pair, maintain_order=True).agg(
        test_error=100 * (1 - pl.col("test_accuracy").mean()), test_loss=pl.col("test_loss").mean()
    )
    return means.to_dicts()


def _report(
    surfaces: list[Surface], config: Settings, steps: int, cells: list[dict[str, Any]]
) -> Report:
    rows = []
    for s in surfaces:
        row, column = np.unravel_index(s.error.argmin(), s.error.shape)
        rows.append(
            [
                NAMES[s.family],
                f"{s.error[row, column]:.2f}",
                f"{s.rates[column]:.3g}",
                f"{s.decays[row]:.3g}",
                f"{s.is_good(config.good).sum()} of {s.error.size}",
                _correlation(s, config.good),
                f"{s.lost():.2f}",
            ]
        )
    least, lost = (
        formats.listed(numbers)
        for numbers in ([f"{s.error.min():.1f} %" for s in surfaces],
                        [f"{s.lost():.2f} points" for s in surfaces])
    )  # fmt: skip
    findings = [
        _suited(surfaces, config.good) + ".",
        f"In this order, the least error is {least}, and tuning α first, at the least decay, and "
        f"then the decay loses {lost}.",
    ]
    columns = ["", "least error, %", "at α", "and λ", "good cells", "correlation", "points lost"]
    note = (
        f"Means of {config.seeds} seeds. Good: at most {config.good:.1f} points above the family's "
        "least error. Correlation: of log α and log λ over the good cells, 0 where they are "
        f"separable; none for fewer than {FEW}. Points lost: by tuning α first, at the least "
        "decay, and then λ at that α. The error is that of the test images, as in the paper: a "
        "picture, from which nothing is chosen."
    )
    table = Table("The good region", columns, rows, note)
    noise = f", {100 * config.noise:g} % with wrong labels" if config.noise else ""
    what = (
        f"{format(config.images, ',') if config.images else 'all'} images of {config.data}{noise}"
    )
    title = f"Test error over α and λ: {what}"
    figure = _figure(surfaces, config, steps)
    return Report(title, findings, [table], [figure], {"cells": cells})


def _suited(surfaces: list[Surface], points: float) -> str:
    """At how many learning rates a single decay of each family is good, at most."""
    counts = [s.is_good(points).sum(axis=1).max() for s in surfaces]
    numbers = [f"{counts[0]} of {len(surfaces[0].rates)} learning rates", *counts[1:]]
    return "One decay suits " + ", ".join(
        f"{number} {CONDITIONS[s.family]}" for number, s in zip(numbers, surfaces, strict=True)
    )


def _correlation(surface: Surface, points: float) -> str:
    value = surface.correlation(points)
    return "—" if np.isnan(value) else formats.signed(value)


def _figure(surfaces: list[Surface], config: Settings, steps: int) -> Figure:
    figure, axes = plots.subplots(len(surfaces), height=5.2)
    low = max(min(s.error.min() for s in surfaces), 0.1)
    norm = LogNorm(low, BRIGHT * low)
    mesh: Any = None
    for axis, s in zip(axes[0], surfaces, strict=True):
        axis.set(xscale="log", yscale="log", xlabel="learning rate α", ylabel=DECAYS[s.family])
        axis.set_title(NAMES[s.family].replace(", ", ",\n"))
        edges = _edges(s.rates), _edges(s.decays)
        mesh = axis.pcolormesh(*edges, s.error, cmap="viridis_r", norm=norm)
        axis.grid(visible=False)
        _star(axis, s)
        rows, columns = np.nonzero(s.is_good(config.good))
        axis.plot(s.rates[columns], s.decays[rows], "o", color=plots.BLACK, markersize=4,
                  label=f"at most {config.good:.1f} points above it")  # fmt: skip
        _timescales(axis, s, steps, config.epochs)
    ticks = np.geomspace(low, BRIGHT * low, 5)
    bar = figure.colorbar(mesh, ax=axes[0], label="test error, %", extend="max", aspect=30)
    bar.set_ticks(ticks, labels=[f"{tick:.1f}" for tick in ticks], minor=False)
    bar.minorticks_off()
    figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    caption = (
        "Test error over the learning rate, of a cosine schedule, and the decay, with the least "
        "error of each optimizer. τ: the time in which the decay alone takes a weight to 1/e; "
        f"Adam+L2 has none. Colors end at {BRIGHT} times the least error."
    )
    return Figure("landscape", _suited(surfaces, config.good), figure, caption)


def _star(axis, s: Surface) -> None:
    """The least error, as a star and in words, which are kept inside the axis."""
    row, column = np.unravel_index(s.error.argmin(), s.error.shape)
    place = s.rates[column], s.decays[row]
    axis.plot(*place, "*", color=plots.VERMILION, markersize=17, zorder=3, label="least error")
    right, top = column > len(s.rates) / 2, row > len(s.decays) / 2
    axis.annotate(f"{s.error[row, column]:.1f} %", place, (0, -10 if top else 10),
                  textcoords="offset points", ha="right" if right else "left",
                  va="top" if top else "bottom", path_effects=OUTLINE)  # fmt: skip


def _edges(values: np.ndarray) -> np.ndarray:
    """The edges of cells around ascending values, on a logarithmic axis."""
    if len(values) == 1:
        return values[0] * np.array([0.5, 2.0])
    between = np.sqrt(values[1:] * values[:-1])
    return np.array([values[0] ** 2 / between[0], *between, values[-1] ** 2 / between[-1]])


def _timescales(axis, s: Surface, steps: int, epochs: int) -> None:
    """Lines of equal τ, which Adam+L2 does not have."""
    if s.family == L2:
        return
    bounds = axis.axis()
    for tau, style in ((1, ":"), (epochs, "--")):
        per_step = adamw_jax.per_step_from_timescale(tau, steps)
        decays = per_step / s.rates if s.family == TIMES_RATE else np.full(len(s.rates), per_step)
        label = f"τ = {tau} epochs, the whole run" if tau == epochs else "τ = 1 epoch"
        axis.plot(s.rates, decays, style, color=plots.BLACK, path_effects=OUTLINE, label=label)
    axis.axis(bounds)

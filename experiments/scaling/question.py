"""Which rule carries AdamW's learning rate and decay over to another size of run?

A network is tuned in every *cell*: batch size × number of images × width, and from the middle of
these also other numbers of epochs and other β₂. In each, the learning rate α and the timescale τ
of the decay are on one grid, from which λ follows; the schedule is a cosine that falls to zero,
the last epoch is scored on validation images, and the scores are interpolated smoothly over log α
and log τ. The optimum is where they are least.

Then every cell takes its turn as the run that was tuned, and every other that differs from it in
one size as the run to be made. `adamw_jax.scaling_report` says what α and λ each published rule
gives there. What following a rule *costs* is the score at its prediction above the score at the
cell's own optimum, both for a seed that the optimum was not chosen with: the optimum is that of
the cell's other seeds. So a cost is what tuning again would have gained, and may be negative. A
prediction beyond the grid is scored at the grid's edge.

With the setting `rates = "muP"` all matrices but the first have α · (the middle width) / width,
and the same timescale; then no change of α and of the decay per step is what muP with independent
decay says. The initial weights are the usual ones, which differ from muP's in the last layer.

A rule *carries over* by a factor if, for moves by that factor and all smaller ones, up and down,
its mean cost in calibrated loss is below the setting `carries`, in percent of the loss, and so is
the upper end of the 95 % interval. Intervals are those of bootstrap samples of every cell's seeds;
with few seeds they are somewhat too short.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import polars as pl

from adamw_jax import sweep
from experiments.harness import data, settings
from experiments.harness.context import Context
from experiments.harness.report import Report
from experiments.harness.sweeps import run_grid
from experiments.scaling.cells import Cell, design, middle
from experiments.scaling.report import summarize
from experiments.training import arms
from experiments.training.classifier import classifier_run
from experiments.training.models import MLP
from experiments.training.sample import sample

SOME, THREE = settings.SOME, msgspec.Meta(min_length=3)


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The keys of `configs/scaling.toml`."""

    data: Annotated[Literal["digits", "fashion-mnist"], settings.about("the data set")]
    validation: Annotated[
        float, msgspec.Meta(gt=0, lt=1), settings.about("fraction of it that scores a run")
    ]
    noise: Annotated[
        float,
        msgspec.Meta(ge=0, le=1),
        settings.about("fraction of the training images with wrong labels"),
    ]
    batch_sizes: Annotated[tuple[settings.Count, ...], SOME, settings.about("images in a step")]
    images: Annotated[tuple[settings.Count, ...], SOME, settings.about("training images")]
    widths: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=2, le=100_000)], ...],
        SOME,
        settings.about("units of the first hidden layer; the second has half as many"),
    ]
    epochs: Annotated[tuple[settings.Count, ...], SOME, settings.about("passes over the images")]
    rates: Annotated[
        Literal["one", "muP"],
        settings.about("one α for all arrays, or muP's, which equals it at the middle width"),
    ]
    b2s: Annotated[tuple[settings.DecayRate, ...], SOME, settings.about("β₂")]
    learning_rates: Annotated[
        tuple[settings.Positive, ...], THREE, settings.about("α, in every cell")
    ]
    timescales: Annotated[
        tuple[settings.Positive, ...], THREE, settings.about("τ in epochs, in every cell")
    ]
    seeds: Annotated[
        int, msgspec.Meta(ge=2, le=1000), settings.about("runs of every α and τ in a cell")
    ]
    carries: Annotated[
        settings.Positive, settings.about("percent of the loss below which a rule carries over")
    ]

    @property
    def cells(self) -> list[Cell]:
        """The sizes of the runs."""
        return design(self.batch_sizes, self.images, self.widths, self.epochs, self.b2s)


def run(config: Settings, context: Context) -> Report:
    """Trains with every α and τ in every cell."""
    axes = "batch_sizes", "images", "widths", "epochs", "b2s", "learning_rates", "timescales"
    settings.check_ascending(**{key: getattr(config, key) for key in axes})
    sample(data.SIZES[config.data].images, config.validation, config.images[-1])
    arms.check_timescale(config.timescales[0], config.cells)
    load = functools.cache(lambda: data.load(config.data, context.data_dir))
    runs = pl.concat(
        _runs(cell, range(i * config.seeds, (i + 1) * config.seeds), config, load, context)
        for i, cell in enumerate(config.cells)
    )
    return summarize(runs, config)


def _runs(
    cell: Cell, seeds: range, config: Settings, load: Callable[[], Any], context: Context
) -> pl.DataFrame:
    """Trains in one cell: a row for every α, τ and seed."""
    there = data.SIZES[config.data]
    size = sample(there.images, config.validation, cell.images, config.noise)
    network = functools.partial(MLP, (there.pixels, cell.width, cell.width // 2, 10))
    inner = middle(config.widths) / cell.width if config.rates == "muP" else 1.0
    optimizer = functools.partial(arms.with_timescale, cell.steps, cell.epochs, inner=inner)
    results = run_grid(
        f"batch-{cell.batch_size}-images-{cell.images}-width-{cell.width}-epochs-{cell.epochs}"
        f"-b2-{cell.b2:g}",
        classifier_run(optimizer, network, size, cell.batch_size, cell.epochs, 1),
        sweep.product(
            learning_rate=config.learning_rates,
            timescale=config.timescales,
            b2=[cell.b2],
            seed=seeds,
        ),
        load,
        context,
        watch=["train_loss"],
        identity={
            "data": config.data,
            "validation": config.validation,
            "noise": config.noise,
        }
        | ({"rates": config.rates} if config.rates == "muP" else {}),
    )
    return pl.DataFrame(
        [
            cell._asdict() | r.settings | {name: float(r.history(name, 1)[0]) for name in r.metrics}
            for r in results
        ]
    )

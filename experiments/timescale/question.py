"""Is AdamW's best timescale τ, in epochs, the same for every batch size and number of images?

Wang and Aitchison (arXiv 2405.13698) find that the best timescale τ = 1/(α·λ·steps per epoch) of
AdamW's decay hardly depends on the sizes of model and data set. Here a network is trained with
every batch size on every number of images; such a pair is a *cell*. All cells have the same grid
of τ, from which λ follows, and learning rates α that go with the root of the batch size. The
schedule is a cosine that falls to zero, and the last epoch is scored on validation images.

A *curve* is the score over τ at one α of one cell, interpolated smoothly. A law
τ ∝ batchᵃ·imagesᵇ·αᶜ is fitted to the best τ of all curves. If the same τ is best for all, the
exponents are 0, 0 and 0; if the same λ is, they are 1, −1 and −1; if the same decay per step is,
1, −1 and 0. Each cell has its own seeds, and 95 % intervals are those of bootstrap samples of the
seeds; with few seeds they are somewhat too short.
"""

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import polars as pl

from adamw_jax import sweep
from experiments.harness import data, settings
from experiments.harness.context import Context
from experiments.harness.report import Report
from experiments.harness.sweeps import run_grid
from experiments.timescale.law import Cell
from experiments.timescale.report import summarize
from experiments.training import arms
from experiments.training.classifier import classifier_run
from experiments.training.loop import steps_per_epoch
from experiments.training.models import MLP
from experiments.training.sample import sample

TWO, THREE = msgspec.Meta(min_length=2), msgspec.Meta(min_length=3)


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The keys of `configs/timescale.toml`."""

    data: Annotated[Literal["digits", "fashion-mnist"], settings.about("the data set")]
    validation: Annotated[
        float, msgspec.Meta(gt=0, lt=1), settings.about("fraction of it that scores a run")
    ]
    images: Annotated[tuple[settings.Count, ...], TWO, settings.about("training images")]
    noise: Annotated[
        float, msgspec.Meta(ge=0, le=1), settings.about("fraction of them with wrong labels")
    ]
    hidden: Annotated[tuple[settings.Count, ...], settings.about("sizes of the hidden layers")]
    batch_sizes: Annotated[tuple[settings.Count, ...], TWO, settings.about("images in a step")]
    learning_rates: Annotated[
        tuple[settings.Positive, ...],
        TWO,
        settings.about("α for the least batch size; it goes with the root of the batch size"),
    ]
    timescales: Annotated[
        tuple[settings.Positive, ...], THREE, settings.about("τ in epochs; some have no decay")
    ]
    epochs: Annotated[settings.Count, settings.about("passes over the training images")]
    seeds: Annotated[
        int, msgspec.Meta(ge=2, le=1000), settings.about("runs of every α and τ in a cell")
    ]

    @property
    def cells(self) -> list[Cell]:
        """Every number of images with every batch size."""
        return [
            Cell(
                images,
                batch,
                steps_per_epoch(images, batch),
                tuple(
                    rate * math.sqrt(batch / self.batch_sizes[0]) for rate in self.learning_rates
                ),
            )
            for images in self.images
            for batch in self.batch_sizes
        ]


def run(config: Settings, context: Context) -> Report:
    """Trains with every τ and α in every cell."""
    axes = "images", "batch_sizes", "learning_rates", "timescales"
    settings.check_ascending(**{key: getattr(config, key) for key in axes})
    sample(data.SIZES[config.data].images, config.validation, config.images[-1])
    arms.check_timescale(config.timescales[0], config.cells)
    load = functools.cache(lambda: data.load(config.data, context.data_dir))
    runs = pl.concat(
        _runs(cell, range(i * config.seeds, (i + 1) * config.seeds), config, load, context)
        for i, cell in enumerate(config.cells)
    )
    return summarize(runs, config.cells, config.timescales)


def _runs(
    cell: Cell, seeds: range, config: Settings, load: Callable[[], Any], context: Context
) -> pl.DataFrame:
    """Trains in one cell: a row for every τ, α and seed."""
    there = data.SIZES[config.data]
    size = sample(there.images, config.validation, cell.images, config.noise)
    network = functools.partial(MLP, (there.pixels, *config.hidden, 10))
    optimizer = functools.partial(arms.with_timescale, cell.steps, config.epochs)
    results = run_grid(
        f"{cell.images}-images-batch-{cell.batch_size}",
        classifier_run(optimizer, network, size, cell.batch_size, config.epochs, 1),
        sweep.product(
            timescale=[*config.timescales, math.inf], learning_rate=cell.rates, seed=seeds
        ),
        load,
        context,
        watch=["train_loss"],
        identity={
            "data": config.data,
            "validation": config.validation,
            "noise": config.noise,
            "hidden": list(config.hidden),
            "epochs": config.epochs,
        },
    )
    where = {"images": cell.images, "batch_size": cell.batch_size}
    return pl.DataFrame(
        [
            where | r.settings | {name: float(r.history(name, 1)[0]) for name in r.metrics}
            for r in results
        ]
    )

"""What does it cost to keep AdamW's moments, or the parameters, in fewer bytes?

A network is trained with everything in float32, and again with its moments or its parameters in
bfloat16 or 8 bits; whatever they are kept in, arithmetic is done in float32. A parameter that is
rounded to the nearest bfloat16 after every step does not move if the step is less than about 1/512
of it, and a second moment that is rounded so stalls; the other ways are meant to mend that. How
much is lost depends on the learning rate: the smaller the steps, the more of them.

Each seed draws its own images, initial weights and random bits, the same for all ways.
"""

import functools
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from adamw_jax import sweep
from experiments.harness import data, settings
from experiments.harness.context import Context
from experiments.harness.report import Report
from experiments.harness.sweeps import run_grid
from experiments.precision.report import Compared, summarize
from experiments.precision.ways import BASE, WAYS, bytes_each, kept_in, optimizer
from experiments.training.classifier import classifier_run
from experiments.training.loop import steps_per_epoch
from experiments.training.models import MLP
from experiments.training.sample import sample


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The keys of `configs/precision.toml`."""

    data: Annotated[Literal["digits", "fashion-mnist"], settings.about("the data set")]
    images: Annotated[settings.CountOrZero, settings.about("training images; 0 for all")]
    hidden: Annotated[tuple[settings.Count, ...], settings.about("sizes of the hidden layers")]
    learning_rates: Annotated[
        tuple[settings.Positive, ...], settings.SOME, settings.about("α, of a cosine schedule")
    ]
    weight_decay: Annotated[settings.NonNegative, settings.about("λ of AdamW, times α")]
    epochs: Annotated[settings.Count, settings.about("passes over the training images")]
    batch_size: Annotated[settings.Count, settings.about("images in a step")]
    seeds: Annotated[int, msgspec.Meta(ge=2, le=1000), settings.about("runs of every way")]
    matters: Annotated[
        settings.Positive, settings.about("points of accuracy, the least difference that matters")
    ]


def run(config: Settings, context: Context) -> Report:
    """Trains in every way."""
    there = data.SIZES[config.data]
    size = sample(there.images, images=config.images)
    steps = config.epochs * steps_per_epoch(size.train, config.batch_size)
    network = functools.partial(MLP, (there.pixels, *config.hidden, 10))

    def training(static: sweep.Row) -> sweep.Run:
        way = WAYS[static["way"]]
        return classifier_run(
            functools.partial(optimizer, way, steps),
            functools.partial(kept_in, way.params, network),
            size,
            config.batch_size,
            config.epochs,
            1,
        )

    def trained(rate: float) -> dict[str, Sequence[sweep.Result]]:
        seeds = range(config.seeds)
        grid = sweep.product(
            sweep.product(way=WAYS, learning_rate=[rate], weight_decay=[config.weight_decay]),
            sweep.zipped(bits=seeds, seed=seeds),
        )
        results = run_grid(
            f"rate-{rate:g}",
            training,
            grid,
            lambda: data.load(config.data, context.data_dir),
            context,
            watch=["train_loss"],
            identity={
                "data": config.data,
                "images": config.images,
                "hidden": list(config.hidden),
                "epochs": config.epochs,
                "batch_size": config.batch_size,
            },
        )
        return {name: [r for r in results if r.settings["way"] == name] for name in WAYS}

    settings.check_ascending(learning_rates=config.learning_rates)
    compared = {
        rate: [
            Compared.of(name, runs, by_way[BASE], bytes_each(WAYS[name], network, runs[0].settings))
            for name, runs in by_way.items()
        ]
        for rate, by_way in ((rate, trained(rate)) for rate in config.learning_rates)
    }
    return summarize(compared, config.seeds, config.matters)

"""Why did AdamW not beat Adam on Fashion-MNIST? All arms are tuned alike, then compared.

Adam, Adam+L2 and AdamW get as many trials each, spread over the learning rate, the decay and the
length of the run. Every run is stopped where its own validation images say, and the validation
images choose the settings, separately for accuracy and for loss. What is chosen is run with fresh
seeds. A seed draws the images, the initial weights and their order, the same for all arms, and
comparisons are made seed by seed. Loss is measured after one temperature that is fitted on the
validation images. docs/study-plan.md is the plan, which was made before the runs.
"""

from typing import Annotated, Literal

import msgspec
import polars as pl

from experiments.harness import data, settings
from experiments.harness.context import Context
from experiments.harness.report import Report
from experiments.harness.sweeps import run_grid
from experiments.study import candidates, choices
from experiments.study.candidates import Candidate
from experiments.study.measures import scores
from experiments.study.tasks import Bench, Range, Task


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The keys of `configs/study.toml`."""

    data: Annotated[Literal["digits", "fashion-mnist"], settings.about("the data set")]
    validation: Annotated[
        float,
        msgspec.Meta(gt=0, lt=1),
        settings.about("fraction of the images that a run stops and is chosen by"),
    ]
    batch_size: Annotated[settings.Count, settings.about("images in a step")]
    every: Annotated[settings.Count, settings.about("epochs between two evaluations")]
    learning_rates: Annotated[Range, settings.about("the range of α for all arms")]
    trials: Annotated[settings.Count, settings.about("trials of each arm")]
    promoted: Annotated[
        settings.Count, settings.about("best trials that are run with more seeds, by each measure")
    ]
    tuning_seeds: Annotated[
        settings.Count,
        settings.about("seeds of a promoted trial; all trials are run with the first"),
    ]
    first_tuning_seed: Annotated[
        settings.Seed, settings.about("the first seed for tuning; fresh seeds are 0, 1, …")
    ]
    matters_accuracy: Annotated[
        settings.Positive, settings.about("smallest difference that matters, in points")
    ]
    matters_loss: Annotated[
        settings.Positive, settings.about("smallest difference in loss that matters")
    ]
    tasks: Annotated[tuple[Task, ...], settings.SOME]


def run(config: Settings, context: Context) -> Report:
    """Tunes every arm on every task, runs what was chosen with fresh seeds, and compares."""
    for task in config.tasks:
        bench = Bench(
            task=task,
            data=config.data,
            validation=config.validation,
            batch_size=config.batch_size,
            every=config.every,
        )
        study(bench, config, context)
    raise SystemExit


def study(bench: Bench, config: Settings, context: Context):
    def measured(stage: str, chosen: list[Candidate], seeds: range) -> pl.DataFrame:
        results = run_grid(
            f"{bench.slug}-{stage}",
            bench.program,
            candidates.grid(bench, chosen, seeds),
            data.load(config.data, context.data_dir),
            context,
            watch=["train_loss"],
            identity=bench.identity,
            static=["epochs"],
        )
        return scores(candidates.table(chosen, results), config.every)

    first = config.first_tuning_seed
    trials = candidates.candidates(bench, config.learning_rates, config.trials)
    tuning = measured("tuning", trials, range(first, first + 1))
    promoted = choices.best(tuning, config.promoted)
    more = measured("promoted", promoted, range(first, first + config.tuning_seeds))
    chosen = choices.best(more, 1)
    fresh = measured("fresh", chosen, range(bench.task.seeds))
    return tuning, more, fresh

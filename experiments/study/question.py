"""Why did AdamW not beat Adam on Fashion-MNIST? Three guesses, each put to the test.

The talk guessed that (1) the data does not tend to overfitting, (2) λ was too small or too
large, or (3) a schedule was missing. Each guess makes a prediction: (1) that AdamW's lead over
Adam grows where there is more to overfit, fewer images or wrong labels; (2) that another λ does
better than the talk's; (3) that the lead grows with a schedule.

The λ of each family is chosen on validation images, by accuracy where accuracies are compared and
by loss where losses are. The odd seeds choose for the even ones, and the even for the odd. Test
results are looked at only for what was chosen and for the talk's λ. A seed fixes the initial
weights and the order of the images for all arms, and comparisons are made seed by seed. Validation
and test labels are right even where training labels are wrong. The learning rate is the same for
all arms.

A claim is supported where the interval of the effect that it predicts lies above zero and reaches
what matters; reversed where it lies below zero and reaches as far; refuted where the effect is
otherwise too small to matter; and undecided in all other cases. The intervals together cover with
95 % (Bonferroni), over the randomness of the seeds: the images, the wrong labels and the split are
the same in all runs.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
import polars as pl

from adamw_jax import sweep, weight_decay_from_per_step
from experiments.harness import data, settings
from experiments.harness.context import Context
from experiments.harness.report import Report
from experiments.harness.sweeps import run_grid
from experiments.study.choices import ACCURACY, LOSS
from experiments.study.report import summarize
from experiments.study.trials import Condition, Trial, program
from experiments.training.loop import steps_per_epoch


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The keys of `configs/study.toml`."""

    data: Annotated[Literal["digits", "fashion-mnist"], settings.about("the data set")]
    validation: Annotated[
        float,
        msgspec.Meta(gt=0, lt=1),
        settings.about("fraction of the training images on which λ is chosen"),
    ]
    hidden: Annotated[tuple[settings.Count, ...], settings.about("sizes of the MLP's layers")]
    learning_rate: Annotated[settings.Positive, settings.about("α, for all arms")]
    batch_size: Annotated[settings.Count, settings.about("images in a step")]
    evaluations: Annotated[
        settings.Count, settings.about("evaluations of a run, a divisor of its epochs")
    ]
    seeds: Annotated[settings.Count, settings.about("runs of every arm, with seeds 0, 1, …")]
    talk: Annotated[
        tuple[settings.NonNegative, ...], settings.about("the talk's λ, in either convention")
    ]
    matters_accuracy: Annotated[
        settings.Positive, settings.about("smallest difference that matters, in points")
    ]
    matters_loss: Annotated[
        settings.Positive, settings.about("smallest difference in loss that matters")
    ]
    first: Annotated[
        settings.CountOrZero,
        settings.about("how many trials to run, in the file's order; the others are used if kept"),
    ]
    conditions: tuple[Condition, ...]


def run(config: Settings, context: Context) -> Report:
    """Runs the trials and puts the guesses to the test."""
    loaded = data.load(config.data, config.validation, context.data_dir)
    tables: list[pl.DataFrame] = []
    missing: list[str] = []
    for number, (trial, training, images) in enumerate(_trials(config, loaded), 1):
        grid, identity = trial.grid(config.seeds), _identity(config, trial)
        if number <= config.first:
            watched = ["train_loss"]
            results = run_grid(trial.slug, training, grid, images, context, watched, identity)
        else:
            results = sweep.kept(context.cache(trial.slug), grid, identity)
        if results is None:
            missing.append(trial.name)
        else:
            tables.append(trial.table(results))
    if not tables:
        raise settings.SettingsError("no trial is done, and first = 0 runs none")
    title = f"Why did AdamW not beat Adam? A study on {config.data}"
    times_rate = (weight_decay_from_per_step(decay, config.learning_rate) for decay in config.talk)
    talk = sorted({*config.talk, *times_rate})
    matters = {ACCURACY: config.matters_accuracy, LOSS: config.matters_loss}
    return summarize(title, pl.concat(tables), talk, matters, missing)


def _identity(config: Settings, trial: Trial) -> dict[str, Any]:
    """What decides a trial's results and is neither in its grid nor in its name."""
    return {
        "data": config.data,
        "validation": config.validation,
        "hidden": list(config.hidden),
        "batch_size": config.batch_size,
        "epochs": trial.condition.epochs,
        "evaluations": config.evaluations,
    }


def _trials(config: Settings, loaded: data.Data) -> Iterator[tuple[Trial, sweep.Run, data.Data]]:
    """Every trial, what its runs run and their images."""
    seen: set[str] = set()
    for condition in config.conditions:
        reduced = data.reduced(loaded, condition.images, condition.noise)
        images = len(reduced.train.labels)
        steps = steps_per_epoch(images, config.batch_size)
        # All schedules of a condition are one program, which is compiled once.
        training = program(condition, config.hidden, reduced, config.batch_size, config.evaluations)
        for schedule in condition.schedules:
            trial = Trial(condition, schedule, config.learning_rate, images, steps)
            if trial.name in seen:
                raise settings.SettingsError(f"two trials are the same: {trial.name}")
            seen.add(trial.name)
            yield trial, training, reduced

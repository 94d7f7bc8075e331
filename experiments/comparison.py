"""Adam, Adam+L2 and AdamW train a network, over several weight decays and seeds.

The talk's question: does AdamW do better than Adam? Each seed fixes the first weights
and the order of the images for all arms, so that arms can be compared seed by seed. What
a weight decay λ means differs by convention, and both are here: `adamw` multiplies it by
the learning rate α, as PyTorch and Optax do (a step takes α·λ of each weight away), and
`adamw-per-step` does not, as in the paper (a step takes λ away).
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np

import adamw_jax
from experiments import data, plots, settings, train
from experiments.arms import Arm, Result
from experiments.comparison_report import summarize
from experiments.context import Context
from experiments.report import Report
from experiments.runs import Job, run_all


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The keys of `configs/comparison.toml`."""

    data: Annotated[Literal["digits", "fashion-mnist"], settings.about("the data set")]
    validation: Annotated[
        float, msgspec.Meta(ge=0, lt=1), settings.about("share of the training images held out")
    ]
    hidden: Annotated[tuple[settings.Count, ...], settings.about("sizes of the hidden layers")]
    learning_rate: Annotated[settings.Positive, settings.about("α, constant, for all arms")]
    adam_l2: Annotated[tuple[settings.NonNegative, ...], settings.about("λ′ of Adam+L2")]
    adamw: Annotated[tuple[settings.NonNegative, ...], settings.about("λ of AdamW, times α")]
    adamw_per_step: Annotated[
        tuple[settings.NonNegative, ...],
        settings.about("λ of AdamW, without α"),
    ]
    epochs: Annotated[settings.Count, settings.about("passes over the training images")]
    batch_size: Annotated[settings.Count, settings.about("images in a step")]
    seeds: Annotated[settings.Count, settings.about("runs of every arm, with seeds 0, 1, …")]


OPTIMIZERS: dict[str, Callable[[train.Hyperparameters], adamw_jax.GradientTransformation]] = {
    "adam": lambda h: adamw_jax.adam(h["learning_rate"]),
    "adam_l2": lambda h: adamw_jax.adam_l2(h["learning_rate"], l2=h["weight_decay"]),
    "adamw": lambda h: adamw_jax.adamw(h["learning_rate"], weight_decay=h["weight_decay"]),
}


def arms(chosen: Settings) -> list[Arm]:
    """Adam, then every decay of every family."""
    alpha = chosen.learning_rate

    def times_rate(decay: float) -> float:
        return adamw_jax.per_step_from_weight_decay(decay, alpha)

    def over_rate(decay: float) -> float:
        return adamw_jax.weight_decay_from_per_step(decay, alpha)

    return [
        Arm("Adam", "adam", 0.0, 0.0, 0.0, plots.BLACK),
        *(
            Arm("Adam+L2", "adam_l2", decay, decay, times_rate(decay), plots.VERMILION)
            for decay in chosen.adam_l2
        ),
        *(
            Arm("AdamW ×α", "adamw", decay, decay, times_rate(decay), plots.BLUE)
            for decay in chosen.adamw
        ),
        *(
            Arm("AdamW /step", "adamw", decay, over_rate(decay), decay, plots.GREEN)
            for decay in chosen.adamw_per_step
        ),
    ]


def jobs(chosen: Settings, compared: Sequence[Arm], loaded: data.Data) -> list[Job]:
    """A job for every arm and seed; those with the same optimizer share a program."""
    pixels = loaded.train.images.shape[1]
    widths = (pixels, *chosen.hidden, 10)
    programs = {
        name: train.classifier(optimizer, widths, chosen.batch_size)
        for name, optimizer in OPTIMIZERS.items()
    }
    fixed = {
        key: getattr(chosen, key)
        for key in ("data", "validation", "hidden", "learning_rate", "epochs", "batch_size")
    }
    return [
        Job(
            settings={**fixed, "optimizer": arm.optimizer, "weight_decay": arm.weight_decay},
            run=programs[arm.optimizer],
            hyperparameters={
                "learning_rate": chosen.learning_rate,
                "weight_decay": arm.weight_decay,
            },
            seed=seed,
            epochs=chosen.epochs,
            label=f"{arm.label}, seed {seed}",
        )
        for arm, seed in itertools.product(compared, range(chosen.seeds))
    ]


def run(chosen: Settings, context: Context) -> Report:
    """Trains every arm with every seed and compares them."""
    loaded = data.load(chosen.data, chosen.validation, context.data_dir)
    steps = len(loaded.train.labels) // chosen.batch_size
    if steps == 0:
        raise settings.SettingsError(
            f"batch_size = {chosen.batch_size} is more than the {len(loaded.train.labels)} "
            "training images"
        )
    compared = arms(chosen)
    results = run_all(jobs(chosen, compared, loaded), loaded, context)
    by_arm = [results[i : i + chosen.seeds] for i in range(0, len(results), chosen.seeds)]
    measured = [
        Result(arm, train.Metrics(*(np.stack(metric) for metric in zip(*runs, strict=True))))
        for arm, runs in zip(compared, by_arm, strict=True)
    ]
    title = f"Adam, Adam+L2 and AdamW on {chosen.data}"
    with np.errstate(invalid="ignore", over="ignore"):  # runs that diverged
        return summarize(measured, title, steps, validated=chosen.validation > 0)

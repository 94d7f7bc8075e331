"""Adam, Adam+L2 and AdamW train a network, over several weight decays and seeds.

The talk's question: does AdamW do better than Adam? Each seed fixes the first weights
and the order of the images for all arms, so that arms can be compared seed by seed. What
a weight decay λ means differs by convention, and both are here: `adamw` multiplies it by
the learning rate α, as PyTorch and Optax do (a step takes α·λ of each weight away), and
`adamw-per-step` does not, as in the paper (a step takes λ away).
"""

import functools
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np

import adamw_jax
from adamw_jax import sweep
from experiments.comparison.report import summarize
from experiments.harness import data, plots, settings
from experiments.harness.context import Context
from experiments.harness.report import Report
from experiments.harness.sweeps import run_grid
from experiments.training.arms import ADAM, Arm, Result
from experiments.training.classifier import Metrics, classifier_run
from experiments.training.loop import Hyperparameters, steps_per_epoch
from experiments.training.models import MLP


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


def optimizer(h: Hyperparameters) -> adamw_jax.GradientTransformation:
    """All arms in one program: Adam is AdamW and Adam+L2 without decay."""
    adamw = adamw_jax.adamw(h["learning_rate"], weight_decay=h["weight_decay"])
    return adamw_jax.chain(adamw_jax.l2_regularization(h["l2"]), adamw)


def arms(chosen: Settings) -> list[Arm]:
    """Adam, then every decay of every family."""
    alpha = chosen.learning_rate

    def times_rate(decay: float) -> float:
        return adamw_jax.per_step_from_weight_decay(decay, alpha)

    def over_rate(decay: float) -> float:
        return adamw_jax.weight_decay_from_per_step(decay, alpha)

    return [
        Arm(ADAM, 0.0, 0.0, 0.0, 0.0, plots.BLACK),
        *(
            Arm("Adam+L2", decay, decay, 0.0, times_rate(decay), plots.VERMILION)
            for decay in chosen.adam_l2
        ),
        *(
            Arm("AdamW ×α", decay, 0.0, decay, times_rate(decay), plots.BLUE)
            for decay in chosen.adamw
        ),
        *(
            Arm("AdamW /step", decay, 0.0, over_rate(decay), decay, plots.GREEN)
            for decay in chosen.adamw_per_step
        ),
    ]


def run(chosen: Settings, context: Context) -> Report:
    """Trains every arm with every seed and compares them."""
    loaded = data.load(chosen.data, chosen.validation, context.data_dir)
    steps = steps_per_epoch(len(loaded.train.labels), chosen.batch_size)
    widths = (loaded.train.images.shape[1], *chosen.hidden, 10)
    trained = classifier_run(
        optimizer, functools.partial(MLP, widths), chosen.batch_size, chosen.epochs
    )
    compared = arms(chosen)
    l2, weight_decay = zip(*(arm.run for arm in compared), strict=True)
    grid = sweep.product(
        sweep.concatenated(sweep.zipped(l2=l2, weight_decay=weight_decay)),
        learning_rate=[chosen.learning_rate],
        seed=range(chosen.seeds),
    )
    # The last parameters' loss is watched, not the validation's, which may have no images.
    results = run_grid("comparison", trained, grid, loaded, context, ["test_loss"])
    measured = [Result(arm, _metrics(arm, results, chosen.epochs)) for arm in compared]
    title = f"Adam, Adam+L2 and AdamW on {chosen.data}"
    with np.errstate(invalid="ignore", over="ignore"):  # runs that diverged
        return summarize(measured, title, steps, validated=chosen.validation > 0)


def _metrics(arm: Arm, results: Sequence[sweep.Result], epochs: int) -> Metrics:
    """An arm's metrics [seeds, epochs]; what a diverged run has not is NaN."""
    runs = [r for r in results if arm.run == (r.settings["l2"], r.settings["weight_decay"])]
    return Metrics(*(np.stack([r.history(name, epochs) for r in runs]) for name in Metrics._fields))

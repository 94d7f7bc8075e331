"""Does AdamW do better than Adam, and than Adam+L2, over several weight decays and seeds?

The talk's question, on a network and images of handwritten digits or of clothes. A seed fixes
which images are held out for validation, the initial weights and the order of the images, the same
for all arms, so that arms can be compared seed by seed. AdamW is here in both conventions of its
decay (docs/weight-decay.md): `adamw` multiplies λ by the learning rate α, as PyTorch and Optax do,
and `adamw-per-step` does not, as in the paper.
"""

import functools
from typing import Annotated, Literal

import msgspec

from adamw_jax import sweep
from experiments.comparison.report import summarize
from experiments.harness import data, settings
from experiments.harness.context import Context
from experiments.harness.report import Report
from experiments.harness.sweeps import run_grid
from experiments.training import arms
from experiments.training.arms import ADAM, L2, PER_STEP, TIMES_RATE, Arm
from experiments.training.classifier import classifier_run
from experiments.training.loop import steps_per_epoch
from experiments.training.models import MLP
from experiments.training.sample import sample


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The keys of `configs/comparison.toml`."""

    data: Annotated[Literal["digits", "fashion-mnist"], settings.about("the data set")]
    validation: Annotated[
        float,
        msgspec.Meta(gt=0, lt=1),
        settings.about("fraction of the training images held out"),
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

    @property
    def arms(self) -> list[Arm]:
        """Adam, then every decay of every family."""
        families = {L2: self.adam_l2, TIMES_RATE: self.adamw, PER_STEP: self.adamw_per_step}
        decayed = (
            Arm(family, decay, self.learning_rate)
            for family, decays in families.items()
            for decay in decays
        )
        return [Arm(ADAM, 0.0, self.learning_rate), *decayed]


def run(config: Settings, context: Context) -> Report:
    """Trains every arm with every seed and compares them."""
    there = data.SIZES[config.data]
    size = sample(there.images, config.validation)
    steps = steps_per_epoch(size.train, config.batch_size)
    network = functools.partial(MLP, (there.pixels, *config.hidden, 10))
    training = classifier_run(arms.optimizer, network, size, config.batch_size, config.epochs)
    grid = sweep.product(arms.grid(config.arms), seed=range(config.seeds))
    results = run_grid(
        "comparison",
        training,
        grid,
        lambda: data.load(config.data, context.data_dir),
        context,
        watch=["test_loss"],
        identity={
            "data": config.data,
            "validation": config.validation,
            "hidden": list(config.hidden),
            "batch_size": config.batch_size,
            "epochs": config.epochs,
        },
    )
    title = f"Adam, Adam+L2 and AdamW on {config.data}"
    return summarize(title, arms.table(config.arms, results), steps)

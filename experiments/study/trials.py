"""The study's trials: a network, its images (perhaps few or wrongly labelled) and a schedule."""

import functools
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
import polars as pl

from adamw_jax import sweep
from experiments.harness import settings
from experiments.harness.data import Data
from experiments.harness.settings import Count, Positive
from experiments.training import arms
from experiments.training.arms import ADAM, ADAMW, L2, Arm
from experiments.training.classifier import classifier_run
from experiments.training.models import CNN, MLP

# A run with restarts has three cycles, each twice as long as the one before: in all, as long as
# this many first cycles.
PARTS = 1 + arms.CYCLE_MULT + arms.CYCLE_MULT**2


class Condition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What AdamW is tried on.

    Attributes:
      images: how many training images; 0 for all.
      noise: fraction of them that get a wrong label, in [0, 1].
      network: "mlp" or "cnn".
      schedules: the schedules of the learning rate; each makes a trial of its own.
      epochs: passes over the images.
      l2: values of λ′.
      weight_decay: values of λ, in PyTorch's and Optax's convention.
    """

    images: settings.CountOrZero
    noise: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    network: Literal["mlp", "cnn"] = "mlp"
    schedules: tuple[Literal["constant", "cosine", "restarts"], ...]
    epochs: Count
    l2: tuple[Positive, ...]
    weight_decay: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)]


class Trial(NamedTuple):
    """A condition with one schedule.

    Attributes:
      condition: which network is trained on which images, with which decays.
      schedule: the schedule of the learning rate.
      learning_rate: α, at the schedule's peak.
      images: how many training images there are.
      steps: optimizer steps in an epoch.
    """

    condition: Condition
    schedule: str
    learning_rate: float
    images: int
    steps: int

    @property
    def task(self) -> str:
        """What is learnt, as reports name it."""
        c = self.condition
        noise = f", {100 * c.noise:g} % wrong" if c.noise else ""
        network = "" if c.network == "mlp" else f", {c.network.upper()}"
        return f"{self.images:,} images{noise}{network}"

    @property
    def name(self) -> str:
        """The task and the schedule, as reports name the trial."""
        return f"{self.task}, {self.schedule}"

    @property
    def slug(self) -> str:
        """The task and the schedule, as files name the trial."""
        c = self.condition
        noise = f"-noise{100 * c.noise:g}" if c.noise else ""
        return f"{self.images}{noise}-{c.network}-{self.schedule}"

    @property
    def total(self) -> int:
        """Steps in a run."""
        return self.condition.epochs * self.steps

    @property
    def arms(self) -> list[Arm]:
        """Adam, then every decay of Adam+L2 and of AdamW."""
        return [
            Arm(ADAM, 0.0, self.learning_rate),
            *(Arm(L2, decay, self.learning_rate) for decay in self.condition.l2),
            *(Arm(ADAMW, decay, self.learning_rate) for decay in self.condition.weight_decay),
        ]

    def grid(self, seeds: int) -> sweep.Grid:
        """Every arm with every seed.

        All are one program: the schedule is two numbers, the steps of the first cycle and the
        fraction of the learning rate at which a cycle ends.
        """
        # A cycle may be longer than the run, so that no restart is its last step.
        cycle = -(-self.total // PARTS) if self.schedule == "restarts" else self.total
        return sweep.product(
            arms.grid(self.arms),
            first_cycle=[cycle],
            floor=[1.0 if self.schedule == "constant" else 0.0],
            seed=range(seeds),
        )

    def table(self, results: Sequence[sweep.Result]) -> pl.DataFrame:
        """What was measured, as `arms.table` returns it, with columns that tell the trial.

        They are `trial` (its name), `task`, `schedule`, `network`, `images`, `noise`, `epochs`
        and `steps` (in an epoch).
        """
        c = self.condition
        return arms.table(self.arms, results).select(
            pl.lit(self.name).alias("trial"),
            pl.lit(self.task).alias("task"),
            pl.lit(self.schedule).alias("schedule"),
            pl.lit(c.network).alias("network"),
            pl.lit(self.images).alias("images"),
            pl.lit(c.noise).alias("noise"),
            pl.lit(c.epochs).alias("epochs"),
            pl.lit(self.steps).alias("steps"),
            pl.all(),
        )


def program(
    condition: Condition, hidden: Sequence[int], data: Data, batch_size: int, evaluations: int
) -> sweep.Run:
    """The training program of a condition, for all its schedules and arms.

    Args:
      condition: which network is trained, and for how long.
      hidden: sizes of the MLP's hidden layers.
      data: gives the number of pixels.
      batch_size: images in a step.
      evaluations: how often a run is evaluated.

    Raises:
      SettingsError: the evaluations would not fall between epochs.
    """
    pixels = data.train.images.shape[1]
    if condition.epochs % evaluations:
        raise settings.SettingsError(
            f"evaluations = {evaluations} does not divide {condition.epochs} epochs"
        )
    if condition.network == "mlp":
        network = functools.partial(MLP, (pixels, *hidden, 10))
    else:
        network = functools.partial(CNN, round(pixels**0.5), (16, 32), 64, 10)
    return classifier_run(arms.scheduled, network, batch_size, condition.epochs, evaluations)

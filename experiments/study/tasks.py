"""What the optimizers are compared on: images, network and schedule, with the ranges to tune in."""

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from adamw_jax import sweep
from experiments.harness import settings
from experiments.harness.data import SIZES
from experiments.harness.settings import Count, Positive
from experiments.training import arms
from experiments.training.classifier import classifier_run
from experiments.training.loop import steps_per_epoch
from experiments.training.models import MLP
from experiments.training.sample import Sample, sample

Range = tuple[Positive, Positive]
CONSTANT, COSINE = "constant", "cosine"
SCHEDULES = {CONSTANT: "constant rate", COSINE: "cosine"}


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task, as a table `[[tasks]]` of the settings file gives it.

    Attributes:
      name: what is learnt, in a few words; tasks that differ only in the schedule share it.
      images: how many training images a run draws; 0 for all that are not held out.
      noise: fraction of them that get a wrong label, in [0, 1].
      hidden: sizes of the MLP's hidden layers.
      schedule: of the learning rate: constant, or a cosine that ends at zero with the run.
      epochs: the lengths of a run among which tuning chooses, in passes over the images.
      l2: the range of λ′ of Adam+L2.
      weight_decay: the range of λ of AdamW, in PyTorch's and Optax's convention.
      seeds: how many fresh seeds the chosen settings are run with.
      primary: whether the study's primary comparisons are made on this task.
      talk_seeds: how many fresh seeds the talk's own settings are run with.
      less: the name of the task with less to overfit that this one is compared with.
    """

    name: str
    images: settings.CountOrZero
    noise: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    hidden: Annotated[tuple[Count, ...], settings.SOME]
    schedule: Literal["constant", "cosine"]
    epochs: Annotated[tuple[Count, ...], settings.SOME]
    l2: Range
    weight_decay: Range
    seeds: Count
    primary: bool = False
    talk_seeds: settings.CountOrZero = 0
    less: str = ""


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """A task on a data set: what its runs are.

    Attributes:
      task: the task.
      data: the name of the data set.
      validation: fraction of the images that each run holds out.
      batch_size: images in a step.
      every: epochs between two evaluations.
    """

    task: Task
    data: str
    validation: float
    batch_size: int
    every: int

    def __post_init__(self) -> None:
        if left := [epochs for epochs in self.task.epochs if epochs % self.every]:
            raise settings.SettingsError(f"every = {self.every} does not divide {left[0]} epochs")
        steps_per_epoch(self.sample.train, self.batch_size)

    @property
    def sample(self) -> Sample:
        """How many images each run draws."""
        there = SIZES[self.data].images
        return sample(there, self.validation, self.task.images, self.task.noise)

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch."""
        return steps_per_epoch(self.sample.train, self.batch_size)

    @property
    def name(self) -> str:
        """The task with its schedule, as reports name it."""
        return f"{self.task.name}, {SCHEDULES[self.task.schedule]}"

    @property
    def slug(self) -> str:
        """The task, as files name it."""
        noise = f"-noise{100 * self.task.noise:g}" if self.task.noise else ""
        hidden = "x".join(map(str, self.task.hidden))
        longest = max(self.task.epochs)
        return f"{self.sample.train}{noise}-{hidden}-{self.task.schedule}-{longest}"

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the results of a run and is neither in its settings nor in `slug`."""
        return {
            "data": self.data,
            "validation": self.validation,
            "batch_size": self.batch_size,
            "every": self.every,
        }

    def program(self, static: Mapping[str, Any]) -> sweep.Run:
        """The training program for all arms and schedules that train for as many epochs."""
        epochs = static["epochs"]
        network = functools.partial(MLP, (SIZES[self.data].pixels, *self.task.hidden, 10))
        evaluations = epochs // self.every
        return classifier_run(
            arms.scheduled, network, self.sample, self.batch_size, epochs, evaluations
        )

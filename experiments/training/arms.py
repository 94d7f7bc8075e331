"""What the comparison compares, and what it measured."""

from typing import NamedTuple

import numpy as np

from adamw_jax import timescale_from_per_step
from experiments.training.classifier import Metrics

ADAM = "Adam"


class Arm(NamedTuple):
    """What is compared: an optimizer and its decay.

    Attributes:
      family: name of the optimizer and of the convention of its decay.
      decay: λ or λ′, in the family's own convention.
      l2: λ′, the argument that the optimizer gets.
      weight_decay: λ, the argument that the optimizer gets.
      decay_per_step: share of a weight that a step takes away; for Adam+L2 what it
        would be for gradient descent.
      color: in plots.
    """

    family: str
    decay: float
    l2: float
    weight_decay: float
    decay_per_step: float
    color: str

    @property
    def label(self) -> str:
        """Family and decay, as shown."""
        return f"{self.family} {self.decay:g}" if self.decays else self.family

    @property
    def decays(self) -> bool:
        """Whether it is more than Adam; a family may have 0 among its decays."""
        return self.family != ADAM

    @property
    def run(self) -> tuple[float, float]:
        """What is run, whatever the convention: arms that agree here are the same."""
        return self.l2, self.weight_decay

    def timescale(self, steps_per_epoch: int) -> float:
        """Epochs in which decay alone takes a weight to 1/e; infinite without decay."""
        return timescale_from_per_step(self.decay_per_step, steps_per_epoch)


class Result(NamedTuple):
    """An arm and what was measured.

    Attributes:
      arm: what was run.
      metrics: arrays [seeds, epochs].
    """

    arm: Arm
    metrics: Metrics

    def series(self, name: str) -> np.ndarray:
        """A metric as it is shown, [seeds, epochs]: shares in percent.

        Besides the fields of `Metrics` there is `test_error`.
        """
        if name == "test_error":
            return 100 - self.series("test_accuracy")
        values = np.asarray(getattr(self.metrics, name), np.float64)
        return 100 * values if name.endswith("accuracy") else values

    def final(self, name: str) -> np.ndarray:
        """A metric after the last epoch, [seeds]."""
        return self.series(name)[:, -1]

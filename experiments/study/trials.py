"""The study's trials: a data set made smaller or noisier, a network, a schedule."""

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import jax.numpy as jnp
import msgspec
import numpy as np

import adamw_jax
from adamw_jax import sweep
from experiments.harness import settings
from experiments.harness.data import Data
from experiments.harness.settings import Count, Positive
from experiments.training.classifier import classifier_run
from experiments.training.loop import Hyperparameters
from experiments.training.models import CNN, MLP

Schedule = Literal["constant", "cosine", "restarts"]
Network = Literal["mlp", "cnn"]
# Cycles of 1, 2 and 4 parts: three restarts fill seven parts.
CYCLE_MULT, PARTS = 2, 7


class Condition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What AdamW is tried on.

    Attributes:
      images: how many training images; 0 for all.
      noise: share of wrong labels among them, in [0, 1].
      network: what is trained.
      schedules: of the learning rate.
      epochs: passes over the images.
      l2: values of λ′.
      weight_decay: values of λ, in PyTorch's and Optax's convention.
    """

    images: settings.CountOrZero
    noise: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    network: Network = "mlp"
    schedules: tuple[Schedule, ...]
    epochs: Count
    l2: tuple[Positive, ...]
    weight_decay: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1)]


class Trial(NamedTuple):
    """A condition with one schedule.

    Attributes:
      condition: what is trained on what.
      schedule: of the learning rate.
      images: how many there are.
      steps: in an epoch.
    """

    condition: Condition
    schedule: str
    images: int
    steps: int

    @property
    def task(self) -> str:
        """What is learnt, for people."""
        c = self.condition
        noise = f", {100 * c.noise:g} % wrong" if c.noise else ""
        network = "" if c.network == "mlp" else f", {c.network.upper()}"
        return f"{self.images:,} images{noise}{network}"

    @property
    def name(self) -> str:
        """The task and the schedule, for people."""
        return f"{self.task}, {self.schedule}"

    @property
    def slug(self) -> str:
        """The same for files."""
        c = self.condition
        noise = f"-noise{100 * c.noise:g}" if c.noise else ""
        return f"{self.images}{noise}-{c.network}-{self.schedule}"

    @property
    def total(self) -> int:
        """Steps in a run."""
        return self.condition.epochs * self.steps

    def grid(self, learning_rate: float, seeds: int) -> sweep.Grid:
        """Adam, then every decay of Adam+L2 and AdamW; each with every seed.

        All are one program: Adam is both others without decay, and the schedule is two
        numbers, the steps of the first cycle and the share at which a cycle ends.
        """
        arms = sweep.concatenated(
            sweep.product(l2=[0.0], weight_decay=[0.0]),
            sweep.product(l2=self.condition.l2, weight_decay=[0.0]),
            sweep.product(l2=[0.0], weight_decay=self.condition.weight_decay),
        )
        # A cycle may be longer than the run, so that no restart is its last step.
        cycle = -(-self.total // PARTS) if self.schedule == "restarts" else self.total
        return sweep.product(
            arms,
            learning_rate=[learning_rate],
            first_cycle=[cycle],
            floor=[1.0 if self.schedule == "constant" else 0.0],
            seed=range(seeds),
        )


class Measured(NamedTuple):
    """A trial and what came of it.

    Attributes:
      trial: what was run.
      results: of every run.
    """

    trial: Trial
    results: Sequence[sweep.Result]

    def of(self, l2: float, weight_decay: float) -> list[sweep.Result]:
        """An arm's runs, in the order of their seeds."""
        arm = {"l2": l2, "weight_decay": weight_decay}
        return [r for r in self.results if arm.items() <= r.settings.items()]

    def history(self, arm: tuple[float, float], metric: str) -> np.ndarray:
        """A metric, [seeds, evaluations]; accuracies in percent, NaN after divergence."""
        runs = self.of(*arm)
        length = max(len(r.advance) for r in self.results)
        values = np.stack([r.history(metric, length) for r in runs])
        return 100 * values if metric.endswith("accuracy") else values

    def final(self, arm: tuple[float, float], metric: str) -> np.ndarray:
        """A metric after the last epoch, [seeds]."""
        return self.history(arm, metric)[:, -1]

    def arms(self, family: str) -> list[tuple[float, float]]:
        """(λ′, λ) of every arm of "Adam", "Adam+L2" or "AdamW"."""
        every = dict.fromkeys((r.settings["l2"], r.settings["weight_decay"]) for r in self.results)
        member: Mapping[str, tuple[bool, bool]] = {
            "Adam": (False, False), "Adam+L2": (True, False), "AdamW": (False, True),
        }  # fmt: skip
        return [arm for arm in every if (arm[0] > 0, arm[1] > 0) == member[family]]

    def chosen(
        self,
        family: str,
        metric: str,
        seeds: np.ndarray | slice = slice(None),
        without: tuple[float, float] | None = None,
    ) -> tuple[float, float]:
        """The arm of a family whose validation metric, "accuracy" or "loss", is best.

        The mean over the seeds counts, after the last epoch; an arm of which a run
        diverged is none, nor is the one that it is to do without.
        """

        def badness(arm: tuple[float, float]) -> float:
            mean = self.final(arm, f"validation_{metric}")[seeds].mean()
            return np.inf if np.isnan(mean) else -mean if metric == "accuracy" else mean

        return min((arm for arm in self.arms(family) if arm != without), key=badness)

    def judged(
        self, family: str, metric: str, without: tuple[float, float] | None = None
    ) -> np.ndarray:
        """The test metric of a family's chosen arm, [seeds].

        For the even seeds the odd ones choose, and the other way round: a run that is
        lucky is so on both sets of images, and would flatter the arm that it helps choose.
        """
        count = len(self.final((0.0, 0.0), "train_loss"))
        values = np.full(count, np.nan)
        for half in (0, 1):
            others = np.arange(1 - half, count, 2)
            arm = self.chosen(family, metric, others if len(others) else slice(None), without)
            values[half::2] = self.final(arm, f"test_{metric}")[half::2]
        return values


def optimizer(h: Hyperparameters) -> adamw_jax.GradientTransformation:
    """All arms and schedules."""
    cycle = jnp.asarray(h["first_cycle"], int)
    schedule = adamw_jax.cosine_warm_restarts(cycle, CYCLE_MULT, floor=h["floor"])
    adamw = adamw_jax.adamw(
        lambda step: h["learning_rate"] * schedule(step), weight_decay=h["weight_decay"]
    )
    return adamw_jax.chain(adamw_jax.l2_regularization(h["l2"]), adamw)


def program(
    condition: Condition, hidden: Sequence[int], data: Data, batch_size: int, evaluations: int
) -> sweep.Run:
    """What the runs of a condition run.

    Raises:
      SettingsError: an evaluation would fall into an epoch.
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
    return classifier_run(optimizer, network, batch_size, condition.epochs, evaluations)

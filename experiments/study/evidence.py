"""All that was measured, and what sentences, tables and plots ask of it."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from adamw_jax import weight_decay_from_per_step
from experiments.harness.statistics import Difference
from experiments.study.settings import Settings
from experiments.study.stages import FRESH, TALK, TUNING, Studied
from experiments.study.tasks import CONSTANT, COSINE
from experiments.training.arms import ADAM, ADAMW, L2
from experiments.tuning import comparisons
from experiments.tuning.candidates import CANDIDATE, near_end
from experiments.tuning.choices import CHOSEN_BY
from experiments.tuning.comparisons import Judgement
from experiments.tuning.measures import ACCURACY, CALIBRATED, LAST, LOSS, MEASURES, STOPPED

# What is compared on a primary task.
PRIMARY = (ADAMW, ADAM, ACCURACY), (ADAMW, ADAM, CALIBRATED), (ADAMW, L2, ACCURACY)


class Evidence:
    """The studied tasks, by the name of the task with its schedule.

    Attributes:
      config: the settings.
      studied: what was measured, by task.
      settled: the scores of the chosen settings with fresh seeds, with the column `task`.
      matters: the smallest difference that matters, by measure.
    """

    def __init__(self, config: Settings, studied: Sequence[Studied]):
        self.config = config
        self.studied = {each.bench.name: each for each in studied}
        self.settled = pl.concat(
            each.settled.with_columns(task=pl.lit(name)) for name, each in self.studied.items()
        )
        loss = config.matters_loss
        self.matters = {ACCURACY: config.matters_accuracy, CALIBRATED: loss, LOSS: loss}

    @functools.cached_property
    def judgements(self) -> list[Judgement]:
        """The primary comparisons."""
        primary = [name for name, each in self.studied.items() if each.bench.task.primary]
        asked = [(task, *comparison) for comparison in PRIMARY for task in primary]
        return comparisons.judge(self.settled, asked, self.matters)

    @functools.cache  # noqa: B019  (there is one object, which lives as long as the process)
    def lead(
        self, task: str, measure: str, read: str = STOPPED, ours: str = ADAMW, base: str = ADAM
    ) -> Difference:
        """By how much one family's chosen settings are better than another's, seed by seed."""
        return comparisons.lead(self.settled, task, ours, base, measure, read)

    def mean(self, task: str, family: str, measure: str, read: str = STOPPED) -> float:
        """The mean over the fresh seeds, in percent or as a loss."""
        rows = self.settled.filter(
            pl.col("task") == task, pl.col("family") == family, pl.col("measure") == measure,
            pl.col("read") == read,
        )  # fmt: skip
        return float(np.mean(rows["test"].to_numpy())) * np.sign(MEASURES[measure].scale)

    def choice(self, task: str, family: str, measure: str) -> dict[str, Any]:
        """What tuning chose for a family, and by which measure, as the columns of `chosen`."""
        chosen = self.studied[task].chosen
        by = pl.col("measure") == CHOSEN_BY[measure]
        return chosen.row(by_predicate=by & (pl.col("family") == family), named=True)

    def lead_by(
        self, task: str, measure: str, ours: tuple[str, str], base: tuple[str, str]
    ) -> Difference:
        """By how much a family leads, stopped, had other measures chosen the settings.

        Args:
          task: the name of the task with its schedule.
          measure: the measure of the lead.
          ours: the family that may lead, and the measure that chooses its settings.
          base: the same of the family that it is compared with.
        """
        read = pl.col("stage") == FRESH, pl.col("measure") == measure, pl.col("read") == STOPPED
        rows = self.studied[task].scores.filter(*read).sort("seed")
        first, second = (
            rows.filter(
                *(pl.col(name) == self.choice(task, family, by)[name] for name in CANDIDATE)
            )
            for family, by in (ours, base)
        )
        return Difference.of(first["test"].to_numpy(), second["test"].to_numpy())

    def ends(self, task: str, family: str, measure: str) -> list[str]:
        """Which of the chosen values are near an end of their range; better ones may lie beyond."""
        chosen, asked = self.choice(task, family, measure), self.studied[task].bench.task
        tried = {"α": (chosen["learning_rate"], self.config.learning_rates)}
        if family != ADAM and chosen["decay"]:
            of_l2 = family == L2
            limits = asked.l2 if of_l2 else asked.weight_decay
            tried["λ′" if of_l2 else "λ"] = chosen["decay"], limits
        if len(asked.epochs) > 1:
            tried["length"] = chosen["epochs"], (min(asked.epochs), max(asked.epochs))
        return [f"{name} {end}" for name, of in tried.items() if (end := near_end(*of))]

    @property
    def talk_times_rate(self) -> list[float]:
        """The talk's λ if it is multiplied by the learning rate, as λ of AdamW."""
        return list(self.config.talk)

    @property
    def talk_per_step(self) -> list[float]:
        """The talk's λ if a step takes it whole, as λ of AdamW."""
        rate = self.config.talk_learning_rate
        return [weight_decay_from_per_step(decay, rate) for decay in self.config.talk]

    def talk_leads(
        self, task: str, read: str = LAST, measure: str = ACCURACY
    ) -> dict[float, Difference]:
        """By λ: by how much AdamW is better than Adam, both at the talk's learning rate."""
        by_arm = self._talk(task, read, measure).group_by("family", "decay", maintain_order=True)
        tests = {arm: runs.sort("seed")["test"].to_numpy() for arm, runs in by_arm}
        adam = tests.pop((ADAM, 0.0))
        return {decay: Difference.of(values, adam) for (_, decay), values in tests.items()}

    def talk_means(self, task: str, measure: str) -> dict[float, float]:
        """By λ, 0 for Adam: test accuracy or loss at the last epoch, at the talk's α."""
        means = self._talk(task, LAST, measure).group_by("decay").agg(pl.mean("test"))
        return {decay: test * np.sign(MEASURES[measure].scale) for decay, test in means.rows()}

    def talk_best(self, task: str, read: str, measure: str = ACCURACY) -> Difference:
        """The lead at the talk's learning rate of the λ that the validation images choose."""
        means = self._talk(task, read, measure).filter(pl.col("family") == ADAMW)
        means = means.group_by("decay", maintain_order=True).agg(pl.mean("validation"))
        return self.talk_leads(task, read, measure)[means.sort("validation")["decay"][-1]]

    def _talk(self, task: str, read: str, measure: str) -> pl.DataFrame:
        return self.studied[task].scores.filter(
            pl.col("stage") == TALK, pl.col("measure") == measure, pl.col("read") == read
        )

    def overfitting(self, task: str) -> float:
        """How far Adam's validation loss ends above its lowest, the logarithm of their ratio.

        This is the median over Adam's trials, which have the same learning rates on every task:
        what tuning chooses may avoid overfitting where there is much of it.
        """
        of_adam = self.studied[task].scores.filter(
            pl.col("stage") == TUNING, pl.col("family") == ADAM, pl.col("measure") == LOSS
        )
        read = of_adam.pivot("read", index=CANDIDATE, values="validation")
        return float(np.median(np.log(read[LAST] / read[STOPPED])))

    def pairs(self) -> list[tuple[str, str]]:
        """Tasks with more to overfit, each with the one with less, at the same schedule."""
        return [
            (name, self._names[less])
            for name, each in self.studied.items()
            if (less := (each.bench.task.less, each.bench.task.schedule)) in self._names
        ]

    def schedules(self) -> list[tuple[str, str]]:
        """Tasks with a cosine, each with the same one at a constant rate."""
        return [
            (name, self._names[task, CONSTANT])
            for (task, schedule), name in self._names.items()
            if schedule == COSINE and (task, CONSTANT) in self._names
        ]

    @property
    def _names(self) -> dict[tuple[str, str], str]:
        """The names of the studied tasks with their schedules, by task and schedule."""
        return {(e.bench.task.name, e.bench.task.schedule): n for n, e in self.studied.items()}

"""All that was measured, and what sentences, tables and plots ask of it."""

import functools
from collections.abc import Sequence

import numpy as np
import polars as pl

from adamw_jax import weight_decay_from_per_step
from experiments.harness.statistics import Difference
from experiments.study import comparisons
from experiments.study.comparisons import Judgement
from experiments.study.measures import ACCURACY, CALIBRATED, LAST, LOSS, MEASURES, STOPPED
from experiments.study.settings import Settings
from experiments.study.stages import TALK, Studied
from experiments.study.tasks import CONSTANT, COSINE
from experiments.training.arms import ADAM, ADAMW


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
        return comparisons.judge(self.settled, primary, self.matters)

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

    @property
    def talk_times_rate(self) -> list[float]:
        """The talk's λ if it is multiplied by the learning rate, as λ of AdamW."""
        return list(self.config.talk)

    @property
    def talk_per_step(self) -> list[float]:
        """The talk's λ if a step takes it whole, as λ of AdamW."""
        rate = self.config.talk_learning_rate
        return [weight_decay_from_per_step(decay, rate) for decay in self.config.talk]

    def talk_leads(self, task: str, read: str = LAST) -> dict[float, Difference]:
        """By λ: how much more accurate AdamW is than Adam at the talk's learning rate."""
        tests = {
            decay: runs.sort("seed")["test"].to_numpy()
            for (decay,), runs in self._talk(task, read).group_by("decay", maintain_order=True)
        }
        adam = tests.pop(0.0)
        return {decay: Difference.of(values, adam) for decay, values in tests.items()}

    def talk_best(self, task: str, read: str) -> Difference:
        """The lead at the talk's learning rate of the λ that the validation images choose."""
        means = self._talk(task, read).filter(pl.col("family") == ADAMW)
        means = means.group_by("decay", maintain_order=True).agg(pl.mean("validation"))
        return self.talk_leads(task, read)[means.sort("validation")["decay"][-1]]

    def _talk(self, task: str, read: str) -> pl.DataFrame:
        return self.studied[task].scores.filter(
            pl.col("stage") == TALK, pl.col("measure") == ACCURACY, pl.col("read") == read
        )

    def overfitting(self, task: str) -> float:
        """How far Adam's validation loss ends above its lowest, the logarithm of their ratio."""
        each = self.studied[task]
        chosen = each.chosen.filter(pl.col("family") == ADAM, pl.col("measure") == CALIBRATED)
        runs = each.fresh.join(chosen, on=["family", "learning_rate", "epochs"], how="semi")
        within = runs.filter(pl.col("evaluation") * self.config.every <= pl.col("epochs"))
        losses = within.group_by("evaluation", maintain_order=True).agg(pl.mean("validation_loss"))
        values = losses.sort("evaluation")["validation_loss"].to_numpy()
        return float(np.log(values[-1] / values.min()))

    def pairs(self) -> list[tuple[str, str]]:
        """Tasks with more to overfit, each with the one with less, at the same schedule."""
        by_name = {(e.bench.task.name, e.bench.task.schedule): n for n, e in self.studied.items()}
        return [
            (name, by_name[each.bench.task.less, each.bench.task.schedule])
            for name, each in self.studied.items()
            if (each.bench.task.less, each.bench.task.schedule) in by_name
        ]

    def schedules(self) -> list[tuple[str, str]]:
        """Tasks with a cosine, each with the same one at a constant rate."""
        names = {(e.bench.task.name, e.bench.task.schedule): n for n, e in self.studied.items()}
        return [
            (name, names[task, CONSTANT])
            for (task, schedule), name in names.items()
            if schedule == COSINE and (task, CONSTANT) in names
        ]

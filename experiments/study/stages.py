"""The stages of a task: trials, the promising ones again, and the chosen ones with fresh seeds."""

from collections.abc import Iterable
from typing import NamedTuple

import polars as pl

from adamw_jax import weight_decay_from_per_step
from experiments.harness import data
from experiments.harness.context import Context
from experiments.harness.sweeps import run_grid
from experiments.study import candidates
from experiments.study.settings import Settings
from experiments.study.tasks import Bench, Task
from experiments.training.arms import ADAM, ADAMW, Arm
from experiments.tuning import choices
from experiments.tuning.candidates import CANDIDATE, Candidate
from experiments.tuning.measures import scores

TUNING, PROMOTED, FRESH, TALK = "tuning", "promoted", "fresh", "talk"


class Studied(NamedTuple):
    """What was measured on a task.

    Attributes:
      bench: the task.
      scores: of all runs, as `measures.scores` returns them, with the column `stage`.
      chosen: the settings that tuning chose, as `choices.best` returns them.
      fresh: the measurements of these with fresh seeds, as `candidates.table` returns them.
    """

    bench: Bench
    scores: pl.DataFrame
    chosen: pl.DataFrame
    fresh: pl.DataFrame

    @property
    def settled(self) -> pl.DataFrame:
        """The scores of the chosen settings with fresh seeds."""
        return choices.settled(self.scores.filter(pl.col("stage") == FRESH), self.chosen)


def study(task: Task, config: Settings, context: Context) -> Studied:
    """Does what is left of a task's runs, and reads those that are kept."""
    bench = Bench(
        task=task,
        data=config.data,
        validation=config.validation,
        batch_size=config.batch_size,
        every=config.every,
    )

    def measure(stage: str, chosen: list[Candidate], seeds: Iterable[int]) -> pl.DataFrame:
        results = run_grid(
            f"{bench.slug}-{stage}",
            bench.program,
            candidates.grid(bench, chosen, seeds),
            lambda: data.load(config.data, context.data_dir),
            context,
            watch=["train_loss"],
            identity=bench.identity,
            static=["epochs"],
        )
        return candidates.table(chosen, results)

    def scored(stage: str, table: pl.DataFrame) -> pl.DataFrame:
        return scores(table, config.every).with_columns(stage=pl.lit(stage))

    first = config.first_tuning_seed
    tried = candidates.trials(bench, config.learning_rates, config.trials)
    tuning = scored(TUNING, measure(TUNING, tried, [first]))
    promising = choices.best(tuning, config.promoted)
    more = range(first + 1, first + config.tuning_seeds)
    promoted = scored(PROMOTED, measure(PROMOTED, choices.of(promising), more))
    again = pl.concat(
        [tuning.join(promising, on=CANDIDATE, how="semi", maintain_order="left"), promoted]
    )
    chosen = choices.best(again, 1)
    fresh = measure(FRESH, choices.of(chosen), range(task.seeds))
    found = [tuning, promoted, scored(FRESH, fresh)]
    if task.talk_seeds:
        talk = measure(TALK, talks(bench, config), range(task.talk_seeds))
        found += [scored(TALK, talk)]
    return Studied(bench, pl.concat(found), chosen, fresh)


def talks(bench: Bench, config: Settings) -> list[Candidate]:
    """Adam and AdamW at the talk's learning rate, with the talk's λ in both conventions.

    Values in between are there, too, for the picture.
    """
    rate = config.talk_learning_rate
    per_step = [weight_decay_from_per_step(decay, rate) for decay in config.talk]
    decays = sorted({*config.talk, *config.between, *per_step})
    arms = [Arm(ADAM, 0.0, rate), *(Arm(ADAMW, decay, rate) for decay in decays)]
    return [Candidate(arm, max(bench.task.epochs)) for arm in arms]

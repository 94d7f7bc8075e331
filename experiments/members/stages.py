"""The stages of a member on a task: trials, the best again, and the chosen with fresh seeds."""

import functools
from collections.abc import Callable, Iterable, Sequence

import polars as pl
from scipy.stats import qmc

from adamw_jax import sweep
from experiments.harness import data
from experiments.harness.context import Context
from experiments.harness.sweeps import run_grid
from experiments.members.members import MEMBERS, Training, optimizer
from experiments.members.settings import Settings
from experiments.training import arms
from experiments.training.arms import Arm
from experiments.training.classifier import classifier_run
from experiments.training.loop import steps_per_epoch
from experiments.training.models import MLP
from experiments.training.sample import sample
from experiments.tuning import choices
from experiments.tuning.candidates import CANDIDATE, Candidate, between
from experiments.tuning.measures import ACCURACY, scores

TUNING, PROMOTED, FRESH = "tuning", "promoted", "fresh"
# On a CPU, where matrix products fill a core, more lanes are no faster.
LAYOUT = sweep.Layout(1)


def network(pixels: int, hidden: Sequence[int]) -> Callable[..., MLP]:
    """Makes the network, from `rngs=`."""
    return functools.partial(MLP, (pixels, *hidden, 10))


def training(steps: int, hidden: Sequence[int]) -> Training:
    """The training of that network."""
    return Training(steps, f"layers/{len(hidden)}/*")


def trials(name: str, config: Settings) -> list[Candidate]:
    """The trials of a member, the same points of its ranges for all members."""
    times = MEMBERS[name].times
    rates = [times * rate for rate in config.learning_rates]
    decays = [decay / times for decay in config.weight_decays]
    points = qmc.Halton(2, rng=0).random(config.trials)
    return [
        Candidate(Arm(name, between(decays, of_decay), between(rates, of_rate)), config.epochs)
        for of_rate, of_decay in points
    ]


def run_member(name: str, noise: float, config: Settings, context: Context) -> pl.DataFrame:
    """Does what is left of a member's runs on a task, and reads those that are kept.

    Args:
      name: of the member.
      noise: fraction of the training images that get a wrong label.
      config: the settings.
      context: the output directory and the terminal.

    Returns:
      The scores of all runs, as `measures.scores` returns them, with the columns `task` and
      `stage`; those of the last stage are of the settings that validation accuracy chose.
    """
    member, there = MEMBERS[name], data.SIZES[config.data]
    size = sample(there.images, config.validation, config.images, noise)
    steps = config.epochs * steps_per_epoch(size.train, config.batch_size)
    program = classifier_run(
        functools.partial(optimizer, member, training(steps, config.hidden)),
        network(there.pixels, config.hidden),
        size,
        config.batch_size,
        config.epochs,
        config.epochs // config.every,
        member.eval_params,
    )

    slug = f"wrong{100 * noise:g}" if noise else "right"

    def scored(stage: str, tried: Sequence[Candidate], seeds: Iterable[int]) -> pl.DataFrame:
        rows = [{"learning_rate": arm.learning_rate, "weight_decay": arm.decay} for arm, _ in tried]
        results = run_grid(
            f"{name}-{slug}-{stage}",
            program,
            sweep.product(sweep.concatenated(rows), seed=seeds),
            lambda: data.load(config.data, context.data_dir),
            context,
            watch=["train_loss"],
            identity=config.identity,
            layout=LAYOUT,
        )
        measured = arms.measurements(results).rename({"weight_decay": "decay"})
        named = {"family": pl.lit(name), "epochs": pl.lit(config.epochs)}
        return scores(measured.with_columns(**named), config.every).with_columns(
            stage=pl.lit(stage)
        )

    first = config.first_tuning_seed
    tuning = scored(TUNING, trials(name, config), [first])
    promising = _best(tuning, config.promoted)
    more = range(first + 1, first + config.tuning_seeds)
    promoted = scored(PROMOTED, choices.of(promising), more)
    again = tuning.join(promising, on=CANDIDATE, how="semi", maintain_order="left")
    chosen = _best(pl.concat([again, promoted]), 1)
    fresh = scored(FRESH, choices.of(chosen), range(config.seeds))
    return pl.concat([tuning, promoted, fresh]).with_columns(task=pl.lit(task(noise)))


def task(noise: float) -> str:
    """What is learnt, in words."""
    return f"{100 * noise:g} % wrong labels" if noise else "right labels"


def _best(found: pl.DataFrame, count: int) -> pl.DataFrame:
    return choices.best(found.filter(pl.col("measure") == ACCURACY), count)

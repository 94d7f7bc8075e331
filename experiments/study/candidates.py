"""The settings that are tried: as many for every family, spread evenly over its own ranges."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import polars as pl
from scipy.stats import qmc

from adamw_jax import sweep
from experiments.study.tasks import Bench
from experiments.training import arms
from experiments.training.arms import ADAM, ADAMW, L2, Arm

FAMILIES = ADAM, L2, ADAMW
# The columns that tell a candidate from the others.
CANDIDATE = ["family", "decay", "learning_rate", "epochs"]


class Candidate(NamedTuple):
    """An arm and the length of its run.

    Attributes:
      arm: the family, its decay and its learning rate.
      epochs: passes over the training images.
    """

    arm: Arm
    epochs: int


def candidates(bench: Bench, rates: Sequence[float], trials: int) -> list[Candidate]:
    """The trials of all families.

    A Halton sequence gives learning rates, decays and lengths. All families have the same
    learning rates and lengths, trial by trial. A quarter of the trials are without decay, so that
    the spaces of Adam+L2 and AdamW contain Adam, and these trials are Adam's own runs.

    Args:
      bench: the task.
      rates: the range of the learning rate.
      trials: how many trials each family has.
    """
    made = []
    decays = {ADAM: None, L2: bench.task.l2, ADAMW: bench.task.weight_decay}
    points = qmc.Halton(3, rng=0).random(trials)
    for family, limits in decays.items():
        for i, (first, second, third) in enumerate(points):
            decay = _between(limits, second) if limits and i >= trials // 4 else 0.0
            epochs = bench.task.epochs[int(third * len(bench.task.epochs))]
            made.append(Candidate(Arm(family, decay, _between(rates, first)), epochs))
    return list(dict.fromkeys(made))


def _between(limits: Sequence[float], share: float) -> float:
    """The value at a share of a logarithmic range, to two digits."""
    low, high = limits
    return float(f"{low * (high / low) ** share:.2g}")


def grid(bench: Bench, chosen: Iterable[Candidate], seeds: Iterable[int]) -> sweep.Grid:
    """A row for each candidate and seed; candidates that train alike share theirs."""
    seeds = list(seeds)
    return sweep.concatenated(
        *(
            sweep.product(
                arms.grid([arm]),
                epochs=[epochs],
                first_cycle=[epochs * bench.steps],
                floor=[1.0 if bench.task.schedule == "constant" else 0.0],
                seed=seeds,
            )
            for arm, epochs in chosen
        )
    )


def table(chosen: Sequence[Candidate], results: Sequence[sweep.Result]) -> pl.DataFrame:
    """The measurements of the candidates, as `arms.table` returns them."""
    rows = [(arm.family, arm.decay, arm.learning_rate, epochs) for arm, epochs in chosen]
    asked = pl.DataFrame(rows, schema=CANDIDATE, orient="row")
    measured = arms.table([arm for arm, _ in chosen], results)
    return measured.join(asked, on=CANDIDATE, how="semi", maintain_order="left")

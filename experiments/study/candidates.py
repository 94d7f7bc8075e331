"""The settings that are tried: as many for every family, spread evenly over its own ranges."""

from collections.abc import Iterable, Sequence

import polars as pl
from scipy.stats import qmc

from adamw_jax import sweep
from experiments.study.tasks import CONSTANT, Bench
from experiments.training import arms
from experiments.training.arms import ADAM, ADAMW, L2, Arm
from experiments.tuning.candidates import CANDIDATE, Candidate, between


def trials(bench: Bench, rates: Sequence[float], count: int) -> list[Candidate]:
    """The trials of all families.

    A Halton sequence gives learning rates, decays and lengths. All families have the same
    learning rates and lengths, trial by trial. A quarter of the trials are without decay, so that
    the spaces of Adam+L2 and AdamW contain Adam, and these trials are Adam's own runs.

    Args:
      bench: the task.
      rates: the range of the learning rate.
      count: how many trials each family has.
    """
    points = qmc.Halton(3, rng=0).random(count)
    tried = []
    for family, limits in (ADAM, None), (L2, bench.task.l2), (ADAMW, bench.task.weight_decay):
        for i, (of_rate, of_decay, of_length) in enumerate(points):
            decay = between(limits, of_decay) if limits and i >= count // 4 else 0.0
            epochs = bench.task.epochs[int(of_length * len(bench.task.epochs))]
            tried.append(Candidate(Arm(family, decay, between(rates, of_rate)), epochs))
    return list(dict.fromkeys(tried))


def grid(bench: Bench, chosen: Iterable[Candidate], seeds: Iterable[int]) -> sweep.Grid:
    """A row for each candidate and seed; candidates that train alike share theirs."""
    floor = 1.0 if bench.task.schedule == CONSTANT else 0.0
    rows = [
        row | {"epochs": epochs, "first_cycle": epochs * bench.steps, "floor": floor}
        for arm, epochs in chosen
        for row in arms.grid([arm])
    ]
    return sweep.product(sweep.concatenated(rows), seed=seeds)


def table(chosen: Sequence[Candidate], results: Sequence[sweep.Result]) -> pl.DataFrame:
    """The measurements of the candidates, as `arms.table` returns them."""
    rows = [(arm.family, arm.decay, arm.learning_rate, epochs) for arm, epochs in chosen]
    asked = pl.DataFrame(rows, schema=CANDIDATE, orient="row")
    measured = arms.table([arm for arm, _ in chosen], results)
    return measured.join(asked, on=CANDIDATE, how="semi", maintain_order="left")

"""Tables of the comparison's report."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from adamw_jax import timescale_from_per_step
from experiments.harness.formats import timescale
from experiments.harness.report import Table
from experiments.harness.statistics import Difference
from experiments.training.arms import ADAM


class Compared(NamedTuple):
    """An arm compared with Adam.

    Attributes:
      label: the arm's label.
      family: the arm's family.
      decay: the arm's decay, in the family's convention.
      accuracy: the difference in test accuracy, in points.
      loss: the difference in test loss.
    """

    label: str
    family: str
    decay: float
    accuracy: Difference
    loss: Difference


def levels(means: pl.DataFrame, seeds: int, epochs: int, steps_per_epoch: int) -> Table:
    """The last epoch's measurements of every arm."""
    columns = ["arm", "λ", "τ, epochs", "train loss", "valid. loss", "valid. acc. %"]
    columns += ["test loss", "sd", "test acc. %", "sd", "‖θ‖"]
    return Table(
        f"After {epochs} epochs: mean of {seeds} seeds, and their standard deviation (sd)",
        columns,
        [_row(arm, steps_per_epoch) for arm in means.iter_rows(named=True)],
        "λ times the learning rate, as in PyTorch and Optax, or λ per step, as in the paper, is "
        "the fraction of each weight that a step of AdamW takes away. τ is the time in which that "
        "alone takes a weight to 1/e. Adam+L2 has no τ: what it takes depends on the gradients. "
        "Train loss is the mean over the last epoch's minibatches.",
    )


def _row(arm: Mapping[str, Any], steps: int) -> list[str]:
    def cell(name: str, digits: int) -> str:
        return "—" if arm[name] is None else f"{arm[name]:.{digits}f}"

    tau = timescale_from_per_step(arm["decay_per_step"], steps)
    return [
        arm["family"],
        "" if arm["family"] == ADAM else f"{arm['decay']:g}",
        "—" if arm["l2"] else timescale(tau),
        cell("train_loss", 4),
        cell("validation_loss", 4),
        cell("validation_accuracy", 2),
        *(cell(name, 4) for name in ("test_loss", "test_loss_sd")),
        *(cell(name, 2) for name in ("test_accuracy", "test_accuracy_sd")),
        cell("weight_norm", 1),
    ]


def differences(compared: Sequence[Compared], different: int) -> Table:
    """Every arm's differences from Adam.

    Args:
      compared: the arms.
      different: how many of the arms are different runs.
    """
    return Table(
        "Minus Adam, seed by seed: mean [95 % interval]",
        ["arm", "test acc., points", "test loss"],
        [[c.label, c.accuracy.text(2), c.loss.text(4)] for c in compared],
        f"{different} different arms are compared, and the intervals are not corrected for that.",
    )

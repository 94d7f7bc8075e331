"""Arms, the optimizers with their decays that experiments compare, and their measurements.

The measurements of all experiments that compare arms are tables of one form, made by `table`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import polars as pl

import adamw_jax
from adamw_jax import sweep
from adamw_jax.optimizers import NumberOrSchedule
from experiments.harness.settings import SettingsError
from experiments.training.loop import Hyperparameters

# Families of arms. AdamW's decay is TIMES_RATE in an experiment that also has it PER_STEP.
ADAM, L2, ADAMW = "Adam", "Adam+L2", "AdamW"
TIMES_RATE, PER_STEP = "AdamW, times rate", "AdamW, per step"
ARGUMENTS = ["l2", "weight_decay", "learning_rate"]


class Arm(NamedTuple):
    """An optimizer, its decay and its learning rate.

    Attributes:
      family: one of the names above; it says what the decay means.
      decay: λ′ of L2 regularization or λ of AdamW, in the family's convention; 0 for Adam.
      learning_rate: α.
    """

    family: str
    decay: float
    learning_rate: float

    @property
    def label(self) -> str:
        """Family and decay, as shown."""
        return self.family if self.family == ADAM else f"{self.family} {self.decay:g}"

    @property
    def l2(self) -> float:
        """λ′, as the optimizer takes it."""
        return self.decay if self.family == L2 else 0.0

    @property
    def weight_decay(self) -> float:
        """λ, as the optimizer takes it: in PyTorch's and Optax's convention."""
        if self.family == PER_STEP:
            return adamw_jax.weight_decay_from_per_step(self.decay, self.learning_rate)
        return self.decay if self.family in (ADAMW, TIMES_RATE) else 0.0

    @property
    def decay_per_step(self) -> float:
        """Fraction of a weight that a step takes away; for Adam+L2 that of gradient descent."""
        if self.family == PER_STEP:
            return self.decay
        return adamw_jax.per_step_from_weight_decay(self.decay, self.learning_rate)


def optimizer(h: Hyperparameters) -> adamw_jax.GradientTransformation:
    """The optimizer of every arm at a constant rate: without decay it is Adam.

    Args:
      h: `l2`, `weight_decay` and `learning_rate`.
    """
    return _decayed(h, h["learning_rate"])


def scheduled(h: Hyperparameters) -> adamw_jax.GradientTransformation:
    """The optimizer of every arm with a schedule: a cosine, or a constant rate as one of them.

    Args:
      h: as `optimizer` takes it, with `first_cycle`, the steps of the cosine, and `floor`, the
        fraction of α at which it ends; perhaps with `b2`.
    """
    schedule = adamw_jax.cosine_warm_restarts(jnp.asarray(h["first_cycle"], int), floor=h["floor"])
    return _decayed(h, lambda step: h["learning_rate"] * schedule(step))


def check_timescale(shortest: float, cells: Sequence[Any]) -> None:
    """Checks that no timescale is shorter than a step.

    Args:
      shortest: τ in epochs.
      cells: sizes of runs, with `images`, `batch_size` and `steps`, those in an epoch.

    Raises:
      SettingsError: it is; the message names the cell with the fewest steps.
    """
    fewest = min(cells, key=lambda cell: cell.steps)
    if shortest * fewest.steps < 1:
        raise SettingsError(
            f"timescales: {shortest:g} epochs are less than a step, of which an epoch has "
            f"{fewest.steps} with {fewest.images} images in batches of {fewest.batch_size}"
        )


def with_timescale(
    steps: int, epochs: int, h: Hyperparameters, inner: float = 1.0
) -> adamw_jax.GradientTransformation:
    """AdamW whose decay has a given timescale, with a cosine that falls to zero.

    Args:
      steps: optimizer steps in an epoch.
      epochs: the length of the run.
      h: `learning_rate` and `timescale`, τ in epochs; both are those of the first step.
      inner: by what α is multiplied for the kernels of an `MLP` after the first, whose timescale
        stays the same. muP has one over the width here (arXiv 2203.03466).
    """
    per_step = adamw_jax.per_step_from_timescale(h["timescale"], steps)

    def at(rate: Any) -> adamw_jax.GradientTransformation:
        decay = adamw_jax.weight_decay_from_per_step(per_step, rate)
        cosine = {"first_cycle": steps * epochs, "floor": 0.0}
        return scheduled({**h, **cosine, "learning_rate": rate, "weight_decay": decay, "l2": 0.0})

    outer = at(h["learning_rate"])
    if inner == 1:
        return outer
    return adamw_jax.partition(
        {
            "layers/0/*": outer,
            adamw_jax.kind("bias"): outer,
            "*": at(inner * h["learning_rate"]),
        }
    )


def _decayed(h: Hyperparameters, rate: NumberOrSchedule) -> adamw_jax.GradientTransformation:
    adamw = adamw_jax.adamw(rate, b2=h.get("b2", 0.999), weight_decay=h["weight_decay"])
    return adamw_jax.chain(adamw_jax.l2_regularization(h["l2"]), adamw)


def grid(arms: Sequence[Arm]) -> sweep.Grid:
    """The arms' arguments, a row for each; arms with the same arguments share one."""
    return sweep.concatenated([{name: getattr(arm, name) for name in ARGUMENTS} for arm in arms])


def table(arms: Sequence[Arm], results: Sequence[sweep.Result]) -> pl.DataFrame:
    """The measurements: a row for each arm, seed and evaluation, in the order of the arms.

    Columns are the arm's `family`, `label`, `decay` and `decay_per_step`, and those of
    `measurements`.

    Args:
      arms: the arms whose `grid` was run; arms with the same arguments share measurements.
      results: the results of all rows of the grid.
    """
    shown = ("family", "label", "decay", "decay_per_step", *ARGUMENTS)
    described = pl.DataFrame(
        [{name: getattr(arm, name) for name in shown} for arm in dict.fromkeys(arms)]
    )
    runs = measurements(results)
    return described.join(runs, on=ARGUMENTS, how="left", maintain_order="left_right")


def measurements(results: Sequence[sweep.Result]) -> pl.DataFrame:
    """What runs measured: a row for each run and evaluation.

    Columns are the settings of the grid, `evaluation` (from 1), the metrics, `status` and
    `seconds` (of the whole run). Metrics are NaN from the evaluation at which a run diverged.
    """
    length = max(len(r.advance) for r in results)
    first = results[0]

    def repeated(values):
        return np.repeat(list(values), length)

    return pl.DataFrame(
        {name: repeated(r.settings[name] for r in results) for name in first.settings}
        | {"evaluation": np.tile(np.arange(1, length + 1), len(results))}
        | {m: np.concatenate([r.history(m, length) for r in results]) for m in first.metrics}
        | {name: repeated(getattr(r, name) for r in results) for name in ("status", "seconds")}
    )

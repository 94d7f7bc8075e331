"""The settings that are tried."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from experiments.training.arms import Arm

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


def between(limits: Sequence[float], share: float) -> float:
    """The value at a share, in [0, 1], of a logarithmic range, to two digits."""
    low, high = limits
    return float(f"{low * (high / low) ** share:.2g}")


def near_end(value: float, limits: Sequence[float]) -> str:
    """Whether a value is near an end of its range, so that better ones may lie beyond.

    Returns:
      "low" or "high" within a tenth of the range on a logarithmic scale, otherwise "".
    """
    low, high = limits
    share = math.log(value / low) / math.log(high / low)
    return "low" if share < 0.1 else "high" if share > 0.9 else ""

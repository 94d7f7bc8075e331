"""Times contenders in turns, so that the noise of the machine affects all of them alike."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


def seconds(call: Callable[[], Any]) -> float:
    """The wall time of one call in seconds, until its results are ready."""
    started = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - started


def alternate(
    contenders: Mapping[str, Callable[[], Any]], rounds: int, calls: int = 1
) -> dict[str, np.ndarray]:
    """Times contenders in turn.

    Args:
      contenders: functions by name, already warmed up.
      rounds: how many turns each contender has; every second round is in reverse order.
      calls: how many calls a turn has; their median is the time of the turn.

    Returns:
      Seconds per call by name, float[rounds].
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds):
        for name in list(contenders)[:: 1 if i % 2 == 0 else -1]:
            turn = [seconds(contenders[name]) for _ in range(calls)]
            times[name].append(float(np.median(turn)))
    return {name: np.array(values) for name, values in times.items()}


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> str:
    """The median and quartiles of the ratios within a round, as text."""
    low, median, high = np.percentile(numerator / denominator, [25, 50, 75])
    return f"{median:.2f} [{low:.2f}, {high:.2f}]"

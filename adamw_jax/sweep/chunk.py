"""One chunk: a program's lanes, advanced together until all of them have ended."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax.sweep.program import Program
from adamw_jax.sweep.progress import Meter
from adamw_jax.sweep.results import DIVERGED, FINISHED, RUNNING, STOPPED
from adamw_jax.sweep.states import States


@dataclass(frozen=True)
class Ends:
    """What ends a run early.

    Attributes:
      until: a function from metrics [runs, …] to bool[runs], the runs to stop; None for none.
      watch: the metrics whose NaN or infinity ends a run; None for all.

    Raises:
      TypeError: `until` is not a function, or `watch` is not a sequence.
      ValueError: `watch` is a string.
    """

    until: Callable[[Mapping[str, np.ndarray]], Any] | None
    watch: Sequence[str] | None

    def __post_init__(self):
        if not (self.until is None or callable(self.until)):
            raise TypeError(f"until is a function of the metrics; got {self.until!r}")
        if isinstance(self.watch, str):
            raise ValueError(f"watch is a sequence of names; got the string {self.watch!r}")
        if not (self.watch is None or isinstance(self.watch, Iterable)):
            raise TypeError(f"watch is a sequence of names; got {self.watch!r}")

    def check(self, metrics: Iterable[str]) -> None:
        """Checks that every watched metric exists.

        Raises:
          ValueError: one does not; the message names it.
        """
        if unknown := [name for name in self.watch or () if name not in metrics]:
            raise ValueError(
                f"watch names the metric {unknown[0]!r}; there are {', '.join(metrics)}"
            )

    def diverged(self, metrics: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which runs have diverged, bool[runs], from metrics [runs, …]."""
        names = metrics if self.watch is None else self.watch
        finite = [np.isfinite(metrics[name]) for name in names]
        return ~np.all([x.reshape(len(x), -1).all(1) for x in finite], axis=0)

    def stopped(self, metrics: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which runs `until` stops, bool[runs], from metrics [runs, …]."""
        runs = len(next(iter(metrics.values())))
        if self.until is None:
            return np.zeros(runs, bool)
        verdict = np.asarray(self.until(metrics))
        if verdict.shape != (runs,) or verdict.dtype != bool:
            raise ValueError(
                f"until must return bool[{runs}], one for each run; it returned "
                f"{verdict.dtype}{list(verdict.shape)}"
            )
        return verdict


class History(NamedTuple):
    """What a chunk did.

    Attributes:
      metrics: for each advance, arrays [runs, …] by name.
      counts: int[runs], how many advances each run made before it ended.
      status: the status of each run.
      seconds: how long the chunk took.
    """

    metrics: list[dict[str, np.ndarray]]
    counts: np.ndarray
    status: list[str]
    seconds: float


def advance_chunk(
    program: Program,
    state: Any,
    runs: int,
    advances: range,
    length: int,
    ends: Ends,
    meter: Meter,
) -> tuple[Any, History]:
    """Advances a state until all of its runs have ended.

    Args:
      program: the program, compiled for the state's width.
      state: the state before the first of the advances; it is consumed.
      runs: how many lanes hold runs of their own; the lanes after them are padding.
      advances: the numbers of the advances to be made.
      length: how many advances a whole run has.
      ends: what ends a run early.
      meter: told of each advance.

    Returns:
      The state after the last advance, and the history of the runs.
    """
    began = last = time.perf_counter()
    counts, status = np.full(runs, len(advances)), np.full(runs, RUNNING, object)
    history: list[dict[str, np.ndarray]] = []

    def keep(metrics):
        nonlocal last
        history.append({name: value[:runs] for name, value in jax.device_get(metrics).items()})
        for verdict, word in (ends.stopped, STOPPED), (ends.diverged, DIVERGED):
            ended = verdict(history[-1]) & ((status == RUNNING) | (counts == len(history)))
            counts[ended], status[ended] = len(history), word
        meter.advanced(runs, time.perf_counter() - last)
        last = time.perf_counter()

    pending = None
    for _ in advances:
        state, metrics = program.advance(state)
        # The device works on this advance while the host looks at the one before.
        if pending is not None:
            keep(pending)
            if (status != RUNNING).all():
                break
        pending = metrics
    else:
        keep(pending)
    if advances.stop == length:
        status[status == RUNNING] = FINISHED
    return state, History(history, counts, list(status), time.perf_counter() - began)


def unpacked(state: Any, runs: int) -> States:
    """The leaves of a state, for the first `runs` lanes, on the host."""

    def plain(leaf):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)[:runs]

    return [plain(leaf) for leaf in jax.tree.leaves(state)]


def packed(states: Sequence[States], like: Any) -> Any:
    """The state of a chunk from the states of its runs.

    Args:
      states: the leaves of each run.
      like: a state of the program, whose types and shardings the result gets. If it is of more
        runs, the last one is repeated.
    """
    leaves, structure = jax.tree.flatten(like)
    width = len(leaves[0])

    def placed(i, leaf):
        rows = [state[i] for state in states]
        stacked = np.stack(rows + rows[-1:] * (width - len(rows)))
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            stacked = jax.random.wrap_key_data(jnp.asarray(stacked), impl=jax.random.key_impl(leaf))
        else:
            stacked = stacked.view(leaf.dtype)  # NumPy's files do not keep the dtype bfloat16
        return jax.device_put(stacked, leaf.sharding)

    return jax.tree.unflatten(structure, [placed(i, leaf) for i, leaf in enumerate(leaves)])

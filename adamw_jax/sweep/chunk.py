"""One chunk: a program's lanes, advanced together until all of them have ended."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax.sweep.lanes import Program
from adamw_jax.sweep.progress import Meter
from adamw_jax.sweep.results import DIVERGED, FINISHED, RUNNING, STOPPED

# The leaves of a state on the host, keys as their data; each [runs, …].
States = list[np.ndarray]


class Ends(NamedTuple):
    """What ends a run before its time.

    Attributes:
      until: from metrics [runs, …] to bool[runs].
      watch: metrics whose NaN or infinity ends a run; None for all.
    """

    until: Callable[[Mapping[str, np.ndarray]], Any] | None
    watch: Sequence[str] | None

    def check(self, metrics: Iterable[str]) -> None:
        """Refuses metrics to watch that there are not.

        Raises:
          ValueError: naming one.
        """
        if isinstance(self.watch, str):
            raise ValueError(f"watch is a sequence of names; got the string {self.watch!r}")
        if unknown := set(self.watch or ()) - set(metrics):
            raise ValueError(
                f"no metric is called {min(unknown)!r}; there are {', '.join(metrics)}"
            )

    def diverged(self, metrics: Mapping[str, np.ndarray]) -> np.ndarray:
        """bool[runs], from metrics [runs, …]."""
        names = metrics if self.watch is None else self.watch
        finite = [np.isfinite(metrics[name]) for name in names]
        return ~np.all([x.reshape(len(x), -1).all(1) for x in finite], axis=0)

    def stopped(self, metrics: Mapping[str, np.ndarray]) -> np.ndarray:
        """bool[runs], from metrics [runs, …]."""
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
      counts: int[runs], how many of the advances are each run's own.
      status: of each run.
      seconds: of the chunk.
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
    """Advances the first `runs` lanes of a state, and the padding behind them.

    Args:
      program: compiled for the state's width.
      state: before the first of the advances; it is consumed.
      runs: how many lanes count.
      advances: those to be made, of all that a run has.
      length: how many a run has.
      ends: what ends a run early.
      meter: is told of each advance.
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
    meter.skipped(runs * (len(advances) - len(history)))
    if advances.stop == length:
        status[status == RUNNING] = FINISHED
    return state, History(history, counts, list(status), time.perf_counter() - began)


def unpacked(state: Any, runs: int) -> States:
    """The state's leaves on the host, of the first lanes."""

    def plain(leaf):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)[:runs]

    return [plain(leaf) for leaf in jax.tree.leaves(state)]


def packed(states: Sequence[States], like: Any) -> Any:
    """A state of full lanes; the last run fills what is left.

    Args:
      states: of each run.
      like: a state of the program, whose types and places are taken.
    """
    leaves, structure = jax.tree.flatten(like)
    width = len(leaves[0])

    def placed(i, leaf):
        rows = [state[i] for state in states]
        stacked = np.stack(rows + rows[-1:] * (width - len(rows)))
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            stacked = jax.random.wrap_key_data(jnp.asarray(stacked), impl=jax.random.key_impl(leaf))
        else:
            stacked = stacked.view(leaf.dtype)  # NumPy's files forget bfloat16's name
        return jax.device_put(stacked, leaf.sharding)

    return jax.tree.unflatten(structure, [placed(i, leaf) for i, leaf in enumerate(leaves)])

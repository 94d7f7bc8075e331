"""Chunks done by a Ray cluster, whose nodes may join, die, be preempted or be cut off meanwhile."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax

from adamw_jax.sweep.executors import Outcomes
from adamw_jax.sweep.plan import Task


class Ray:
    """Trains chunks on a Ray cluster: `sweep(..., on=sweep.Ray(gpus=1))`.

    A program that has not called `ray.init` is connected to the cluster that RAY_ADDRESS names,
    or else to the one on this machine. None is started: that forks, which is not safe once JAX
    runs. Results come back to this program, which alone writes them, so that nodes need no
    directory in common. They do need this package and the modules of the run's functions.

    Args:
      cpus: the cores of a worker, ≥ 0. XLA uses as many threads, at least one.
      gpus: the GPUs of a worker, ≥ 0. If less than one, workers share a GPU and its memory.
      resources: what else a worker takes of its node, such as {"TPU": 4}, or {"memory": 8e9} in
        bytes.
      workers: how many workers there are at most, ≥ 1; by default as many as find room.

    Raises:
      ValueError: a number is out of its range.
      RuntimeError: workers are to have accelerators, and this program may hold them itself.
      ImportError: Ray is not installed.
    """

    def __init__(
        self,
        *,
        cpus: float = 1,
        gpus: float = 0,
        resources: Mapping[str, float] | None = None,
        workers: int | None = None,
    ):
        for name, value in {"cpus": cpus, "gpus": gpus}.items():
            if not value >= 0:
                raise ValueError(f"{name} is what each worker has, from 0 on; got {value!r}")
        if workers is not None and workers < 1:
            raise ValueError(f"workers is at least 1, or None for no limit; got {workers!r}")
        self.cpus, self.gpus, self.resources = cpus, gpus, dict(resources or {})
        self.accelerated = bool(gpus or "TPU" in self.resources)
        if self.accelerated and jax.config.values["jax_platforms"] != "cpu":
            raise RuntimeError(
                "the workers are to have accelerators, which JAX would hold in this program, "
                "too: start it with JAX_PLATFORMS=cpu in its environment"
            )
        try:
            import ray  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "sweep.Ray needs Ray: pip install 'adamw_jax[ray]', on every node"
            ) from error
        self.most, self._connected = workers, False

    @property
    def workers(self) -> int:
        """How many workers there are at most, or for how many the cluster has room now.

        Raises:
          ConnectionError: there is no cluster.
        """
        import ray

        if self.most is not None:
            return self.most
        self._connect()
        there = ray.cluster_resources()
        takes = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        rooms = [int(there.get(name, 0) / each) for name, each in takes.items() if each]
        return max(1, min(rooms, default=1))

    @contextmanager
    def start(self, work: Callable[[Task], Any]) -> Iterator[Callable[[Iterator[Task]], Outcomes]]:
        """See `Executor`.

        Raises:
          ConnectionError: there is no cluster.
          RuntimeError: workers die before they can begin.
        """
        import ray

        from adamw_jax.sweep.crew import Crew

        self._connect()
        crew = Crew(self, work)
        try:
            yield crew.do
        finally:
            crew.end()
            if self._connected:
                self._connected = False
                ray.shutdown()

    def _connect(self) -> None:
        import ray

        if ray.is_initialized():
            return
        try:
            ray.init(address="auto")
        except ConnectionError as error:
            raise ConnectionError(
                f"there is no Ray cluster ({error}). Start one on this machine with "
                "`ray start --head`, name one in RAY_ADDRESS, or call ray.init() where the "
                "program begins, before anything uses JAX"
            ) from error
        self._connected = True  # here, so that it is ended here

"""The workers of a Ray cluster that train the chunks of one sweep.

A worker is an actor: a process that holds one copy of the work, with what it has compiled, and
does one task at a time. Ray restarts and retries nothing (its retries after running out of memory
have no limit). A worker that dies costs its task, which is planned again, and another takes its
place. While there are tasks, as many workers again are asked for as there are: so a node that
joins is put to use, and an autoscaler knows that it has reason to add one.
"""

import os
import textwrap
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
)

from adamw_jax.sweep.executors import Lost, Outcomes
from adamw_jax.sweep.plan import Task

# The seconds without a worker after which a warning says what is asked for; and how many workers
# may die one after another before they can begin, while no other is at work.
PATIENCE, STARTS = 30.0, 8


class Asked(Protocol):
    """What is asked for; see the arguments of `on_ray.Ray`, where `most` is `workers`."""

    cpus: float
    gpus: float
    resources: dict[str, float]
    accelerated: bool
    most: int | None


class Worker:
    """What the process of a worker does.

    Args:
      cpus: how many threads XLA uses.
      gpus: how many GPUs the process has, or which part of one.
      accelerated: whether it computes on an accelerator.
    """

    def __init__(self, cpus: float, gpus: float, accelerated: bool):
        # Read when JAX starts, which the copy of the work, coming next, may do.
        os.environ["NPROC"] = str(max(1, int(cpus)))
        if 0 < gpus < 1:
            os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = str(0.75 * gpus)
        # The node may have JAX_PLATFORMS from a driver that stays off its accelerators.
        jax.config.update("jax_platforms", None if accelerated else "cpu")
        self.accelerated = accelerated

    def load(self, work: Callable[[Task], Any]) -> tuple[str, str]:
        """Takes its copy of the work; returns the node's id and address."""
        address = ray.util.get_node_ip_address()
        if self.accelerated and jax.default_backend() == "cpu":
            raise RuntimeError(f"JAX sees no accelerator on {address}; is its plugin installed?")
        self.work = work
        return ray.get_runtime_context().get_node_id(), address

    def do(self, task: Task) -> Any:
        """Does a task."""
        return self.work(task)

    def lost(self) -> Lost:
        """What came of a task whose result did not arrive, though the worker is alive."""
        return Lost("the connection to its worker broke", blame=False)


class Member(NamedTuple):
    """A worker that has begun, and its node's id and address."""

    actor: Any
    node: str
    address: str


class Crew:
    """The workers that have a copy of some work.

    Args:
      asked: what each of them has, and how many there are at most.
      work: what they do; each node fetches it once.
    """

    def __init__(self, asked: Asked, work: Callable[[Task], Any]):
        self.asked, self.copy = asked, ray.put(work)
        others = dict(asked.resources)
        self.kind: Any = ray.remote(Worker).options(
            num_cpus=asked.cpus,
            num_gpus=asked.gpus,
            memory=others.pop("memory", None),
            resources=others,
            max_restarts=0,
            max_task_retries=0,
        )
        # Workers that were asked for, by what `load` will return; those without a task; and
        # those at a task, by what `do` will return.
        self.coming: dict[Any, Any] = {}
        self.idle: list[Member] = []
        self.busy: dict[Any, tuple[Member, Task]] = {}
        self.failures = 0

    def do(self, tasks: Iterator[Task]) -> Outcomes:
        """Does tasks until there are none and none is being done; see `Executor`."""
        patient = True
        while self._assign(tasks):
            ready, _ = ray.wait([*self.coming, *self.busy], timeout=PATIENCE)
            if patient and not (ready or self.busy):
                patient = False
                self._warn()
            for future in ready:
                if future in self.coming:
                    self._welcome(future)
                elif done := self._done(future):
                    yield done

    def end(self) -> None:
        """Ends the workers, whatever they are doing."""
        members = self.idle + [member for member, _ in self.busy.values()]
        for actor in [member.actor for member in members] + [*self.coming.values()]:
            ray.kill(actor)

    def _assign(self, tasks: Iterator[Task]) -> bool:
        """Gives tasks to idle workers; returns whether there is anything to wait for."""
        while self.idle:
            task = next(tasks, None)
            if task is None:
                return bool(self.busy)
            member = self.idle.pop()
            self.busy[member.actor.do.remote(task)] = member, task
        self._ask()
        return True

    def _ask(self) -> None:
        """Asks for workers; they come when there is room for them."""
        there, most = len(self.busy), self.asked.most
        wanted = max(1, there) if most is None else most - there
        for _ in range(wanted - len(self.coming)):
            actor = self.kind.remote(self.asked.cpus, self.asked.gpus, self.asked.accelerated)
            self.coming[actor.load.remote(self.copy)] = actor

    def _welcome(self, future: Any) -> None:
        """Takes in a worker that has begun, or has died before that."""
        try:
            self.idle.append(Member(self.coming[future], *ray.get(future)))
            self.failures = 0
        except RayTaskError as error:
            error.cause.add_note(
                "A Ray worker could not take its copy of the sweep. Every node needs the packages "
                "and modules that this program uses"
            )
            raise error.cause from error
        except (RayActorError, OutOfMemoryError, ObjectLostError) as error:
            self.failures += 1
            failed = isinstance(error, RayActorError) and error.actor_init_failed
            if failed or (self.failures >= STARTS and not self.busy):
                raise RuntimeError(f"workers die before they can begin: {error}") from error
        del self.coming[future]

    def _done(self, future: Any) -> tuple[Task, Any] | None:
        """A task with its outcome, or None if that is not known yet."""
        member, task = self.busy.pop(future)
        try:
            outcome = ray.get(future)
        except RayTaskError as error:
            self.idle.append(member)
            raise error.cause from error
        except ActorUnavailableError:
            # It answers once it has done the task; or Ray finds out in what way it is dead.
            self.busy[member.actor.lost.remote()] = member, task
            return None
        except (RayActorError, OutOfMemoryError, ObjectLostError) as error:
            ray.kill(member.actor)
            alive = any(node["Alive"] and node["NodeID"] == member.node for node in ray.nodes())
            lines = str(error).removeprefix(ActorDiedError.BASE_ERROR_MSG).splitlines()
            reason = next(line for line in lines if line and not line.startswith("\t"))
            reason = textwrap.shorten(f"on {member.address}: {reason}", 300)
            return task, Lost(reason, alive and not isinstance(error, ObjectLostError))
        self.idle.append(member)
        return task, outcome

    def _warn(self) -> None:
        wanted = {"CPU": self.asked.cpus, "GPU": self.asked.gpus, **self.asked.resources}
        warnings.warn(
            f"no worker has begun for {PATIENCE:.0f} seconds. Each is to have {wanted}; all nodes "
            f"of the cluster together have {ray.cluster_resources()}. The sweep waits until a node "
            "has room for one: ask for less, or add nodes",
            stacklevel=2,
        )

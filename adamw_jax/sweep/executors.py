"""Who does the tasks of a sweep: this process, or whatever an executor makes of it.

An executor is given a function and tasks, and yields what came of each. This one starts a process
for every task:

    class Spawned:
        def run(self, work, tasks):
            for task in tasks:
                with concurrent.futures.ProcessPoolExecutor(1, SPAWN) as pool:
                    try:
                        yield task, pool.submit(work, task).result()
                    except BrokenProcessPool as error:
                        yield task, Lost(str(error))

    sweep(run, grid, data, on=Spawned())
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from adamw_jax.sweep.plan import Task
from adamw_jax.sweep.progress import Meter
from adamw_jax.sweep.results import Result

Outcomes = Generator[tuple[Task, Any], None, None]


class Lost(NamedTuple):
    """What came of a task whose worker ended before it answered.

    Attributes:
      reason: why it ended, for people.
      blame: whether the task may be the cause. A node that is taken away is not.
    """

    reason: str
    blame: bool = True


class Executor(Protocol):
    """Does tasks; `sweep` takes one as `on`.

    Attributes:
      workers: how many tasks it does at the same time, for layouts that give work to all; a guess
        if that changes.
    """

    workers: int

    def run(self, work: Callable[[Task], Any], tasks: Iterator[Task]) -> Outcomes:
        """Does all tasks, in any order. It is called again if more tasks come up later.

        Ctrl-C is raised in it while it waits, and the generator is closed if the sweep fails: end
        what it has started in a `finally`.

        Args:
          work: does a task, in whatever process. Tasks do not depend on each other. It keeps what
            it has compiled, so a worker should be given it once; cloudpickle can pickle it, pickle
            only if it can pickle the functions of the run.
          tasks: values that can be pickled; `str` names one for people. Take one when a worker is
            free for it, since what is left to do depends on what has come back.

        Yields:
          Each task with what `work` returned, or with `Lost` if the worker has ended.

        Raises:
          Exception: what `work` raised.
        """
        ...


class LostRunsError(RuntimeError):
    """Runs were given up, since too many workers have ended while they trained them.

    Attributes:
      runs: their numbers.
      results: those of all other runs; of a kept sweep, they are kept.
    """

    def __init__(self, runs: Sequence[int], reason: str | None, tries: int, results: list[Result]):
        self.runs, self.results = list(runs), results
        some = ", ".join(map(str, runs[:8])) + (", ..." if len(runs) > 8 else "")
        why = f": {reason}" if reason else " in earlier calls"
        super().__init__(
            f"{len(runs)} runs were given up, with the numbers {some}: workers that trained them "
            f"have ended {tries} times{why}. All other runs are done. A larger `tries` would try "
            "them again"
        )


class Here:
    """Does tasks one after another in this process.

    Args:
      meter: told of each advance.
    """

    workers = 1

    def __init__(self, meter: Meter):
        self.meter = meter

    def run(self, work: Callable[..., Any], tasks: Iterator[Task]) -> Outcomes:
        """See `Executor`."""
        for task in tasks:
            yield task, work(task, self.meter)

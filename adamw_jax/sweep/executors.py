"""Who does the tasks of a sweep: this process, or whatever an executor makes of it.

An executor starts workers, which are given a function, and has them do tasks with it. One that has
no workers, but does the tasks itself:

    class Mine:
        workers = 1

        @contextlib.contextmanager
        def start(self, work):
            yield lambda tasks: ((task, work(task)) for task in tasks)

    sweep(run, grid, data, on=Mine())
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any, NamedTuple, Protocol

from adamw_jax.sweep.plan import Task
from adamw_jax.sweep.progress import Meter
from adamw_jax.sweep.results import Result

Outcomes = Generator[tuple[Any, Any], None, None]  # each task with what came of it


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

    def start(
        self, work: Callable[[Task], Any]
    ) -> AbstractContextManager[Callable[[Iterator[Task]], Outcomes]]:
        """Starts workers, and ends them when the block is left, however that happens.

        Args:
          work: does a task, in whatever process. It keeps what it has compiled, so give it to a
            worker once. cloudpickle can pickle it; pickle only if it can pickle the functions of
            the run.

        Returns:
          A context manager with a function that has tasks done, in any order, and yields each with
          what `work` returned, or with `Lost` if the worker has ended; what `work` raises, it
          raises. It is called several times, one after another. Tasks can be pickled, and `str`
          names one for people. It takes one when there is a worker for it, since what is left to
          do depends on what has come back. Ctrl-C is raised in it while it waits.
        """
        ...


def repeated(
    done: Callable[[Iterator[Task]], Outcomes], tasks: Sequence[Task], tries: int
) -> Iterator[tuple[Task, Any]]:
    """Has tasks done, and those whose worker ends again.

    Args:
      done: has tasks done, see `Executor`.
      tasks: the tasks.
      tries: how many workers may end at one of them.

    Raises:
      RuntimeError: so many have.
    """
    ended = Counter[str]()
    while tasks:
        given, again = iter(tasks), []
        with closing(done(given)) as outcomes:
            for task, outcome in outcomes:
                if not isinstance(outcome, Lost):
                    yield task, outcome
                    continue
                again.append(task)
                ended[str(task)] += outcome.blame
                if ended[str(task)] == tries:
                    reason = f"workers ended {tries} times while {task}: {outcome.reason}"
                    raise RuntimeError(reason)
        tasks = again


class LostRunsError(RuntimeError):
    """Runs were given up, since too many workers have ended while they trained them.

    Attributes:
      runs: their numbers.
      results: those of all other runs; of a kept sweep, they are kept.
    """

    def __init__(
        self, runs: Sequence[int], reason: str | None, tries: int, results: Sequence[Result]
    ):
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

    @contextmanager
    def start(self, work: Callable[..., Any]) -> Iterator[Callable[[Iterator[Task]], Outcomes]]:
        """See `Executor`."""

        def done(tasks: Iterator[Task]) -> Outcomes:
            for task in tasks:
                yield task, work(task, self.meter)

        yield done

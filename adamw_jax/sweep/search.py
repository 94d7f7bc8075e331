"""A search: the trials of an Optuna study, from being asked for to being told."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from adamw_jax.sweep.executors import Executor, Lost, Outcomes, repeated
from adamw_jax.sweep.halving import rungs_of
from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.plan import Chunk, Measurement
from adamw_jax.sweep.progress import Meter
from adamw_jax.sweep.results import DIVERGED, Block, Result
from adamw_jax.sweep.space import Space
from adamw_jax.sweep.store import Store
from adamw_jax.sweep.work import TooLarge, Trained, Work

if TYPE_CHECKING:
    from optuna import Study, Trial

Metric = str | Callable[[Result], float]
(WHOLE,) = rungs_of(None)


class Objective:
    """What a result is worth to a study.

    Args:
      study: has the directions.
      metrics: the names of metrics, or functions of a result, one for each direction.

    Raises:
      ValueError: there are more or fewer metrics than directions.
    """

    def __init__(self, study: "Study", metrics: Sequence[Metric]):
        directions = [direction.name for direction in study.directions]
        if len(metrics) != len(directions):
            raise ValueError(
                f"metric is one for each direction of the study, which are {', '.join(directions)};"
                f" got {len(metrics)}"
            )
        self.metrics = metrics
        self.worst = [math.inf if d == "MINIMIZE" else -math.inf for d in directions]

    def check(self, there: Mapping[str, Any]) -> None:
        """Checks that runs with these types of metrics can be valued.

        Raises:
          ValueError: a metric is missing, or is not a scalar.
        """
        for name in self.metrics:
            if callable(name):
                continue
            if name not in there:
                raise ValueError(f"metric names {name!r}; there are {', '.join(there)}")
            if shape := there[name].shape:
                raise ValueError(f"the metric {name!r} must be a scalar; its shape is {shape}")

    def values(self, result: Result) -> list[float]:
        """The values of a trial; a run that has diverged is infinitely bad."""
        if result.status == DIVERGED:
            return self.worst
        values = [float(m(result) if callable(m) else result.final(m)) for m in self.metrics]
        return [w if math.isnan(v) else v for v, w in zip(values, self.worst, strict=True)]

    def curve(self, result: Result) -> Iterator[tuple[int, float]]:
        """The intermediate values by step, from 0: those of a metric, if it is the only one."""
        if len(self.metrics) == 1 and isinstance(self.metrics[0], str):
            yield from enumerate(map(float, result.metrics[self.metrics[0]]))


class Search:
    """Has the trials of a study trained.

    Args:
      study: proposes, and is told.
      space: what it proposes from.
      objective: what it is told.
      store: where results are kept.
      trials: how many the study shall have.
      batch: how many are asked for at a time.
      report: whether the study is told the value after each advance, too.
      tries: how many workers may end while they train a trial.
      meter: counts advances and reports progress.
    """

    def __init__(
        self,
        study: "Study",
        space: Space,
        objective: Objective,
        store: Store,
        *,
        trials: int,
        batch: int,
        report: bool,
        tries: int,
        meter: Meter,
    ):
        from optuna.trial import TrialState

        self.study, self.space, self.objective, self.store = study, space, objective, store
        self.trials, self.batch, self.report, self.tries = trials, batch, report, tries
        self.meter, self.states = meter, TrialState
        self.length = max(v.run.length for v in space.variants)
        kept = [result for block in store.read(store.parts()) for result in block.results()]
        self.results = {result.run: result for result in kept}
        self.asked, self.devices, self.given_up = dict[int, "Trial"](), 0, 0
        self.left = {variant.name: deque[int]() for variant in space.variants}

    def go(self, work: Work, executor: Executor, layout: Layout | None) -> list[Result]:
        """Has trials trained until there are enough; returns all results, by number."""
        self._settle()
        done = self._count()
        self.meter.expect(self.trials * self.length, done * self.length, done)
        try:
            if self._ask():
                with executor.start(work) as do:
                    self._lay_out(do, layout)
                    while any(self.left.values()) or self._ask():
                        with closing(do(self._chunks())) as outcomes:
                            for chunk, outcome in outcomes:
                                self._take(chunk, outcome)
        finally:
            self._settle()
        self.meter.over()
        return [self.results[number] for number in sorted(self.results)]

    def _settle(self) -> None:
        """Tells the running trials whose results are kept, and fails the others."""
        for trial in self.study.get_trials(deepcopy=False, states=(self.states.RUNNING,)):
            if trial.number in self.results:
                self._tell(self.results[trial.number])
            else:
                self._fail(trial.number)

    def _tell(self, result: Result) -> None:
        self.study.tell(result.run, self.objective.values(result))

    def _fail(self, number: int) -> None:
        self.study.tell(number, state=self.states.FAIL)

    def _count(self) -> int:
        """How many trials have a value, or are to have one."""
        states = self.states.RUNNING, self.states.COMPLETE, self.states.PRUNED
        return len(self.study.get_trials(deepcopy=False, states=states))

    def _ask(self) -> bool:
        """Asks for a batch, or for as many trials as are missing; returns whether any are."""
        missing = self.trials - self._count() - self.given_up
        for _ in range(min(self.batch, missing)):
            trial = self.study.ask(self.space.distributions)
            self.asked[trial.number] = trial
            self.left[self.space.program(self.space.row(trial.params))].append(trial.number)
        return missing > 0

    def _lay_out(self, do: Callable[[Iterator[Any]], Outcomes], layout: Layout | None) -> None:
        """Finds out how many devices a worker has, and gives a layout to variants without one."""
        task = Measurement(self.space.variants[0].name, (), 1, Layout(1))
        ((_, found),) = repeated(do, [task], self.tries)
        self.devices = found.devices
        lanes = math.ceil(self.batch / len(self.space.variants) / self.devices)
        for name in self.left.keys() - self.store.layouts.keys():
            self.store.set_layout(name, layout or Layout(lanes))

    def _chunks(self) -> Iterator[Chunk]:
        """Takes chunks from the trials asked for, and asks for more when none are left."""
        while any(self.left.values()) or self._ask():
            name, left = next((name, left) for name, left in self.left.items() if left)
            # The layout is never made smaller for few trials, so that no batch compiles anew.
            layout = self.store.layouts[name]
            count = min(len(left), layout.width(self.devices))
            members = tuple(left.popleft() for _ in range(count))
            rows = tuple(self.space.row(self.asked[i].params) for i in members)
            self.meter.sent()
            yield Chunk(name, members, rows, WHOLE, layout, self.devices, None)

    def _take(self, chunk: Any, outcome: Any) -> None:
        """Keeps and tells what came of a chunk; if nothing did, its trials are left again."""
        results = outcome.results if isinstance(outcome, Trained) else None
        if results:
            self._keep(results)
        elif isinstance(outcome, TooLarge) and chunk.layout == self.store.layouts[chunk.variant]:
            self.store.set_layout(chunk.variant, chunk.layout.halved())
        elif isinstance(outcome, Lost) and outcome.blame:
            self.store.count_try(chunk.members)
        if max(self.store.tries.get(i, 0) for i in chunk.members) >= self.tries:
            self.given_up += len(chunk.members)
            for number in chunk.members:
                self._fail(number)
        elif not results:
            self.left[chunk.variant].extendleft(reversed(chunk.members))
        self.meter.returned(len(chunk.members) * self.length if results else 0, results)

    def _keep(self, block: Block) -> None:
        """Keeps results, and then tells them."""
        results = block.results()
        for result in results if self.report else ():
            for step, value in self.objective.curve(result):
                self.asked[result.run].report(value, step)
        self.store.write(WHOLE.number, block, None)
        self.results |= {result.run: result for result in results}
        for result in results:
            self._tell(result)
            del self.asked[result.run]

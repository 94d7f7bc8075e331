"""Searches with Optuna: trials in lanes, beside the usual loop of one trial after another."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import optuna
from flax import nnx
from optuna.distributions import FloatDistribution

import adamw_jax
from adamw_jax import sweep
from benchmarks.timing import ratio
from experiments.harness import data
from experiments.harness.report import Table
from experiments.training.classifier import cross_entropy
from experiments.training.models import MLP

TRIALS, MANY, EPOCHS, BATCH, ROUNDS = 128, 512, 20, 32, 5
SPACE = {
    "learning_rate": FloatDistribution(1e-5, 1.0, log=True),
    "weight_decay": FloatDistribution(1e-4, 10.0, log=True),
    "b1": FloatDistribution(0.5, 0.99),
    "b2": FloatDistribution(0.9, 0.9999),
}
network = functools.partial(MLP, (64, 32, 10))


class Searched(NamedTuple):
    """What came of a search.

    Attributes:
      setup: the seconds until the first trial was trained.
      seconds: when each trial was told, from the beginning of the search, float[trials].
      best: the least loss by then, float[trials].
      cpu: the seconds of all threads together.
    """

    setup: float
    seconds: np.ndarray
    best: np.ndarray
    cpu: float

    def until(self, loss: float) -> float:
        """The seconds until a loss was reached; NaN if it was not."""
        reached = self.best <= loss
        return float(self.seconds[np.argmax(reached)]) if reached.any() else math.nan

    @property
    def rate(self) -> float:
        """Trials per second, without the set-up."""
        return len(self.seconds) / (self.seconds[-1] - self.setup)


def tables() -> list[Table]:
    """Has each contender search in turn, with the sampler's seed of the round."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lanes = {f"lanes, batches of {n}": functools.partial(in_lanes, batch=n) for n in (1, 8, 32)}
    lanes["lanes, one batch: at random"] = functools.partial(in_lanes, batch=TRIALS)
    lanes[f"lanes, batches of 32, {MANY:,} trials"] = functools.partial(
        in_lanes, batch=32, trials=MANY
    )
    contenders = {
        "one by one, a step one call": functools.partial(one_by_one, compiled_once),
        **lanes,
        # A few, to know its speed: every trial takes as long.
        "one by one, nnx.Optimizer": functools.partial(one_by_one, as_in_flax, trials=3),
    }
    found: dict[str, list[Searched]] = {name: [] for name in contenders}
    for i in range(ROUNDS):
        for name in list(contenders)[:: 1 if i % 2 == 0 else -1]:
            found[name].append(contenders[name](seed=i))
    return [_table(found)]


def _table(found: dict[str, list[Searched]]) -> Table:
    plain, *_, short = found
    # In each round, what all have reached in the end.
    losses = [
        max(of[i].best[-1] for name, of in found.items() if name != short) for i in range(ROUNDS)
    ]
    until = {
        name: np.array([s.until(loss) for s, loss in zip(of, losses, strict=True)])
        for name, of in found.items()
    }
    rates = {name: np.array([s.rate for s in of]) for name, of in found.items()}
    rows = []
    for name, of in found.items():
        least, middle, most = np.percentile([s.best[-1] for s in of], [0, 50, 100])
        row = [name, f"{np.median(rates[name]):.1f}", ratio(rates[name], rates[plain])]
        if name != short:
            row += [
                f"{np.median([s.setup for s in of]):.1f}",
                f"{np.median([s.seconds[-1] for s in of]):.0f}",
                f"{np.median([s.cpu for s in of]):.0f}",
                f"{np.median(until[name]):.1f}",
                ratio(until[plain], until[name]),
                f"{middle:.4f} [{least:.4f}, {most:.4f}]",
            ]
        rows.append(row + [""] * (9 - len(row)))
    return Table(
        f"Digits, MLP 64-32-10, {EPOCHS} epochs, batch {BATCH}, AdamW: {TRIALS} trials of TPE",
        [
            *("", "trials/s", "ratio", "set-up, s", "all, s", "CPU, s"),
            *("to the same loss, s", "speed-up", "best loss"),
        ],
        rows,
        f"Medians of {ROUNDS} rounds, in which the contenders take turns, with the round as the "
        "sampler's seed; in brackets quartiles of the ratio to the first row within a round, and "
        "for the best loss the least and the most. Four settings: learning rate, decay, β₁, β₂. "
        "Set-up is until training begins: tracing and compiling. All times have it, trials per "
        "second do not. The same loss is, in each round, what all have reached in the end. CPU: of "
        "all threads. Storage: memory. All trials begin with the same weights. One by one: each "
        "step is a jitted call, compiled once for all trials; with nnx.Optimizer it is compiled "
        "for each trial, because the settings are constants of the program.",
    )


def problem() -> dict[str, dict[str, jax.Array]]:
    """The digits, for training and validation."""
    train, test = data.load("digits")
    return {"train": train._asdict(), "validation": test._asdict()}


def loss(model: nnx.Module, batch: Any) -> jax.Array:
    """The mean cross-entropy of a batch of images."""
    return cross_entropy(model(batch["images"]), batch["labels"])


def _run() -> sweep.Run:
    return sweep.training(
        network,
        loss,
        lambda h: _optimizer(adamw_jax.adamw, h),
        epochs=EPOCHS,
        batch_size=BATCH,
        evaluate=lambda model, data: {"validation_loss": loss(model, data["validation"])},
    )


def in_lanes(seed: int, batch: int, trials: int = TRIALS) -> Searched:
    """Batches of trials, side by side."""
    run = _run()
    given = problem()

    def search(study):
        began, moments = time.perf_counter(), list[float]()

        def listener(progress):
            if progress.doing == "training":
                moments.append(time.perf_counter() - began)

        options = {"trials": trials, "batch": batch, "report": False, "progress": listener}
        sweep.optimize(study, run, SPACE, given, metric="validation_loss", **options)
        return moments[0]

    return _timed(search, seed)


def one_by_one(make: Callable[[Any], Any], seed: int, trials: int = TRIALS) -> Searched:
    """Optuna's loop; `make` has a trial's functions `train(batch)` and `evaluate()` made."""
    given = problem()
    images, labels = map(np.asarray, given["train"].values())

    def objective(trial, epochs=EPOCHS):
        h = {k: trial.suggest_float(k, d.low, d.high, log=d.log) for k, d in SPACE.items()}
        (train, evaluate), order, value = start(h), np.random.default_rng(0), math.nan
        for _ in range(epochs):
            shuffled = order.permutation(len(labels))
            for i in range(len(labels) // BATCH):
                rows = shuffled[i * BATCH : (i + 1) * BATCH]
                train({"images": images[rows], "labels": labels[rows]})
            value = evaluate()
        return math.inf if math.isnan(value) else float(value)

    def search(study):
        nonlocal start
        began = time.perf_counter()
        start = make(given)
        if make is compiled_once:
            objective(optuna.trial.FixedTrial({k: d.low for k, d in SPACE.items()}), epochs=1)
        setup = time.perf_counter() - began
        study.optimize(objective, trials)
        return setup

    start: Any = None
    return _timed(search, seed)


def compiled_once(given: Any) -> Callable[[Any], Any]:
    """Settings are arguments of the program."""
    graph, params = nnx.split(network(rngs=nnx.Rngs(0)), nnx.Param)
    h = {name: jax.numpy.float32(distribution.low) for name, distribution in SPACE.items()}
    weights = _run().start(h, jax.random.key(0), given).params  # those of our trials
    params = jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(weights))
    init = jax.jit(lambda h: _optimizer(optax.adamw, h).init(params))
    score = jax.jit(lambda params: loss(nnx.merge(graph, params), given["validation"]))

    @jax.jit
    def step(h, params, opt_state, batch):
        grads = jax.grad(lambda params: loss(nnx.merge(graph, params), batch))(params)
        updates, opt_state = _optimizer(optax.adamw, h).update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def start(h):
        state = params, init(h)

        def train(batch):
            nonlocal state
            state = step(h, *state, batch)

        return train, lambda: score(state[0])

    return start


def as_in_flax(given: Any) -> Callable[[Any], Any]:
    """As the guides of Flax train a model: the optimizer has the settings as constants."""

    @nnx.jit
    def step(model, optimizer, batch):
        optimizer.update(model, nnx.grad(loss)(model, batch))

    @nnx.jit
    def score(model):
        return loss(model, given["validation"])

    def start(h):
        model = network(rngs=nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, _optimizer(optax.adamw, h), wrt=nnx.Param)
        return lambda batch: step(model, optimizer, batch), lambda: score(model)

    return start


def _optimizer(make: Callable[..., Any], h: Any) -> Any:
    return make(h["learning_rate"], h["b1"], h["b2"], weight_decay=h["weight_decay"])


def _timed(search: Callable[[optuna.Study], float], seed: int) -> Searched:
    """Times a search, which returns the seconds of its set-up."""
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    began, used = time.time(), time.process_time()
    setup, cpu, trials = search(study), time.process_time() - used, study.trials
    told = [
        trial.datetime_complete.timestamp() - began for trial in trials if trial.datetime_complete
    ]
    values = np.array([trial.value for trial in trials], float)
    order = np.argsort(told, kind="stable")
    return Searched(setup, np.array(told)[order], np.minimum.accumulate(values[order]), cpu)

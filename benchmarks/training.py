"""Training with AdamW: our loop, alone and in sweeps, beside Flax's usual loop and PyTorch's."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import adamw_jax
from adamw_jax.kernels import fused, missing
from adamw_jax.sweep import Run
from adamw_jax.sweep.chunk import Ends
from adamw_jax.sweep.plan import Measured, Measurement
from adamw_jax.sweep.program import compile_variant
from adamw_jax.sweep.variants import variants
from adamw_jax.sweep.work import Work
from benchmarks.timing import alternate, ratio
from experiments.harness import data
from experiments.harness.report import Table
from experiments.training.classifier import classifier_run
from experiments.training.models import MLP
from experiments.training.sample import Sample

RATE, DECAY = 1e-3, 0.1


class Problem(NamedTuple):
    """What is trained.

    Attributes:
      name: as shown in the table.
      loaded: training images; the test split is empty, since no contender evaluates.
      widths: layer sizes of the MLP.
      batch: images in a step.
      runs: how many runs the sweep is laid out for.
      epochs: how many a turn has.
    """

    name: str
    loaded: data.Data
    widths: Sequence[int]
    batch: int
    runs: int
    epochs: int

    @property
    def steps(self) -> int:
        """Optimizer steps in an epoch."""
        return len(self.loaded.train.labels) // self.batch

    def run(self, fuse: bool = False) -> Run:
        """An epoch of our training, as a sweep or a single run takes it."""

        def optimizer(h):
            tx = adamw_jax.adamw(h["learning_rate"], weight_decay=h["weight_decay"])
            return fused(tx) if fuse else tx

        return classifier_run(
            optimizer,
            functools.partial(MLP, self.widths),
            Sample(len(self.loaded.train.labels)),
            self.batch,
            epochs=1,
        )


def problems(data_dir: Path | None) -> list[Problem]:
    """The problems: digits and Fashion-MNIST."""

    def train_only(loaded):
        nothing = data.Split(loaded.test.images[:0], loaded.test.labels[:0])
        return data.Data(loaded.train, nothing)

    digits = train_only(data.load("digits"))
    fashion = train_only(data.load("fashion-mnist", data_dir))
    return [
        Problem("Digits", digits, (64, 32, 10), 32, runs=256, epochs=21),
        Problem("Fashion-MNIST", fashion, (784, 256, 128, 10), 128, runs=16, epochs=1),
    ]


class Contender(NamedTuple):
    """A way of training that is timed.

    Attributes:
      name: as shown in the table.
      epoch: trains every lane for an epoch.
      lanes: how many runs it advances at once.
      compile_seconds: the time to compile it, before the timing; 0 where it is not measured.
    """

    name: str
    epoch: Callable[[], Any]
    lanes: int
    compile_seconds: float


def tables(data_dir: Path | None) -> list[Table]:
    """Measures an epoch of each contender; about five minutes on two cores."""
    return [_table(problem) for problem in problems(data_dir)]


def _table(problem: Problem) -> Table:
    sweeps = [_lanes(problem, fuse) for fuse in ([False] if missing() else [False, True])]
    contenders = [*sweeps, _scanned(problem), _stepwise(problem), *_pytorch(problem)]
    times = alternate({c.name: c.epoch for c in contenders}, rounds=9, calls=problem.epochs)
    per_step = {c.name: times[c.name] / (c.lanes * problem.steps) for c in contenders}
    ours = per_step[contenders[0].name]
    rows = [
        [
            c.name,
            f"{1 / np.median(per_step[c.name]):,.0f}",
            ratio(per_step[c.name], ours),
            f"{c.compile_seconds:.1f}" if c.compile_seconds else "",
        ]
        for c in contenders
    ]
    widths = "-".join(map(str, problem.widths))
    return Table(
        f"{problem.name}, MLP {widths}, batch {problem.batch}, AdamW: steps per second",
        ["", "steps/s", "its time / the sweep's", "compile, s"],
        rows,
        f"The sweep has {problem.runs} runs. Epochs in a turn: {problem.epochs}, of which the "
        "median counts; the median of nine turns, and in brackets the quartiles of the ratio "
        "within a round. All shuffle in each epoch and evaluate nothing. The sweep's layout is the "
        "one that it measures as fastest. Flax: each step is one jitted call. PyTorch: eager, "
        "fused AdamW, the data as tensors in memory.",
    )


def _lanes(problem: Problem, fuse: bool) -> Contender:
    rows = [{"seed": i, "learning_rate": RATE, "weight_decay": DECAY} for i in range(problem.runs)]
    # So long that measuring layouts costs next to nothing.
    run = problem.run(fuse)._replace(length=10_000)
    (variant,) = variants(run, rows, (), problem.loaded)
    work = Work([variant], problem.loaded, Ends(None, None))
    measured = work(Measurement(variant.name, tuple(rows), problem.runs, None))
    assert isinstance(measured, Measured)
    layout, machine = measured.layout, work.machine()
    program = compile_variant(variant, machine, layout)
    state = program.start(*variant.inputs(rows[: program.width], program.width))

    def epoch():
        nonlocal state
        state, metrics = program.advance(state)
        return jax.device_get(metrics)

    epoch()
    name = f"sweep, {machine.size} devices × {layout.lanes} lanes × {layout.rounds}"
    name += ", fused steps" if fuse else ""
    return Contender(name, epoch, program.width, program.seconds)


def _scanned(problem: Problem) -> Contender:
    start, advance, _ = problem.run()
    numbers = {"learning_rate": jnp.float32(RATE), "weight_decay": jnp.float32(DECAY)}
    state = jax.jit(start)(numbers, jax.random.key(0), problem.loaded)
    compiled = jax.jit(advance, donate_argnums=0)

    def epoch():
        nonlocal state
        state, metrics = compiled(state, problem.loaded)
        return metrics

    epoch()
    return Contender("one run of ours, an epoch one call", epoch, 1, 0.0)


def _stepwise(problem: Problem) -> Contender:
    model = MLP(problem.widths, rngs=nnx.Rngs(0))
    graph, params = nnx.split(model, nnx.Param)
    tx = optax.adamw(RATE, weight_decay=DECAY)
    images, labels = map(np.asarray, problem.loaded.train)
    order = np.random.default_rng(0)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, opt_state, images, labels):
        def loss(params):
            logits = nnx.merge(graph, params)(images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    state = params, tx.init(params)

    def epoch():
        nonlocal state
        shuffled = order.permutation(len(labels))
        for i in range(problem.steps):
            batch = shuffled[i * problem.batch : (i + 1) * problem.batch]
            state = step(*state, images[batch], labels[batch])
        return state

    epoch()
    return Contender("Flax and Optax, a step one call", epoch, 1, 0.0)


def _pytorch(problem: Problem) -> list[Contender]:
    try:
        import torch  # pyright: ignore[reportMissingImports] - optional
    except ImportError:
        return []
    images = torch.tensor(np.asarray(problem.loaded.train.images))
    labels = torch.tensor(np.asarray(problem.loaded.train.labels), dtype=torch.long)
    layers = []
    for fan_in, fan_out in zip(problem.widths, problem.widths[1:], strict=False):
        layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY, fused=True)

    def epoch(threads):
        torch.set_num_threads(threads)
        order = torch.randperm(len(labels))
        for i in range(problem.steps):
            batch = order[i * problem.batch : (i + 1) * problem.batch]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()

    epoch(1)
    return [
        Contender(f"PyTorch {torch.__version__}, {n} threads", lambda n=n: epoch(n), 1, 0.0)
        for n in range(1, (os.cpu_count() or 1) + 1)
    ]

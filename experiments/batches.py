"""What does a gradient step cost, and gain, from the full batch down to eight images?

Full-batch gradient descent is compared with minibatch SGD on the digits. Every batch size sees
every image equally often, so that all compute the same number of per-example gradients: a small
batch spends them on many cheap, noisy steps, the full batch on a few costly, exact ones. Each
batch size uses the learning rate from a list that has the lowest training loss at the end. Times
are those of the steps alone, without compiling, drawing the batches or evaluating.

The first plot shows how far the same number of gradients leads, the second what a step of each size
costs (the dotted line is in proportion to the number of images), and the third what is left of the
advantage when seconds count.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from adamw_jax import gd
from experiments.harness import plots, settings
from experiments.harness.context import Context
from experiments.harness.data import Split, load
from experiments.harness.report import Figure, Report, Table
from experiments.training.classifier import accuracy, cross_entropy
from experiments.training.models import MLP

CLASSES = 10
COLORS = (plots.BLACK, plots.VERMILION, plots.GREEN, plots.BLUE, plots.PURPLE, plots.SKY)


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The settings of `configs/batches.toml`."""

    examples: Annotated[
        settings.Count, settings.about("training images, a multiple of every batch size")
    ]
    batch_sizes: Annotated[
        tuple[settings.Count, ...], settings.SOME, settings.about("images in a step")
    ]
    learning_rates: Annotated[
        tuple[settings.Positive, ...], settings.SOME, settings.about("values of α to choose from")
    ]
    passes: Annotated[settings.Count, settings.about("how often every image is seen")]
    hidden: Annotated[
        tuple[settings.Count, ...], settings.about("sizes of the network's hidden layers")
    ]
    seeds: Annotated[
        settings.Count, settings.about("runs, each with weights and orders of its own")
    ]


class Runs(NamedTuple):
    """All runs with one batch size.

    Attributes:
      losses: the loss over all training images, float[learning rates, seeds, passes + 1].
      accuracies: the accuracy on the test images at the end, float[learning rates, seeds].
      seconds: how long a run took, the median of all runs.
      compile_seconds: how long compiling took, once before the runs.
    """

    losses: np.ndarray
    accuracies: np.ndarray
    seconds: float
    compile_seconds: float

    @property
    def best(self) -> int:
        """The index of the learning rate with the least training loss at the end."""
        last = self.losses[:, :, -1].mean(axis=1)
        return int(np.where(np.isfinite(last), last, np.inf).argmin())

    @property
    def loss(self) -> np.ndarray:
        """The mean loss over the seeds at the best learning rate, float[passes + 1]."""
        return self.losses[self.best].mean(axis=0)


def measure(graph: nnx.GraphDef, params: Any, split: Split) -> tuple[jax.Array, jax.Array]:
    """The mean cross-entropy, and the fraction of images that are classified correctly."""
    logits = nnx.merge(graph, params)(split.images)
    return cross_entropy(logits, split.labels), accuracy(logits, split.labels)


def descend(graph: nnx.GraphDef, params: Any, batches: Split, learning_rate: float) -> Any:
    """Takes a gradient step for each batch.

    Args:
      graph: the network without its parameters.
      params: the initial parameters.
      batches: images float32[passes, steps, batch size, pixels], and their labels.
      learning_rate: α.

    Returns:
      The parameters after every pass, stacked: [passes, …].
    """
    tx = gd(learning_rate)

    def step(carry, batch):
        params, state = carry
        gradient = jax.grad(lambda p: measure(graph, p, batch)[0])(params)
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    def one_pass(carry, batches):
        carry, _ = jax.lax.scan(step, carry, batches)
        return carry, carry[0]

    return jax.lax.scan(one_pass, (params, tx.init(params)), batches)[1]


# Losses and accuracies after every pass, from stacked parameters.
measure_all = jax.jit(jax.vmap(measure, (None, 0, None)))


def train_all(
    graph: nnx.GraphDef,
    starts: Sequence[tuple[Any, np.ndarray]],
    learning_rates: Sequence[float],
    size: int,
    train: Split,
    test: Split,
) -> Runs:
    """Trains with one batch size, from every start at every learning rate.

    Args:
      graph: the network without its parameters.
      starts: initial parameters, and the order of the images, int[passes, examples].
      learning_rates: values of α.
      size: images in a batch.
      train: images to train on.
      test: images for the accuracy at the end.
    """
    inputs = []
    for params, order in starts:
        order = order.reshape(len(order), -1, size)
        inputs.append((params, Split(train.images[order], train.labels[order])))
    began = time.perf_counter()
    compiled = jax.jit(descend).lower(graph, *inputs[0], 0.0).compile()
    compile_seconds = time.perf_counter() - began
    seconds = []

    def trained(params, batches, learning_rate):
        began = time.perf_counter()
        path = jax.block_until_ready(compiled(graph, params, batches, learning_rate))
        seconds.append(time.perf_counter() - began)
        path = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), params, path)
        return measure_all(graph, path, train)[0], measure_all(graph, path, test)[1][-1]

    runs = [[trained(params, b, rate) for params, b in inputs] for rate in learning_rates]
    losses = np.array([[loss for loss, _ in row] for row in runs], np.float64)
    accuracies = np.array([[accuracy for _, accuracy in row] for row in runs], np.float64)
    return Runs(losses, accuracies, float(np.median(seconds)), compile_seconds)


def run(config: Settings, context: Context) -> Report:
    """Trains with every batch size."""
    data = load("digits", context.data_dir)
    whole = config.examples
    if whole > len(data.train.labels) or any(whole % size for size in config.batch_sizes):
        raise settings.SettingsError(
            f"examples = {whole} must be a multiple of every batch size, "
            f"{', '.join(map(str, config.batch_sizes))}, and at most {len(data.train.labels)}"
        )
    train = Split(data.train.images[:whole], data.train.labels[:whole])
    widths = [train.images.shape[1], *config.hidden, CLASSES]
    networks = [nnx.split(MLP(widths, rngs=nnx.Rngs(seed))) for seed in range(config.seeds)]
    graph, _ = networks[0]
    starts = []
    for seed, (_, params) in enumerate(networks):
        rng = np.random.default_rng(seed)
        order = np.stack([rng.permutation(whole) for _ in range(config.passes)])
        starts.append((nnx.as_pure(params), order))
    runs = {
        size: train_all(graph, starts, config.learning_rates, size, train, data.test)
        for size in config.batch_sizes
    }
    return Report(
        "",
        list(_findings(runs, config)),
        [_table(runs, config)],
        [_figure(runs, config)],
        {
            "losses": [
                {"batch_size": size, "learning_rate": rate, "seed": seed, "gradients": i * whole}
                | {"seconds": i * r.seconds / config.passes, "training_loss": loss}
                for size, r in runs.items()
                for rate, seeds in zip(config.learning_rates, r.losses.tolist(), strict=True)
                for seed, losses in enumerate(seeds)
                for i, loss in enumerate(losses)
            ]
        },
    )


def _steps(size: int, config: Settings) -> int:
    return config.passes * config.examples // size


def _table(runs: dict[int, Runs], config: Settings) -> Table:
    def row(size, r):
        steps, accuracies = _steps(size, config), r.accuracies[r.best]
        return [
            f"{size:,}",
            f"{steps:,}",
            f"{config.learning_rates[r.best]:g}",
            f"{1e6 * r.seconds / steps:,.1f} µs",
            f"{1e6 * r.seconds / steps / size:.2f} µs",
            f"{r.seconds:.3f} s",
            f"{r.loss[-1]:.5f}",
            f"{accuracies.mean():.1%} ({accuracies.min():.1%} to {accuracies.max():.1%})",
        ]

    compiling = ", ".join(f"{r.compile_seconds:.2f}" for r in runs.values())
    return Table(
        f"{config.passes} passes over {config.examples:,} images",
        ["Batch", "Steps", "α", "Per step", "Per image", "Time", "Training loss", "Test accuracy"],
        [row(size, r) for size, r in runs.items()],
        f"α: the best of {', '.join(f'{x:g}' for x in config.learning_rates)} by the training "
        f"loss. Loss and accuracy: means of {config.seeds} seeds, with the lowest and highest "
        "accuracy. Times: medians of "
        f"{config.seeds * len(config.learning_rates)} runs, without compiling ({compiling} s).",
    )


def _findings(runs: dict[int, Runs], config: Settings) -> Iterator[str]:
    large, small = max(runs), min(runs)
    least = min(runs, key=lambda size: runs[size].loss[-1])
    losses = ", ".join(f"{r.loss[-1]:.2g} with batches of {size:,}" for size, r in runs.items())
    yield (
        f"After {config.passes * config.examples:,} per-example gradients the training loss is "
        f"{losses}; it is lowest with {least:,}."
    )
    cost = {size: 1e6 * r.seconds / _steps(size, config) for size, r in runs.items()}
    yield (
        f"A step on {large:,} images takes {cost[large]:,.1f} µs and one on {small:,} images "
        f"{cost[small]:,.1f} µs: for {large / small:g} times the images, "
        f"{cost[large] / cost[small]:.0f} times the time."
    )
    reached = {size: np.flatnonzero(r.loss <= runs[large].loss[-1]) for size, r in runs.items()}
    ways = [
        f"batches of {size:,} "
        + (f"get {_way(passes[0], runs[size], config)}" if len(passes) else "never get")
        for size, passes in reached.items()
        if size != large
    ]
    if ways:
        yield (
            f"Where batches of {large:,} get {_way(config.passes, runs[large], config)}, "
            f"{', '.join(ways)}."
        )
    ends = min(config.learning_rates), max(config.learning_rates)
    beyond = [f"{size:,}" for size, r in runs.items() if config.learning_rates[r.best] in ends]
    if beyond:
        yield (
            f"For batches of {', '.join(beyond)} the best learning rate is at an end of the list: "
            "one beyond it may be better."
        )


def _way(passes: int, r: Runs, config: Settings) -> str:
    return f"in {passes} passes and {1e3 * r.seconds * passes / config.passes:.2g} ms"


def _figure(runs: dict[int, Runs], config: Settings) -> Figure:
    figure, ((gradients, cost, clock),) = plots.subplots(3, height=4.4)
    least = min(runs, key=lambda size: runs[size].loss[-1])
    passes = np.arange(config.passes + 1)
    lines = []
    for (size, r), color in zip(runs.items(), itertools.cycle(COLORS)):
        (line,) = gradients.plot(passes, r.loss, color=color)
        lines.append((line, f"{size:,}"))
        cost.plot(size, 1e6 * r.seconds / _steps(size, config), "o", color=color, markersize=8)
        # A logarithmic axis has no place for the start, at time 0.
        clock.plot(1e3 * r.seconds * passes[1:] / config.passes, r.loss[1:], color=color)
    sizes = np.array(sorted(runs))
    per_image = runs[sizes[-1]].seconds / config.passes / config.examples
    cost.plot(sizes, 1e6 * per_image * sizes, ":", color=plots.BLACK, zorder=0)
    cost.text(0.04, 0.97, "dotted: in proportion\nto the images", va="top",
              transform=cost.transAxes)  # fmt: skip
    gradients.set(title="training loss by batch size", xlabel="passes over the images")
    cost.set(title="time of a step, µs", xlabel="images in a batch", xscale="log", yscale="log")
    clock.set(title="training loss", xlabel="time, ms", xscale="log")
    plots.log_y(gradients)
    plots.log_y(clock)
    plots.label_ends(gradients, lines)
    return Figure(
        "batches",
        f"With equally many gradients, batches of {least:,} lead furthest",
        figure,
        "Means over the seeds, each batch size at its best learning rate. In each pass over the "
        "images, all batch sizes compute as many gradients.",
    )

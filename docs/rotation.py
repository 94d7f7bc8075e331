"""How fast normalised weights turn in real networks, beside what `rotation_report` predicts.

    .venv/bin/python -m docs.rotation

trains small networks on Fashion-MNIST, draws docs/figures/rotation.png and prints the table of
docs/weight-decay.md.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import adamw_jax as aj
from experiments.harness import data, plots, report

FIGURE = Path(__file__).parent / "figures/rotation.png"
STEPS, BATCH, WIDTH, LAST = 3000, 128, 128, 1000
RATE, DECAY = 1e-3, 1e-3  # of AdamW and Lion, per step
FIRST = "hidden/0/kernel"


class Network(nnx.Module):
    """Two hidden layers with a normalisation each, without biases before it."""

    def __init__(self, norm: Callable[..., Any], rngs: nnx.Rngs):
        sizes = [(784, WIDTH), (WIDTH, WIDTH)]
        self.hidden = nnx.List([nnx.Linear(*s, use_bias=False, rngs=rngs) for s in sizes])
        self.norms = nnx.List([norm(WIDTH, rngs=rngs) for _ in sizes])
        self.head = nnx.Linear(WIDTH, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to logits."""
        for linear, norm in zip(self.hidden, self.norms, strict=True):
            x = nnx.relu(norm(linear(x)))
        return self.head(x)


class Run(NamedTuple):
    """What a run did, by array.

    Attributes:
      predicted: the row of the report.
      angles: of every step.
      norms: before every step.
    """

    predicted: aj.RotationRow
    angles: np.ndarray
    norms: np.ndarray


def train(
    norm: Callable[..., Any], tx: optax.GradientTransformation, images: data.Split, scale: float = 1
) -> dict[str, Run]:
    """Trains a network whose first kernel is multiplied by a number, and follows its kernels."""
    network = Network(norm, nnx.Rngs(0))
    kernel = network.hidden[0].kernel
    kernel[...] = kernel[...] * scale
    graph, params, rest = nnx.split(network, nnx.Param, ...)

    def loss(params, rest, batch):
        model = nnx.merge(graph, params, rest, copy=True)
        logits = model(batch.images)
        errors = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        return errors.mean(), nnx.split(model, nnx.Param, ...)[2]

    def batch(key):
        at = jax.random.randint(key, (BATCH,), 0, len(images.labels))
        return jax.tree.map(lambda x: x[at], images)

    def kernels(params):
        return [params["hidden"][i]["kernel"][...] for i in (0, 1)] + [
            params["head"]["kernel"][...]
        ]

    def step(carry, key):
        params, state, rest = carry
        gradients, rest = jax.grad(loss, has_aux=True)(params, rest, batch(key))
        updates, state = tx.update(gradients, state, params)
        new = optax.apply_updates(params, updates)
        before, after = kernels(params), kernels(new)
        return (new, state, rest), jax.tree.map(_turned, before, after)

    first = batch(jax.random.key(1))
    rows = aj.rotation_report(tx, params, lambda p: loss(p, rest, first)[0]).rows
    keys = jax.random.split(jax.random.key(2), STEPS)
    start = params, tx.init(params), rest
    _, followed = jax.jit(lambda *carry: jax.lax.scan(step, carry, keys))(*start)
    by_path = {row.path: row for row in rows}
    paths = FIRST, "hidden/1/kernel", "head/kernel"
    pairs = zip(paths, followed, strict=True)
    return {path: Run(by_path[path], *map(np.asarray, both)) for path, both in pairs}


def _turned(before, after):
    """The angle between two arrays, and the norm of the first."""
    norm = jnp.linalg.norm(before)
    off = after - before * jnp.vdot(before, after) / norm**2
    return jnp.arctan2(jnp.linalg.norm(off), jnp.vdot(before, after) / norm), norm


def main() -> None:
    """Trains, draws and prints."""
    images = data.load("fashion-mnist").train
    adamw = aj.adamw(RATE, weight_decay=DECAY / RATE, mask=aj.decay_only("*kernel"))
    lion = aj.lion(RATE / 5, weight_decay=5 * DECAY / RATE, mask=aj.decay_only("*kernel"))
    sgd = optax.chain(
        optax.add_decayed_weights(1e-3, mask=aj.decay_only("*kernel")), optax.sgd(0.05, 0.9)
    )
    runs = {
        ("LayerNorm", "AdamW"): train(nnx.LayerNorm, adamw, images),
        ("BatchNorm", "AdamW"): train(nnx.BatchNorm, adamw, images),
        ("BatchNorm", "Lion"): train(nnx.BatchNorm, lion, images),
        ("BatchNorm", "SGD, momentum and L2"): train(nnx.BatchNorm, sgd, images),
    }
    cells = []
    for (norm, name), arrays in runs.items():
        for path, run in arrays.items():
            row, angle = run.predicted, np.sqrt(np.mean(run.angles[-LAST:] ** 2))
            told = not np.isnan(row.angle)
            cells.append(
                (
                    norm, name, path, row.scale_invariant,
                    f"{row.angle:.3g}" if told else "", f"{angle:.3g}",
                    f"{angle / row.angle:.2f}" if told else "",
                    f"{row.settles_in:,.0f}" if told else "",
                    f"{run.norms[0]:.1f} → {np.mean(run.norms[-LAST:]):.1f}",
                )
            )  # fmt: skip
    head = (
        "norm", "optimizer", "array", "scale-invariant", "angle predicted", "measured", "ratio",
        "settles in", "‖w‖ at first and at last",
    )  # fmt: skip
    print(report.markdown(report.Table("", head, cells)))
    scaled = {s: train(nnx.LayerNorm, adamw, images, s)[FIRST] for s in (1 / 3, 3)}
    _draw({1 / 3: scaled[1 / 3], 1: runs["LayerNorm", "AdamW"][FIRST], 3: scaled[3]})


def _draw(scaled: dict[float, Run]) -> None:
    figure, ((left, right),) = plots.subplots(2, height=4.4, width=13.0)
    steps = np.arange(STEPS)
    size = 784 * WIDTH
    settled = RATE * np.sqrt(size / (2 * DECAY))
    colors = plots.BLUE, plots.GREEN, plots.VERMILION
    for (scale, run), color in zip(scaled.items(), colors, strict=True):
        label = f"kernel × {scale:.2g} at the start"
        left.plot(run.norms, color=color, label=label)
        square = settled**2 + (run.norms[0] ** 2 - settled**2) * np.exp(-2 * DECAY * steps)
        left.plot(np.sqrt(square), color=plots.BLACK, linestyle=(0, (1, 2)), linewidth=1.6)
        blocks = np.sqrt(np.mean(run.angles.reshape(-1, 50) ** 2, axis=1))
        right.plot(steps[25::50], blocks, color=color, label=label)
    (run, *_) = scaled.values()
    right.axhline(run.predicted.angle, color=plots.BLACK, linestyle=(0, (1, 2)), linewidth=1.6)
    left.set(
        xlabel="step",
        ylabel="norm of the first kernel",
        title="From wherever it starts, the norm settles …",
        ylim=(0, None),
    )
    right.set(
        xlabel="step",
        ylabel="angle per step, radians",
        title="… and the kernel turns as predicted",
    )
    plots.log_y(right)
    right.legend()
    figure.savefig(FIGURE, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()

"""The members of the family beside AdamW: the time of a training step, and of the update alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.timing import alternate, ratio
from benchmarks.updates import loop
from experiments.harness.report import Table
from experiments.members.members import BASE, MEMBERS, optimizer
from experiments.members.stages import network, training
from experiments.training.classifier import cross_entropy

PIXELS, HIDDEN, BATCH = 784, (256, 128), 128
SETTINGS = {"learning_rate": 1e-3, "weight_decay": 0.1}


def tables() -> list[Table]:
    """Measures everything; about a minute on two cores."""
    module = network(PIXELS, HIDDEN)(rngs=nnx.Rngs(0))
    graph, params = nnx.split(module, nnx.Param)
    params = nnx.as_pure(params)
    key = jax.random.key(0)
    images = jax.random.normal(key, (BATCH, PIXELS))
    labels = jax.random.randint(key, (BATCH,), 0, 10)

    def loss(params: Any) -> jax.Array:
        return cross_entropy(nnx.merge(graph, params)(images), labels)

    made = {
        name: optimizer(each, training(780, HIDDEN), SETTINGS) for name, each in MEMBERS.items()
    }
    grads = jax.grad(loss)(params)
    steps = alternate({name: _steps(tx, params, loss) for name, tx in made.items()}, 31, calls=10)
    updates = alternate({name: loop(tx, params, grads) for name, tx in made.items()}, 31, calls=20)
    rows = [
        [name, *(cell for times in (steps, updates) for cell in _cells(times, name))]
        for name in made
    ]
    return [
        Table(
            f"The members: a step on an MLP {PIXELS}-256-128-10, batch {BATCH}",
            ["", "training step, µs", f"its time / {BASE}'s", "update, µs", f"its time / {BASE}'s"],
            rows,
            "Jitted with donated buffers; the update includes adding it to the parameters. Median; "
            "ratio within a round, median [quartiles].",
        )
    ]


def _cells(times: dict[str, np.ndarray], name: str) -> list[str]:
    return [f"{1e6 * np.median(times[name]):.0f}", ratio(times[name], times[BASE])]


def _steps(tx: optax.GradientTransformation, params: Any, loss: Any) -> Any:
    """A function that makes one more training step at each call, with its own parameters."""

    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1))
    carry = jax.tree.map(jnp.copy, params), tx.init(params)

    def call() -> Any:
        nonlocal carry
        carry = compiled(*carry)
        return carry

    call()
    return call

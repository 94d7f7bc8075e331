"""AdamW's update, ours beside Optax's: jitted, its tracing and compilation, and eager."""

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamw_jax
from benchmarks.timing import alternate, ratio, seconds
from experiments.harness.report import Table

LIBRARIES = {"adamw_jax": adamw_jax, "optax": optax}

# Layer sizes of the parameter trees; every layer has a matrix and a bias.
TREES = {
    "MLP 64-32-10": [64, 32, 10],
    "MLP 784-256-128-10": [784, 256, 128, 10],
    "12 leaves": [784, 256, 128, 64, 32, 10, 10],
    "3 × 2048²": [2048, 2048, 2048, 2048],
}


def tables() -> list[Table]:
    """Measures everything; about two minutes on two cores."""
    return [compiled(), eager()]


def compiled() -> Table:
    """The time of the jitted update and apply, and the time to trace and compile it."""
    rows = []
    for name, widths in TREES.items():
        params, grads = tree(widths)
        built = alternate({name: _compile(name, params, grads) for name in LIBRARIES}, rounds=15)
        large = params["layer0"]["kernel"].size > 1_000_000
        ran = alternate(
            {name: loop(lib.adamw(1e-3), params, grads) for name, lib in LIBRARIES.items()},
            rounds=31 if large else 61,
            calls=5 if large else 50,
        )
        rows.append(
            [
                name,
                *(f"{1e6 * np.median(ran[library]):.0f}" for library in LIBRARIES),
                ratio(ran["adamw_jax"], ran["optax"]),
                *(f"{1e3 * np.median(built[library]):.0f}" for library in LIBRARIES),
                ratio(built["adamw_jax"], built["optax"]),
            ]
        )
    return Table(
        "AdamW: update and apply, jitted with donated buffers; and its tracing and compilation",
        ["tree", "ours, µs", "Optax, µs", "ratio", "ours, ms", "Optax, ms", "ratio"],
        rows,
        "Median time per step in µs, and to trace and compile in ms. Ratio: ours/Optax within a "
        "round, median [quartiles].",
    )


def eager() -> Table:
    """The time, without jit, of the first step of a new optimizer and of later steps."""
    params, grads = tree(TREES["12 leaves"])
    cold = {library: [] for library in LIBRARIES}
    for i in range(5):
        for library in list(LIBRARIES)[:: 1 if i % 2 == 0 else -1]:
            command = [sys.executable, "-m", "benchmarks.updates", library]
            cold[library].append(float(subprocess.check_output(command, text=True)))

    def later(library: str) -> Any:
        tx = LIBRARIES[library].adamw(1e-3)
        state = tx.init(params)
        return lambda: tx.update(grads, state, params)

    measured = {
        "first step in a new process": {name: np.array(times) for name, times in cold.items()},
        "first step of a further optimizer": alternate(
            {name: lambda name=name: _first_step(name, params, grads) for name in LIBRARIES}, 101
        ),
        "later steps": alternate({name: later(name) for name in LIBRARIES}, 31, calls=20),
    }
    return Table(
        "AdamW, eager, on 12 leaves",
        ["", "ours, ms", "Optax, ms", "ratio"],
        [
            [
                name,
                *(f"{1e3 * np.median(times[library]):.2f}" for library in LIBRARIES),
                ratio(times["adamw_jax"], times["optax"]),
            ]
            for name, times in measured.items()
        ],
        "A first step is building the optimizer, `init` and one `update`; a later step is `update` "
        "alone.",
    )


def tree(widths: list[int]) -> tuple[Any, Any]:
    """Parameters of an MLP with these layers, and gradients."""
    keys = jax.random.split(jax.random.key(0), len(widths))
    params = {
        f"layer{i}": {"kernel": jax.random.normal(key, (m, n)), "bias": jnp.zeros(n)}
        for i, (key, m, n) in enumerate(zip(keys, widths, widths[1:], strict=False))
    }
    return params, jax.tree.map(lambda p: 0.1 * p + 0.01, params)


def _step(tx: optax.GradientTransformation) -> Any:
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(0, 1))


def _compile(library: str, params: Any, grads: Any) -> Any:
    tx = LIBRARIES[library].adamw(1e-3)
    state = tx.init(params)

    def call():
        _step(tx).lower(params, state, grads).compile()

    return call


def loop(tx: optax.GradientTransformation, params: Any, grads: Any) -> Any:
    """A function that makes one more update at each call, with its own copy of the parameters."""
    step = _step(tx)
    carry = jax.tree.map(jnp.copy, params), tx.init(params)

    def call():
        nonlocal carry
        carry = step(*carry, grads)
        return carry

    call()
    return call


def _first_step(library: str, params: Any, grads: Any) -> Any:
    tx = LIBRARIES[library].adamw(1e-3)
    return tx.update(grads, tx.init(params), params)


if __name__ == "__main__":
    params, grads = tree(TREES["12 leaves"])
    jax.block_until_ready((params, grads))
    print(seconds(lambda: _first_step(sys.argv[1], params, grads)))

"""The errors of AdamW and RAdam in float32, ours and Optax's, against float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamw_jax
from experiments.harness.report import Table

LIBRARIES = {"adamw_jax": adamw_jax, "optax": optax}
STEPS, SIZE = 3000, 1000
LEARNING_RATE, B1, EPS, WEIGHT_DECAY = 1e-3, 0.9, 1e-8, 0.1


def tables() -> list[Table]:
    """Measures the errors of AdamW and of RAdam."""
    return [_adamw(), _radam()]


def _adamw() -> Table:
    """The error of the first step, and of the parameters after 3,000 steps."""
    draw = np.random.default_rng(0)
    start = draw.normal(size=SIZE).astype(np.float32)
    scale = 10.0 ** draw.uniform(-3, 1, SIZE)
    grads = (scale * draw.normal(0.3, 1, (STEPS, SIZE))).astype(np.float32)
    rows = []
    for b2 in (0.9, 0.999, 0.9999, 0.99999):
        exact = _float64(start, grads, b2)
        runs = {library: _float32(library, start, grads, b2) for library in LIBRARIES}
        rows.append(
            [
                f"{b2:g}",
                *(f"{_first(exact, run):.1e}" for run in runs.values()),
                *(f"{_last(exact, run):.1e}" for run in runs.values()),
            ]
        )
    return Table(
        f"AdamW in float32: largest error over {SIZE:,} parameters",
        ["β₂", "step 1, ours", "step 1, Optax", f"{STEPS:,} steps, ours", "Optax"],
        rows,
        "Step 1: relative error of the direction m̂/(√v̂+ε). "
        f"{STEPS:,} steps: error of the parameters, relative to their range. Reference: "
        "the same float32 gradients in float64 NumPy.",
    )


def _radam() -> Table:
    """The error of the rectified step, which for a constant gradient is α rₜ."""
    rows = []
    for b2 in (0.99, 0.999, 0.9999, 0.99999):
        t = np.arange(1.0, STEPS + 1)
        rho_inf = 2 / (1 - b2) - 1
        rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
        known = np.maximum(rho, 5)  # the square is negative below 4
        square = (known - 4) * (known - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * known)
        exact = np.where(rho > 5, np.sqrt(square), 1)
        runs = [_rectified(library, b2) for library in LIBRARIES]
        firsts = [int(np.argmax(steps < 0.99)) + 1 for steps in (exact, *runs)]
        errors = [f"{np.abs(run / exact - 1).max():.1e}" for run in runs]
        rows.append([f"{b2:g}", *map(str, firsts), *errors])
    return Table(
        "RAdam in float32: its step, which for a constant gradient is α rₜ",
        ["β₂", "first rectified step", "ours", "Optax", "largest error, ours", "Optax"],
        rows,
        f"Relative error over {STEPS:,} steps. Reference: rₜ in float64 NumPy.",
    )


def _rectified(library: str, b2: float) -> np.ndarray:
    tx = LIBRARIES[library].radam(1.0, b2=b2)

    def step(state, gradient):
        update, state = tx.update(gradient, state)
        return state, -update

    steps = jax.jit(lambda s: jax.lax.scan(step, s, jnp.ones(STEPS))[1])(tx.init(jnp.ones([])))
    return np.asarray(steps, np.float64)


def _float64(start: np.ndarray, grads: np.ndarray, b2: float) -> list[np.ndarray]:
    theta, m, v = start.astype(np.float64), 0.0, 0.0
    directions = []
    for t, g in enumerate(grads.astype(np.float64), start=1):
        m = B1 * m + (1 - B1) * g
        v = b2 * v + (1 - b2) * g**2
        directions.append((m / (1 - B1**t)) / (np.sqrt(v / (1 - b2**t)) + EPS))
        theta = theta - LEARNING_RATE * (directions[-1] + WEIGHT_DECAY * theta)
    return [directions[0], theta]


def _float32(library: str, start: np.ndarray, grads: np.ndarray, b2: float) -> list[Any]:
    module, options = LIBRARIES[library], {"b1": B1, "b2": b2, "eps": EPS}
    # With a rate of one and no decay, the update is the direction itself.
    direction = module.adamw(1.0, **options, weight_decay=0.0)
    first, _ = direction.update(jnp.asarray(grads[0]), direction.init(start), jnp.zeros(SIZE))
    tx = module.adamw(LEARNING_RATE, **options, weight_decay=WEIGHT_DECAY)

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        return (optax.apply_updates(params, updates), state), None

    params = jnp.asarray(start)
    (params, _), _ = jax.jit(lambda c, g: jax.lax.scan(step, c, g))(
        (params, tx.init(params)), grads
    )
    return [-np.asarray(first), np.asarray(params)]


def _first(exact: list[np.ndarray], run: list[np.ndarray]) -> float:
    return np.abs(run[0] / exact[0] - 1).max()


def _last(exact: list[np.ndarray], run: list[np.ndarray]) -> float:
    return np.abs(run[1] - exact[1]).max() / np.ptp(exact[1])

"""AdamW's moments in fewer bytes: the time of a step, and the bytes of the state."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamw_jax as aj
from benchmarks.timing import alternate, ratio
from benchmarks.updates import loop, tree
from experiments.harness.report import Table

WIDTHS, BATCH = [784, 512, 256, 10], 128
STOCHASTIC, EIGHT = aj.stochastic_rounding(), aj.blockwise_quantization()
NEAREST = aj.blockwise_quantization(None)
# How m and v are kept.
KEPT: dict[str, tuple[Any, Any]] = {
    "float32": (None, None),
    "bfloat16": ("bfloat16", "bfloat16"),
    "bfloat16, v stochastic": ("bfloat16", STOCHASTIC),
    "bfloat16, both stochastic": (STOCHASTIC, STOCHASTIC),
    "8 bits, to nearest": (NEAREST, NEAREST),
    "8 bits, v stochastic": (NEAREST, EIGHT),
    "8 bits": (EIGHT, EIGHT),
}
WRAPPERS = {
    "bfloat16 parameters": lambda tx: tx,
    "with_master_weights": aj.with_master_weights,
    "with_stochastic_rounding": aj.with_stochastic_rounding,
}


def optimizer(name: str) -> optax.GradientTransformation:
    """AdamW with its moments kept so."""
    mu, nu = KEPT[name]
    return aj.adamw(1e-3, mu_dtype=mu, nu_dtype=nu)


def tables() -> list[Table]:
    """Measures times and bytes."""
    params, grads = tree(WIDTHS)
    moments = {name: (optimizer(name), params, grads) for name in KEPT}
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (params, grads))
    wrapped = {name: (wrap(aj.adamw(1e-3)), *narrow) for name, wrap in WRAPPERS.items()}
    return [
        _times("AdamW's moments", moments),
        _times("AdamW on bfloat16 parameters, with float32 moments", wrapped),
    ]


def _times(title: str, contenders: dict[str, Any]) -> Table:
    """The time of the update alone and of a training step, as ratios to the first contender."""
    updates = alternate({name: loop(*given) for name, given in contenders.items()}, 31, calls=5)
    steps = alternate({name: _training(*given) for name, given in contenders.items()}, 31, calls=5)
    first = next(iter(contenders))

    def row(name):
        tx, params, _ = contenders[name]
        report = aj.memory_report(tx, params)
        shares = [ratio(times[name], times[first]) for times in (updates, steps)]
        taken = [f"{1e3 * np.median(times[name]):.2f}" for times in (updates, steps)]
        each = report.bytes / report.parameters
        return [name, f"{each:.3f}", taken[0], shares[0], taken[1], shares[1]]

    return Table(
        title,
        ["", "bytes of state", "update, ms", "ratio", "training step, ms", "ratio"],
        [row(name) for name in contenders],
        f"MLP {'-'.join(map(str, WIDTHS))}, batch {BATCH}; bytes for each parameter. The update "
        "with its application, and a whole step with forward and backward pass; both jitted, "
        f"buffers donated. Medians; ratio: to {first} within a round, median [quartiles].",
    )


def _training(tx: optax.GradientTransformation, params: Any, grads: Any) -> Any:
    """A function that makes one more training step at each call."""
    del grads
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(BATCH, WIDTHS[0])), jax.tree.leaves(params)[0].dtype)
    labels = jnp.asarray(draw.integers(0, WIDTHS[-1], BATCH))

    def loss(params):
        h = x
        for i, layer in enumerate(params.values()):
            h = jax.nn.relu(h) if i else h
            h = h @ layer["kernel"] + layer["bias"].astype(h.dtype)
        return optax.softmax_cross_entropy_with_integer_labels(h, labels).mean()

    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1))
    carry = jax.tree.map(jnp.copy, params), tx.init(params)

    def call():
        nonlocal carry
        carry = compiled(*carry)
        return carry

    call()
    return call

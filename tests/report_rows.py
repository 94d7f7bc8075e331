"""Reports of a few small parameters, row by row, and the real steps to hold them against."""

import jax
import jax.numpy as jnp
import optax
from transformer import by_path

import adamw_jax as aj

PARAMS = {
    "embed": {"embedding": jnp.linspace(0.5, 2, 6).reshape(3, 2)},
    "layer": {"kernel": jnp.linspace(-2, -0.5, 4).reshape(2, 2), "bias": jnp.ones(2)},
}
HALVED = optax.linear_schedule(1.0, 0.0, 10)


def rows_of(tx, params=PARAMS, **options):
    return {row.path: row for row in aj.decay_report(tx, params, **options).rows}


def taken_away(tx, params, step=0):
    """The fraction 1 − θ'/θ that a real step without a gradient takes away, number by number."""
    zeros, state = jax.tree.map(jnp.zeros_like, params), tx.init(params)
    for _ in range(step + 1):
        updates, state = tx.update(zeros, state, params)
    after = optax.apply_updates(params, updates)
    return by_path(jax.tree.map(lambda old, new: 1 - new / old, params, after))

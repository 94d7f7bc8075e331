"""Which parameters decay: what a mask marks, and what a step moves."""

import jax
import jax.numpy as jnp
from transformer import by_path


def marked(mask, tree):
    """The paths of the parameters that a mask lets decay."""
    return {path for path, mark in by_path(mask(tree)).items() if mark} & set(by_path(tree))


def moved(tx, params):
    """The paths of the parameters that a step without a gradient moves: what decays."""
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    return {path for path, update in by_path(updates).items() if jnp.any(update != 0)}

"""Minimising with Optimistix, which turns an optimizer's closures into pytrees."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adamw_jax as aj

optimistix = pytest.importorskip("optimistix", reason="needs the extra clients")

START = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.zeros(2)}
MASK = {"kernel": True, "bias": False}


def distance(params, target):
    """The square of the distance to a point, in which no number is like another."""
    return sum(jnp.sum((x - target) ** 2) for x in jax.tree.leaves(params))


def minimum(tx, steps=300):
    solver = optimistix.OptaxMinimiser(tx, rtol=1e-6, atol=1e-6)
    solution = optimistix.minimise(distance, solver, START, args=1.0, max_steps=steps, throw=False)
    assert solution.stats["num_steps"] > 50
    return solution.value


DECAY = {"weight_decay": 0.2}
ALIKE = {
    "adamw": lambda lib: lib.adamw(0.05, **DECAY),
    "adamw masked by a tree": lambda lib: lib.adamw(0.05, **DECAY, mask=MASK),
    "adamw masked by rule": lambda lib: lib.adamw(0.05, **DECAY, mask=aj.decay_except()),
    "nadamw scheduled": lambda lib: lib.nadamw(optax.cosine_decay_schedule(0.05, 300)),
}


@pytest.mark.parametrize("make", ALIKE.values(), ids=ALIKE)
def test_finds_the_minimum_that_it_finds_with_optax(make):
    ours, peer = minimum(make(aj)), minimum(make(optax))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), ours, peer)


def is_matrix(tree):
    return jax.tree.map(lambda x: jnp.ndim(x) > 1, tree)


# Optax's own fail with these: a function as a mask, a function for the labels.
CLOSURES = {
    "adamw": lambda: aj.adamw(0.05, **DECAY, mask=is_matrix),
    "per step": lambda: aj.decayed_per_step(aj.adam(0.05), 0.01, mask=aj.decay_only("kernel")),
    "groups": lambda: aj.partition({"kernel": aj.adamw(0.05, **DECAY), "*": aj.adam(0.05)}),
}


@pytest.mark.parametrize("make", CLOSURES.values(), ids=CLOSURES)
def test_masks_that_are_functions_and_groups_work_too(make):
    expected = minimum(optax.adamw(0.05, **DECAY, mask=MASK))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), minimum(make()), expected
    )


def test_a_schedule_that_is_an_object_works_too():
    # The cycle is longer than the run, so that Optax's cosine is the same.
    ours = minimum(aj.adamw(aj.cosine_warm_restarts(1000)))
    peer = minimum(optax.adamw(optax.cosine_decay_schedule(1.0, 1000)))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4), ours, peer)

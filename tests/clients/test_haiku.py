"""Training Haiku networks: parameters in dictionaries of modules, by names with slashes."""

import jax
import jax.numpy as jnp
import optax
import pytest
from curves import OPTIMIZERS, STEPS, X, Y, check_curves

import adamw_jax as aj

hk = pytest.importorskip("haiku", reason="needs the extra clients")


@hk.without_apply_rng
@hk.transform
def network(x):
    x = hk.LayerNorm(axis=-1, create_scale=True, create_offset=True)(hk.Linear(16)(x))
    return hk.Linear(1)(jnp.tanh(x))


def loss_of(params):
    return jnp.mean((network.apply(params, X) - Y) ** 2)


def losses_with(tx):
    @jax.jit
    def step(params, state):
        loss, gradients = jax.value_and_grad(loss_of)(params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    params, losses = network.init(jax.random.key(0), X), []
    state = tx.init(params)
    for _ in range(STEPS):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_network_learns_as_with_optax(make):
    check_curves(losses_with(make(aj)), losses_with(make(optax)))


def test_the_report_knows_the_kinds_by_haikus_names():
    tx = aj.adamw(0.1, weight_decay=0.5, mask=aj.decay_except())
    rows = aj.decay_report(tx, network.init(jax.random.key(0), X)).rows
    assert {row.path: (row.kind, row.decay_per_step > 0) for row in rows} == {
        "layer_norm/offset": ("bias", False),
        "layer_norm/scale": ("scale", False),
        "linear/b": ("bias", False),
        "linear/w": ("weight", True),
        "linear_1/b": ("bias", False),
        "linear_1/w": ("weight", True),
    }

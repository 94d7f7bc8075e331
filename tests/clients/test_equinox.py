"""Training Equinox modules: filtered gradients, a filtered jit, masks by rule."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from curves import OPTIMIZERS, STEPS, X, Y, check_curves

import adamw_jax as aj


def network():
    return eqx.nn.MLP(4, 1, 16, 1, activation=jnp.tanh, key=jax.random.key(0))


@eqx.filter_value_and_grad
def loss_and_gradients(model):
    return jnp.mean((jax.vmap(model)(X) - Y) ** 2)


def train(tx, steps=STEPS):
    """The losses and the trained module."""

    @eqx.filter_jit
    def step(model, state):
        loss, gradients = loss_and_gradients(model)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, state = tx.update(gradients, state, params)
        return eqx.apply_updates(model, updates), state, loss

    model, losses = network(), []
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    for _ in range(steps):
        model, state, loss = step(model, state)
        losses.append(float(loss))
    return losses, model


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_module_learns_as_with_optax(make):
    check_curves(train(make(aj))[0], train(make(optax))[0])


def test_a_mask_by_rule_knows_the_classes_of_the_modules():
    masked, plain = (
        train(aj.adamw(0.1, weight_decay=0.5, mask=mask), steps=1)[1]
        for mask in (aj.decay_except(), aj.decay_except("*"))
    )
    for old, with_decay, without in zip(network().layers, masked.layers, plain.layers, strict=True):
        np.testing.assert_allclose(with_decay.weight, without.weight - 0.05 * old.weight, atol=1e-7)
        np.testing.assert_array_equal(with_decay.bias, without.bias)

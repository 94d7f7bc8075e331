"""`rms_ratio` and `nesterov_lookahead`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamw_jax as aj


def test_eps_stands_outside_the_root_and_eps_root_inside():
    m, v = jnp.float32(2), jnp.float32(9)
    assert aj.rms_ratio(1.0)(m, v) == 2 / (3 + 1)
    assert aj.rms_ratio(1.0, 7.0)(m, v) == 2 / (4 + 1)
    assert aj.rms_ratio(0.0, eps_root=16.0)(m, v) == 2 / 5


def test_eps_bounds_the_ratio_of_nothing():
    assert aj.rms_ratio(1e-8)(jnp.float32(0), jnp.float32(0)) == 0


def test_rms_ratio_of_a_complex_moment_keeps_its_phase():
    ratio = aj.rms_ratio(0.0)(jnp.complex64(3 + 4j), jnp.complex64(25))
    np.testing.assert_allclose(ratio, 0.6 + 0.8j, rtol=1e-6)


def test_eps_root_makes_the_ratio_differentiable_where_nothing_happened():
    def ratio(g, eps_root):
        return aj.rms_ratio(1e-8, eps_root)(g, g * g)

    assert np.isfinite(jax.grad(ratio)(0.0, 1e-10))
    assert not np.isfinite(jax.grad(ratio)(0.0, 0.0))


def test_a_step_of_adam_can_be_differentiated_by_every_hyperparameter():
    params, gradient = jnp.float32([1.0, 2.0]), jnp.float32([0.5, -3.0])

    def moved(numbers):
        tx = aj.adamw(**numbers)
        _, state = tx.update(gradient, tx.init(params), params)
        return jnp.sum(tx.update(2 * gradient, state, params)[0])

    numbers = dict(learning_rate=0.1, b1=0.8, b2=0.9, eps=0.1, eps_root=0.1, weight_decay=0.1)
    gradients = jax.grad(moved)(numbers)
    assert all(np.isfinite(x) and x != 0 for x in gradients.values()), gradients
    for name, derivative in gradients.items():
        with jax.enable_x64(True):
            above, below = (moved({**numbers, name: numbers[name] + h}) for h in (1e-3, -1e-3))
        np.testing.assert_allclose(derivative, (above - below) / 2e-3, rtol=1e-2, err_msg=name)


@pytest.mark.parametrize("b1", [0.25, 0.75, 0, jnp.float32(0.25)], ids=repr)
def test_lookahead_is_one_more_step_of_the_average(b1):
    m, g = jnp.float32([1.0, 2.0]), jnp.float32([3.0, -2.0])
    np.testing.assert_allclose(aj.nesterov_lookahead(b1)(m, g), b1 * m + (1 - b1) * g, rtol=1e-6)

"""How exact the optimizers are: against float64, and against PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from cases import error, problem

import adamw_jax as aj

slow_decay_rates = pytest.mark.parametrize("b2", [0.999, 0.9999, 0.99999])


@slow_decay_rates
@pytest.mark.parametrize("b1", [0.0, 0.9, 0.999])
@pytest.mark.parametrize("make", [aj.adam, aj.adamw])
def test_first_step_is_right_to_one_in_a_million(make, b1, b2):
    # Both corrected moments are the gradient and its square: the step is α sign(g).
    gradient = np.float32([1e-6, -1e-3, 0.1, -3.0, 1e4])
    expected = -(gradient / (np.abs(gradient, dtype=np.float64) + 1e-8))
    tx = make(1.0, b1, b2, 1e-8)
    zeros = jnp.zeros(5)  # nothing to decay
    updates, _ = tx.update(jnp.asarray(gradient), tx.init(zeros), zeros)
    np.testing.assert_allclose(updates, expected, rtol=1e-6)


@slow_decay_rates
def test_first_step_of_array_decay_rates_is_as_exact(b2):
    gradient = np.float32([1e-3, -0.1, 3.0])
    tx = aj.adam(jnp.float32(1), jnp.float32(0.9), jnp.float32(b2), jnp.float32(0))
    updates, _ = tx.update(jnp.asarray(gradient), tx.init(jnp.zeros(3)))
    np.testing.assert_allclose(updates, -np.sign(gradient), rtol=1e-6)


FAMILY = {
    "adam": (aj.adam, reference.adam, {}),
    "adam nesterov": (functools.partial(aj.adam, nesterov=True), reference.nadam, {}),
    "adamw": (functools.partial(aj.adamw, weight_decay=0.1), reference.adamw, {"λ": 1e-4}),
}


@slow_decay_rates
@pytest.mark.parametrize("make, algorithm, decay", FAMILY.values(), ids=FAMILY)
def test_three_thousand_steps_stay_within_two_in_a_hundred_thousand(make, algorithm, decay, b2):
    tx = make(1e-3, b2=b2)
    for seed in range(3):
        quadratics = problem(3000, seed)
        expected = quadratics.reference(algorithm, α=1e-3, β2=b2, **decay)
        assert error(quadratics.descend(tx), expected) < 2e-5


@slow_decay_rates
def test_array_decay_rates_are_exact_for_the_number_that_they_hold(b2):
    b2 = np.float32(b2)
    quadratics = problem(3000)
    expected = quadratics.reference(reference.adam, α=1e-3, β2=np.float64(b2))
    assert error(quadratics.descend(aj.adam(1e-3, b2=jnp.asarray(b2))), expected) < 2e-5


def test_optax_is_further_from_the_reference():
    # Were it not, there would be no need for expm1 and for v + (1−β)(g²−v).
    quadratics = problem(3000)
    expected = quadratics.reference(reference.adam, α=1e-3, β2=0.99999)
    ours, peer = (quadratics.descend(lib.adam(1e-3, b2=0.99999)) for lib in (aj, optax))
    assert error(peer, expected) > 100 * error(ours, expected)


TORCH = {
    "Adam": (aj.adam(1e-2), "Adam", {}),
    "Adam betas": (aj.adam(1e-2, 0.8, 0.99, 1e-3), "Adam", {"betas": (0.8, 0.99), "eps": 1e-3}),
    "Adam with weight_decay": (aj.adam_l2(1e-2, l2=0.1), "Adam", {"weight_decay": 0.1}),
    "AdamW": (aj.adamw(1e-2, weight_decay=0.1), "AdamW", {"weight_decay": 0.1}),
    "AdamW slow": (
        aj.adamw(1e-2, b2=0.99999, weight_decay=1.0),
        "AdamW",
        {"weight_decay": 1.0, "betas": (0.9, 0.99999)},
    ),
}


@pytest.mark.parametrize("tx, name, arguments", TORCH.values(), ids=TORCH)
def test_equals_pytorch_in_float64_over_five_hundred_steps(tx, name, arguments):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    torch.set_num_threads(1)
    quadratics = problem(500)
    expected = {}
    for leaf in quadratics.start:
        trees = quadratics.start, quadratics.slope, quadratics.noise
        start, slope, noise = (torch.from_numpy(tree[leaf].copy()) for tree in trees)
        θ = torch.nn.Parameter(start)
        optimizer = getattr(torch.optim, name)([θ], lr=1e-2, **arguments)
        for t in range(quadratics.steps):
            θ.grad = slope * θ.detach() + noise[t]
            optimizer.step()
        expected[leaf] = θ.detach().numpy()
    with jax.enable_x64(True):
        assert error(quadratics.descend(tx, jnp.float64), expected) < 1e-9

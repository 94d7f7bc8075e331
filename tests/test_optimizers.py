"""The optimizers against the references, Optax and PyTorch."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from cases import CASES, error, mixed_params, problem, walk

import adamw_jax as aj

BETAS = {"β1": 0.8, "β2": 0.99, "ε": 1e-6}
NUMBERS = {"b1": 0.8, "b2": 0.99, "eps": 1e-6}


def warmup(step):
    """A schedule for NumPy and JAX alike."""
    return 1e-2 * (step + 1) / (step + 20)


# What we make, the reference, and its hyperparameters; the decay per step is α·λ in ours.
OPTIMIZERS = {
    "gd": (aj.gd(1e-3), reference.gradient_descent, {"α": 1e-3}),
    "gd scheduled": (aj.gd(warmup), reference.gradient_descent, {"α": warmup}),
    "momentum_gd": (aj.momentum_gd(1e-3, 0.8), reference.momentum, {"α": 1e-3, "β1": 0.8}),
    "momentum_gd nesterov": (
        aj.momentum_gd(1e-3, 0.8, nesterov=True),
        reference.momentum,
        {"α": 1e-3, "β1": 0.8, "nesterov": True},
    ),
    "uncorrected_adam": (
        aj.uncorrected_adam(1e-2, **NUMBERS),
        reference.uncorrected_adam,
        {"α": 1e-2, **BETAS},
    ),
    "adam": (aj.adam(1e-2, **NUMBERS), reference.adam, {"α": 1e-2, **BETAS}),
    "adam defaults": (aj.adam(1e-3), reference.adam, {"α": 1e-3}),
    "adam scheduled": (aj.adam(warmup), reference.adam, {"α": warmup}),
    "adam short memory": (
        aj.adam(1e-2, 0.2, 0.4),
        reference.adam,
        {"α": 1e-2, "β1": 0.2, "β2": 0.4},
    ),
    "adam no momentum": (aj.adam(1e-2, 0), reference.adam, {"α": 1e-2, "β1": 0.0}),
    "adam eps": (aj.adam(1e-2, eps=0.5), reference.adam, {"α": 1e-2, "ε": 0.5}),
    "adam eps_root": (aj.adam(1e-2, eps_root=0.5), reference.adam, {"α": 1e-2, "ε_root": 0.5}),
    "adam nesterov": (
        aj.adam(1e-2, **NUMBERS, nesterov=True),
        reference.nadam,
        {"α": 1e-2, **BETAS},
    ),
    "adam_l2": (
        aj.adam_l2(1e-2, **NUMBERS, l2=0.1),
        reference.adam_l2,
        {"α": 1e-2, "λ": 0.1, **BETAS},
    ),
    "adamw": (
        aj.adamw(1e-2, **NUMBERS, weight_decay=0.1),
        reference.adamw,
        {"α": 1e-2, "λ": 1e-2 * 0.1, **BETAS},
    ),
    "adamw scheduled": (
        aj.adamw(warmup, weight_decay=0.1),
        reference.adamw,
        {"α": 1.0, "λ": 0.1, "η": warmup},
    ),
    "adamw, Algorithm 2": (
        aj.chain(
            aj.parallel(
                aj.chain(aj.momentum(0.8), aj.bias_correction(0.8)),
                aj.chain(aj.second_moment(0.99), aj.bias_correction(0.99)),
                merge=aj.rms_ratio(1e-6),
            ),
            aj.scale_by_learning_rate(1e-2, flip_sign=False),
            aj.decoupled_weight_decay(1e-3),
            aj.scale_by_learning_rate(lambda step: 100 * warmup(step)),
        ),
        reference.adamw,
        {"α": 1e-2, "λ": 1e-3, "η": lambda step: 100 * warmup(step), **BETAS},
    ),
}

every_optimizer = pytest.mark.parametrize(
    "tx, algorithm, hyperparameters", OPTIMIZERS.values(), ids=OPTIMIZERS
)


@every_optimizer
def test_equals_the_reference_over_two_thousand_steps(tx, algorithm, hyperparameters):
    quadratics = problem(2000)
    expected = quadratics.reference(algorithm, **hyperparameters)
    assert error(quadratics.descend(tx), expected) < 2e-5
    with jax.enable_x64(True):
        assert error(quadratics.descend(tx, jnp.float64), expected) < 1e-10


@every_optimizer
def test_equals_the_reference_on_complex_parameters(tx, algorithm, hyperparameters):
    quadratics = problem(200, complex_=True)
    expected = quadratics.reference(algorithm, **hyperparameters)
    assert error(quadratics.descend(tx, jnp.complex64), expected) < 2e-5


WITH_PEERS = pytest.mark.parametrize("case", [case for case in CASES if case.peer], ids=str)


@WITH_PEERS
def test_every_piece_and_optimizer_equals_its_peer_in_optax(case):
    params = mixed_params()
    params = {name: params[name] for name in ("float32", "complex64")}
    updates, _ = walk(case.tx(), params, steps=5)
    expected, _ = walk(case.peer(**case.numbers), params, steps=5)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, expected)
    chex.assert_trees_all_close(updates, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.peer and "learning_rate" in case.numbers], ids=str
)
def test_every_optimizer_equals_optax_over_three_thousand_steps(case):
    quadratics = problem(3000, seed=1)
    rate = {"learning_rate": 2e-3}
    ours, peer = case.tx(**rate), case.peer(**{**case.numbers, **rate})
    with jax.enable_x64(True):
        expected = quadratics.descend(peer, jnp.float64)
        assert error(quadratics.descend(ours, jnp.float64), expected) < 1e-10


def test_nesterov_adam_is_optax_nadam():
    params = mixed_params()["float32"]
    ours, peer = aj.adam(0.1, nesterov=True), optax.nadam(0.1)
    chex.assert_trees_all_close(walk(ours, params)[0], walk(peer, params)[0], rtol=1e-4)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_arguments_and_defaults_are_those_of_optax(name):
    # By position, so that optax.adamw(...) may become adamw(...).
    params = mixed_params()["float32"]
    values = (0.1, 0.7, 0.95, 1e-3, 1e-4, jnp.float32)
    if name == "adamw":
        values += (0.3, lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree))
    for count in range(1, len(values) + 1):
        ours, peer = (getattr(lib, name)(*values[:count]) for lib in (aj, optax))
        chex.assert_trees_all_close(walk(ours, params)[0], walk(peer, params)[0], rtol=1e-4)


def test_momentum_bfloat16_matches_optax():
    params = mixed_params()["float32"]
    ours, peer = (lib.adamw(0.1, mu_dtype=jnp.bfloat16) for lib in (aj, optax))
    chex.assert_trees_all_close(walk(ours, params)[0], walk(peer, params)[0], rtol=1e-2)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=jnp.dtype)
def test_half_precision_adam_is_float32_adam_rounded_once(dtype):
    params = jnp.asarray([1.0, -2.0, 3.0], dtype)
    tx = aj.adam(0.5)
    half, wide = tx.init(params), tx.init(params.astype(jnp.float32))
    for seed in range(5):
        gradient = jnp.asarray(np.random.default_rng(seed).normal(size=3), dtype)
        updates, half = tx.update(gradient, half)
        expected, wide = tx.update(gradient.astype(jnp.float32), wide)
        rtol = float(jnp.finfo(dtype).eps)
        chex.assert_trees_all_close(updates, expected.astype(dtype), rtol=rtol)
        chex.assert_trees_all_close(half, wide, rtol=1e-6)

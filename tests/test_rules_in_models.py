"""Masks by rule in real models: which parameters they pick, whatever library made them."""

import chex
import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decaying import marked, moved
from flax import nnx
from flax.training.train_state import TrainState
from transformer import MODELS, by_path, nnx_module, transformer

import adamw_jax as aj
from adamw_jax.parameters import parameters

every_model = pytest.mark.parametrize("model", MODELS)


def without_zeros(params):
    """The same tree with no zero in it, so that whatever decays can be seen to move."""
    return jax.tree.map(lambda x: x + (x == 0).astype(x.dtype), params)


@every_model
def test_every_kind_is_known_as_a_reader_of_the_model_knows_it(model):
    found = parameters(transformer(model).params)
    assert {p.path: p.kind for p in found if p.is_there} == transformer(model).kinds


@every_model
def test_decay_except_decays_the_kernels_and_nothing_else(model):
    network = transformer(model)
    assert marked(aj.decay_except(), network.params) == network.kernels
    tx = aj.adamw(0.1, weight_decay=0.1, mask=aj.decay_except())
    assert moved(tx, network.params) == network.kernels


def mistaken(model, path, kind):
    """What the usual rule takes for a kernel, more than one axis, and is none."""
    if kind == "embedding":
        return True
    if "stacked" in model:
        return kind != "weight" and path.startswith("blocks")
    return path.endswith(("/query/bias", "/key/bias", "/value/bias"))  # (heads, head size)


@every_model
def test_counting_axes_would_decay_biases_and_norms(model):
    network = transformer(model)
    matrices = {path for path, leaf in by_path(network.params).items() if jnp.ndim(leaf) > 1}
    wrong = {path for path, kind in network.kinds.items() if mistaken(model, path, kind)}
    assert matrices == network.kernels | wrong
    # In a stacked model no parameter of a block, of whatever kind, has one axis.
    assert ("stacked" in model) == all(p in matrices for p in network.kinds if "block" in p)


@pytest.mark.parametrize("stacked", [False, True], ids=["plain", "stacked"])
def test_the_same_mask_fits_the_variables_of_an_nnx_optimizer_and_its_arrays(stacked):
    # nnx.Optimizer calls init with Variables and update with arrays.
    network = nnx_module(stacked)
    before = by_path(nnx.to_pure_dict(nnx.state(network, nnx.Param)))
    rule = aj.path("head/*")
    for mask in aj.decay_except(), aj.decay_except(rule), aj.decay_only(aj.kind("weight")):
        state = nnx.state(network, nnx.Param)
        assert marked(mask, state) == marked(mask, nnx.to_pure_dict(state))
    tx = aj.adamw(0.1, weight_decay=0.5, mask=aj.decay_except())
    optimizer = nnx.Optimizer(network, tx, wrt=nnx.Param)
    zeros = jax.tree.map(jnp.zeros_like, nnx.state(network, nnx.Param))
    nnx.jit(lambda optimizer, network: optimizer.update(network, zeros))(optimizer, network)
    after = by_path(nnx.to_pure_dict(nnx.state(network, nnx.Param)))
    kernels = transformer("NNX stacked" if stacked else "NNX plain").kernels
    for name, old in before.items():
        np.testing.assert_allclose(after[name], (0.95 if name in kernels else 1) * old, rtol=1e-6)


class Partitioned(nn.Module):
    """A layer whose parameters are in boxes that say how they are sharded."""

    box: object

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, kernel_init=self.box(nn.initializers.ones, ("in", "out")))(x)
        return nn.LayerNorm(scale_init=self.box(nn.initializers.ones, ("out",)))(x)


@pytest.mark.parametrize("box", [nn.with_partitioning, nn.with_logical_partitioning])
def test_boxes_around_arrays_are_no_part_of_the_path(box):
    params = Partitioned(box).init(jax.random.key(0), jnp.ones((1, 4)))["params"]
    assert isinstance(params["Dense_0"]["kernel"], nn.Partitioned)
    expected = {
        ("Dense_0/kernel", "weight"),
        ("Dense_0/bias", "bias"),
        ("LayerNorm_0/scale", "scale"),
        ("LayerNorm_0/bias", "bias"),
    }
    assert {(p.path, p.kind) for p in parameters(params)} == expected
    assert parameters(nn.unbox(params)) == parameters(params)
    for mask in aj.decay_except(), aj.decay_only("Dense_?/kernel"):
        tx = aj.adamw(0.1, weight_decay=0.5, mask=mask)
        assert moved(tx, without_zeros(params)) == {"Dense_0/kernel"}


@pytest.mark.parametrize("stacked", [False, True], ids=["plain", "stacked"])
def test_a_linen_train_state_decays_the_kernels(stacked):
    network = transformer("Linen stacked" if stacked else "Linen plain")
    params = network.params
    tx = aj.adamw(0.1, weight_decay=0.5, mask=aj.decay_except())
    state = TrainState.create(apply_fn=network.logits, params=params, tx=tx)
    after = state.apply_gradients(grads=jax.tree.map(jnp.zeros_like, params)).params
    before, after = by_path(params), by_path(after)
    for name, old in before.items():
        factor = 0.95 if name in network.kernels else 1
        np.testing.assert_allclose(after[name], factor * old, rtol=1e-6)


def test_functions_and_numbers_among_the_leaves_of_a_module_do_no_harm():
    # Gradients have None there, but the parameters may be the whole module.
    network = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    gradients = jax.tree.map(
        lambda x: jnp.zeros_like(x) if eqx.is_inexact_array(x) else None, network
    )
    tx = aj.chain(aj.decoupled_weight_decay(0.5, aj.decay_except()), aj.gd(0.1))
    updates, _ = tx.update(gradients, tx.init(network), network)
    decayed = {path for path, update in by_path(updates).items() if jnp.any(update != 0)}
    assert decayed == {"layers/0/weight", "layers/1/weight"}
    chex.assert_trees_all_equal_structs(eqx.apply_updates(network, updates), network)

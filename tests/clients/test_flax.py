"""Training Flax models: an `nnx.Optimizer` loop and a Linen `TrainState` loop."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from curves import OPTIMIZERS, STEPS, X, Y, check_curves
from flax import nnx
from flax.training.train_state import TrainState

import adamw_jax as aj


def is_matrix(tree):
    return jax.tree.map(lambda x: jnp.ndim(x) > 1, tree)


class Network(nnx.Module):
    """A network with normalisation, whose statistics are state but not parameters."""

    def __init__(self, rngs):
        # No bias: the normalisation takes it away, and its gradient is rounding noise,
        # which Adam would scale up to a difference between any two implementations.
        self.hidden = nnx.Linear(4, 16, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.out = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(jnp.tanh(self.norm(self.hidden(x)))))


def squared_error(model, x, y):
    return jnp.mean((model(x) - y) ** 2)


@nnx.jit
def nnx_step(model, optimizer, x, y):
    loss, gradients = nnx.value_and_grad(squared_error)(model, x, y)
    optimizer.update(model, gradients)
    return loss


def train_nnx(tx, steps=STEPS):
    model = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    losses = [float(nnx_step(model, optimizer, X, Y)) for _ in range(steps)]
    assert int(optimizer.step.get_value()) == steps
    return losses, nnx.to_pure_dict(nnx.state(model, nnx.Param))


every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


@every_optimizer
def test_an_nnx_optimizer_loop_learns_as_with_optax(make):
    check_curves(train_nnx(make(aj))[0], train_nnx(make(optax))[0])


def kernels_only(tree):
    """A mask that goes by the names of the parameters."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "kernel" in jax.tree_util.keystr(path), tree
    )


def params_of(model):
    return nnx.state(model, nnx.Param)


NNX_MASKS = {
    "function of leaves": lambda model: is_matrix,
    "function of paths": lambda model: kernels_only,
    "function that sees Variables": lambda model: (
        lambda tree: jax.tree.map(
            lambda x: jnp.ndim(x) > 1, tree, is_leaf=lambda x: isinstance(x, nnx.Variable)
        )
    ),
    "tree of Variables": lambda model: is_matrix(params_of(model)),
    "tree of booleans": lambda model: jax.tree.map(
        lambda x: jnp.ndim(x) > 1, params_of(model), is_leaf=lambda x: isinstance(x, nnx.Variable)
    ),
}


@pytest.mark.parametrize("make_mask", NNX_MASKS.values(), ids=NNX_MASKS)
def test_masks_choose_parameters_under_an_nnx_optimizer(make_mask):
    model = Network(nnx.Rngs(0))
    before = nnx.to_pure_dict(params_of(model))
    tx = aj.adamw(0.1, weight_decay=0.5, mask=make_mask(model))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    zeros = jax.tree.map(jnp.zeros_like, params_of(model))
    optimizer.update(model, zeros)
    after = nnx.to_pure_dict(params_of(model))
    # With no gradient only decay moves. The scales start at one, the biases at zero.
    for layer in "hidden", "out":
        assert np.all(after[layer]["kernel"] != before[layer]["kernel"])
    chex.assert_trees_all_equal(after["norm"], before["norm"])


def test_masks_that_do_not_match_an_nnx_model_name_its_paths():
    model = Network(nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"mask.*'hidden'.*'kernel'"):
        nnx.Optimizer(model, aj.adamw(0.1, mask={"norm": True}), wrt=nnx.Param)


def test_half_precision_nnx_parameters_stay_so_under_an_array_learning_rate():
    model = nnx.Linear(4, 1, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, aj.adamw(jnp.float32(0.01)), wrt=nnx.Param)
    for _ in range(2):
        nnx_step(model, optimizer, X, Y)
    assert {x.dtype for x in jax.tree.leaves(params_of(model))} == {jnp.dtype("bfloat16")}
    dtypes = {x.dtype for x in jax.tree.leaves(optimizer.opt_state)}
    assert dtypes == {jnp.dtype("float32"), jnp.dtype("int32")}


def test_nnx_training_compiles_once():
    model = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, aj.adamw(0.01, mask=is_matrix), wrt=nnx.Param)
    chex.clear_trace_counter()
    step = nnx.jit(chex.assert_max_traces(nnx_step.__wrapped__, 1))
    for _ in range(3):
        step(model, optimizer, X, Y)


def test_nnx_split_and_merge_carries_the_optimizer_through_scan():
    losses, expected = train_nnx(aj.adamw(0.01), steps=5)
    model = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, aj.adamw(0.01), wrt=nnx.Param)
    graph, state = nnx.split((model, optimizer))

    @jax.jit
    def run(state):
        def step(state, _):
            model, optimizer = nnx.merge(graph, state)
            loss = nnx_step.__wrapped__(model, optimizer, X, Y)
            return nnx.state((model, optimizer)), loss

        return jax.lax.scan(step, state, length=5)

    state, scanned = run(state)
    nnx.update((model, optimizer), state)
    np.testing.assert_allclose(scanned, losses, rtol=1e-4)
    got = nnx.to_pure_dict(params_of(model))
    chex.assert_trees_all_close(got, expected, rtol=1e-3, atol=1e-4)


class LinenNetwork(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = jnp.tanh(nn.LayerNorm()(nn.Dense(16)(x)))
        return nn.Dense(1)(x)


@jax.jit
def linen_step(state, x, y):
    def loss(params):
        return jnp.mean((state.apply_fn({"params": params}, x) - y) ** 2)

    value, gradients = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(grads=gradients), value


def train_linen(tx):
    model = LinenNetwork()
    params = model.init(jax.random.key(0), X)["params"]
    state, losses = TrainState.create(apply_fn=model.apply, params=params, tx=tx), []
    for _ in range(STEPS):
        state, loss = linen_step(state, X, Y)
        losses.append(float(loss))
    assert int(state.step) == STEPS
    return losses


@every_optimizer
def test_a_linen_train_state_loop_learns_as_with_optax(make):
    check_curves(train_linen(make(aj)), train_linen(make(optax)))


@pytest.mark.parametrize("as_function", [False, True])
def test_masks_choose_parameters_in_a_linen_train_state(as_function):
    model = LinenNetwork()
    params = model.init(jax.random.key(0), X)["params"]
    mask = is_matrix if as_function else is_matrix(params)
    tx = aj.adamw(0.1, weight_decay=0.5, mask=mask)
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)
    after = state.apply_gradients(grads=jax.tree.map(jnp.zeros_like, params)).params
    chex.assert_trees_all_equal(after["LayerNorm_0"], params["LayerNorm_0"])
    for layer in "Dense_0", "Dense_1":
        expected = 0.95 * params[layer]["kernel"]
        np.testing.assert_allclose(after[layer]["kernel"], expected, rtol=1e-6)

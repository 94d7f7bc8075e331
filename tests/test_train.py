import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

import adamw_jax
from experiments.harness import data
from experiments.training.classifier import classifier_run
from experiments.training.loop import permutation
from experiments.training.models import CNN, MLP

WIDTHS = (64, 16, 10)
OPTIMIZERS = {
    "adam": lambda h: adamw_jax.adam(h["learning_rate"]),
    "adam_l2": lambda h: adamw_jax.adam_l2(h["learning_rate"], l2=h["weight_decay"]),
    "adamw": lambda h: adamw_jax.adamw(h["learning_rate"], weight_decay=h["weight_decay"]),
}


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", 0.2)


@functools.cache  # and with it what JAX compiles of its functions
def pair(name="adamw", batch_size=64, epochs=1, evaluations=1):
    network = functools.partial(MLP, WIDTHS)
    return classifier_run(OPTIMIZERS[name], network, batch_size, epochs, evaluations)


def hyperparameters(learning_rate=1e-2, weight_decay=0.1):
    return {
        "learning_rate": jnp.float32(learning_rate),
        "weight_decay": jnp.float32(weight_decay),
    }


def trained(run, digits, epochs=3, seed=0, **changed):
    start, advance = jax.jit(run.start), jax.jit(run.advance)
    state, history = start(hyperparameters(**changed), jax.random.key(seed), digits), []
    for _ in range(epochs):
        state, metrics = advance(state, digits)
        history.append(metrics)
    return state, history


def test_training_learns_the_digits(digits):
    _, history = trained(pair(), digits, epochs=15)
    assert history[-1].train_loss < history[0].train_loss / 5
    assert history[-1].test_accuracy > 0.9 and history[-1].validation_accuracy > 0.9


def test_an_epoch_is_the_loop_that_one_would_write(digits):
    """The scan equals an nnx.Optimizer loop over the same batches."""
    batch_size, key = 128, jax.random.key(3)
    run = pair(batch_size=batch_size)
    state, metrics = run.advance(run.start(hyperparameters(), key, digits), digits)

    key, init_key = jax.random.split(key)
    model = MLP(WIDTHS, rngs=nnx.Rngs(init_key))
    optimizer = nnx.Optimizer(model, adamw_jax.adamw(1e-2, weight_decay=0.1), wrt=nnx.Param)
    order = permutation(jax.random.split(key)[1], len(digits.train.labels))

    @nnx.jit
    def step(model, optimizer, images, labels):
        def loss(model):
            one_hot = jax.nn.one_hot(labels, 10)
            return -(one_hot * jax.nn.log_softmax(model(images))).sum(-1).mean()

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    losses = []
    for i in range(len(order) // batch_size):
        batch = order[i * batch_size : (i + 1) * batch_size]
        losses.append(
            step(model, optimizer, digits.train.images[batch], digits.train.labels[batch])
        )
    expected = nnx.as_pure(nnx.state(model, nnx.Param))
    chex.assert_trees_all_close(state.params, expected, rtol=2e-4, atol=2e-6)
    np.testing.assert_allclose(metrics.train_loss, np.mean(losses), rtol=1e-5)
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(expected)]
    norm = np.linalg.norm(np.concatenate(leaves))
    np.testing.assert_allclose(metrics.weight_norm, norm, rtol=1e-4)
    accuracy = np.mean(np.argmax(model(digits.test.images), -1) == digits.test.labels)
    np.testing.assert_allclose(metrics.test_accuracy, accuracy, atol=0.005)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_compilation_serves_every_decay_and_seed(name, digits):
    chex.clear_trace_counter()  # which goes by the function's name
    run = pair(name)
    start = jax.jit(chex.assert_max_traces(run.start, n=1))
    advance = jax.jit(chex.assert_max_traces(run.advance, n=1))
    norms = []
    for seed, decay in enumerate([0.0, 0.1, 1.0]):
        state = start(hyperparameters(weight_decay=decay), jax.random.key(seed), digits)
        for _ in range(2):
            state, metrics = advance(state, digits)
        norms.append(float(metrics.weight_norm))
    assert len(set(norms)) == 3


def test_the_pair_maps_over_hyperparameters_and_seeds(digits):
    run = pair()
    decays, seeds = jnp.array([0.0, 0.1, 10.0]), jnp.arange(3)
    together = {"learning_rate": jnp.full(3, 1e-2), "weight_decay": decays}
    states = jax.vmap(run.start, (0, 0, None))(together, jax.vmap(jax.random.key)(seeds), digits)
    _, metrics = jax.jit(jax.vmap(run.advance, (0, None)))(states, digits)
    for i in range(3):
        _, (alone,) = trained(run, digits, 1, seed=int(seeds[i]), weight_decay=float(decays[i]))
        chex.assert_trees_all_close(
            jax.tree.map(lambda m, i=i: m[i], metrics), alone, rtol=2e-3, atol=2e-3
        )


def test_weight_decay_shrinks_the_weights_and_adam_ignores_it(digits):
    def norm(name, decay):
        return float(trained(pair(name), digits, weight_decay=decay)[1][-1].weight_norm)

    assert norm("adam", 0.0) == norm("adam", 1.0)
    assert norm("adamw", 1.0) < norm("adamw", 0.0) == pytest.approx(norm("adam", 0.0), rel=1e-5)
    assert norm("adam_l2", 0.1) < norm("adam_l2", 0.0)


def test_epochs_between_evaluations_are_the_same_epochs(digits):
    every, seldom = pair(epochs=4, evaluations=4), pair(epochs=4, evaluations=2)
    assert (every.length, seldom.length) == (4, 2)
    _, each = trained(every, digits, 4)
    _, second = trained(seldom, digits, 2)
    chex.assert_trees_all_close(second, each[1::2], rtol=1e-5)
    with pytest.raises(ValueError, match="3 evaluations do not divide 4 epochs"):
        pair(epochs=4, evaluations=3)


@pytest.mark.parametrize("n", [1, 2, 3, 64, 65, 50_000])
def test_the_shuffle_is_a_permutation(n):
    np.testing.assert_array_equal(np.sort(permutation(jax.random.key(n), n)), np.arange(n))


def test_every_order_is_as_likely():
    keys = jax.random.split(jax.random.key(0), 48_000)
    orders = np.asarray(jax.vmap(lambda key: permutation(key, 4))(keys))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 0.01


def test_the_cnn_learns_the_digits(digits):
    network = functools.partial(CNN, 8, (8, 8), 16, 10)
    run = classifier_run(OPTIMIZERS["adamw"], network, 64, epochs=8, evaluations=1)
    _, (metrics,) = trained(run, digits, 1, learning_rate=3e-3)
    assert metrics.test_accuracy > 0.85

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
from experiments.harness.settings import SettingsError
from experiments.training.classifier import classifier_run
from experiments.training.loop import minibatches, permutation, steps_per_epoch
from experiments.training.models import CNN, MLP

WIDTHS = (64, 16, 10)


@pytest.fixture(scope="module")
def digits():
    """The first 256 images of every split."""
    return data.Data(*(data.Split(*(x[:256] for x in s)) for s in data.load("digits", 0.2)))


def adamw(h):
    return adamw_jax.adamw(h["learning_rate"], weight_decay=h["weight_decay"])


@functools.cache  # so that the tests share compilations
def pair(network=MLP, sizes=(WIDTHS,), epochs=1, evaluations=1):
    run = classifier_run(adamw, functools.partial(network, *sizes), 64, epochs, evaluations)
    return run._replace(start=jax.jit(run.start), advance=jax.jit(run.advance))


def hyperparameters(learning_rate=1e-2, weight_decay=0.1):
    return {
        "learning_rate": jnp.float32(learning_rate),
        "weight_decay": jnp.float32(weight_decay),
    }


def trained(run, digits, advances, seed=0, **changed):
    state, history = run.start(hyperparameters(**changed), jax.random.key(seed), digits), []
    for _ in range(advances):
        state, metrics = run.advance(state, digits)
        history.append(metrics)
    return state, history


@pytest.mark.parametrize(
    ("network", "sizes"), [(MLP, (WIDTHS,)), (CNN, (8, (8, 8), 16, 10))], ids=["mlp", "cnn"]
)
def test_training_learns_the_digits(network, sizes, digits):
    _, history = trained(pair(network, sizes), digits, 30)
    assert history[-1].train_loss < history[0].train_loss / 5
    assert history[-1].test_accuracy > 0.8 and history[-1].validation_accuracy > 0.8


def test_an_epoch_is_the_loop_that_one_would_write(digits):
    """The scan equals an nnx.Optimizer loop over the same batches."""
    run, key = pair(), jax.random.key(3)
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

    losses = [
        step(model, optimizer, digits.train.images[batch], digits.train.labels[batch])
        for batch in order.reshape(-1, 64)
    ]
    expected = nnx.as_pure(nnx.state(model, nnx.Param))
    chex.assert_trees_all_close(state.params, expected, rtol=2e-4, atol=2e-6)
    np.testing.assert_allclose(metrics.train_loss, np.mean(losses), rtol=1e-5)
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(expected)]
    norm = np.linalg.norm(np.concatenate(leaves))
    np.testing.assert_allclose(metrics.weight_norm, norm, rtol=1e-4)
    accuracy = np.mean(np.argmax(model(digits.test.images), -1) == digits.test.labels)
    np.testing.assert_allclose(metrics.test_accuracy, accuracy, atol=0.005)


def test_one_compilation_serves_every_decay_and_seed(digits, compilations):
    norms = []
    for seed, decay in enumerate([0.0, 0.1, 10.0]):
        norms.append(float(trained(pair(), digits, 2, seed, weight_decay=decay)[1][-1].weight_norm))
        if seed == 0:
            compilations.clear()
    assert norms[2] < 0.9 * norms[0] and len(set(norms)) == 3 and not compilations


def test_the_pair_maps_over_hyperparameters_and_seeds(digits):
    run = pair()
    decays, keys = jnp.array([0.0, 0.1, 10.0]), jax.random.split(jax.random.key(0), 3)
    together = {"learning_rate": jnp.full(3, 1e-2), "weight_decay": decays}
    states = jax.jit(jax.vmap(run.start, (0, 0, None)))(together, keys, digits)
    _, metrics = jax.jit(jax.vmap(run.advance, (0, None)))(states, digits)
    for i in range(3):
        state = run.start(hyperparameters(weight_decay=decays[i]), keys[i], digits)
        lane = jax.tree.map(lambda m, i=i: m[i], metrics)
        chex.assert_trees_all_close(lane, run.advance(state, digits)[1], rtol=2e-3, atol=2e-3)


def test_epochs_between_evaluations_are_the_same_epochs(digits):
    seldom = pair(epochs=4, evaluations=2)
    assert (classifier_run(adamw, lambda rngs: MLP(WIDTHS, rngs=rngs), 64, 4).length) == 4
    assert seldom.length == 2
    _, each = trained(pair(), digits, 4)
    _, second = trained(seldom, digits, 2)
    chex.assert_trees_all_close(second, each[1::2], rtol=1e-5)
    with pytest.raises(ValueError, match="3 evaluations do not divide 4 epochs"):
        pair(epochs=4, evaluations=3)


@pytest.mark.parametrize("n", [1, 2, 65, 50_000])
def test_the_shuffle_is_a_permutation(n):
    order = jax.jit(permutation, static_argnums=1)(jax.random.key(n), n)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


def test_every_order_is_as_likely():
    keys = jax.random.split(jax.random.key(0), 48_000)
    orders = np.asarray(jax.jit(jax.vmap(lambda key: permutation(key, 4)))(keys))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 0.01


def test_images_that_fill_no_batch_are_left_out():
    batches = minibatches(jax.random.key(0), 10, 4)
    assert batches.shape == (2, 4) and len(np.unique(batches)) == 8
    assert steps_per_epoch(10, 4) == 2
    with pytest.raises(SettingsError, match="batch_size = 11 is more than the 10 training images"):
        steps_per_epoch(10, 11)

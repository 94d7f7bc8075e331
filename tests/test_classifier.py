import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import adamw_jax
from adamw_jax.sweep.examples import permutation
from experiments.harness import data
from experiments.harness.settings import SettingsError
from experiments.training.calibration import temperature
from experiments.training.classifier import classifier_run, cross_entropy
from experiments.training.loop import steps_per_epoch
from experiments.training.models import CNN, MLP
from experiments.training.sample import Sample, draw

WIDTHS, SIZE = (64, 16, 10), Sample(train=256, validation=192)


@pytest.fixture(scope="module")
def digits():
    """The first 512 images of each split."""
    return data.Data(*(data.Split(*(x[:512] for x in split)) for split in data.load("digits")))


def adamw(h):
    return adamw_jax.adamw(h["learning_rate"], weight_decay=h["weight_decay"])


@functools.cache  # so that the tests share compilations
def pair(network=MLP, sizes=(WIDTHS,), size=SIZE, batch_size=64, epochs=1, evaluations=1):
    made = functools.partial(network, *sizes)
    run = classifier_run(adamw, made, size, batch_size, epochs, evaluations)
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
    assert history[-1]["train_loss"] < history[0]["train_loss"] / 5
    assert history[-1]["test_accuracy"] > 0.8 and history[-1]["validation_accuracy"] > 0.8


def test_an_epoch_is_the_loop_that_one_would_write(digits):
    """The scan equals an nnx.Optimizer loop over the same batches."""
    run, key = pair(), jax.random.key(3)
    state, metrics = run.advance(run.start(hyperparameters(), key, digits), digits)

    key, draw_key = jax.random.split(key)
    train, labels, held_out = draw(SIZE, draw_key, digits.train.labels)
    key, init_key = jax.random.split(key)
    model = MLP(WIDTHS, rngs=nnx.Rngs(init_key))
    optimizer = nnx.Optimizer(model, adamw_jax.adamw(1e-2, weight_decay=0.1), wrt=nnx.Param)
    order = permutation(jax.random.split(key)[1], SIZE.train)

    @nnx.jit
    def step(model, optimizer, images, labels):
        def loss(model):
            one_hot = jax.nn.one_hot(labels, 10)
            return -(one_hot * jax.nn.log_softmax(model(images))).sum(-1).mean()

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    losses = [
        step(model, optimizer, digits.train.images[train[batch]], labels[batch])
        for batch in order.reshape(-1, 64)
    ]
    expected = nnx.as_pure(nnx.state(model, nnx.Param))
    chex.assert_trees_all_close(state.params, expected, rtol=2e-4, atol=2e-6)
    np.testing.assert_allclose(metrics["train_loss"], np.mean(losses), rtol=1e-5)
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(expected)]
    norm = np.linalg.norm(np.concatenate(leaves))
    np.testing.assert_allclose(metrics["weight_norm"], norm, rtol=1e-4)
    validation = data.Split(*(x[held_out] for x in digits.train))
    fitted = temperature(model(validation.images), validation.labels)
    np.testing.assert_allclose(metrics["temperature"], fitted, rtol=1e-3)
    for name, (images, labels) in {"validation": validation, "test": digits.test}.items():
        logits = model(images)
        for metric, value in {
            "loss": cross_entropy(logits, labels),
            "calibrated_loss": cross_entropy(logits / fitted, labels),
            "accuracy": np.mean(np.argmax(logits, -1) == labels),
        }.items():
            found = metrics[f"{name}_{metric}"]
            np.testing.assert_allclose(found, value, rtol=1e-3, atol=0.006, err_msg=metric)


def test_one_compilation_serves_every_decay_and_seed(digits, compilations):
    norms = []
    for seed, decay in enumerate([0.0, 0.1, 10.0]):
        norms.append(
            float(trained(pair(), digits, 2, seed, weight_decay=decay)[1][-1]["weight_norm"])
        )
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
        lane = jax.tree.map(lambda x, i=i: x[i], metrics)
        assert states.draw_key[i] == state.draw_key
        chex.assert_trees_all_close(lane, run.advance(state, digits)[1], rtol=2e-3, atol=2e-3)


class Fixed(nnx.Module):
    """A network whose weights are the same for every seed."""

    def __init__(self, *, rngs):
        self.kernel = nnx.Param(jax.random.normal(jax.random.key(0), (64, 10)) / 8)

    def __call__(self, images):
        return images @ self.kernel[...]


def test_a_seed_decides_what_a_run_sees_and_an_arm_does_not(digits):
    """No weight moves, so the losses tell which images there are, and which fill no batch."""
    size = Sample(train=256, validation=64, wrong=100)
    run = pair(Fixed, (), size, batch_size=100)

    def seen(seed, **changed):
        return trained(run, digits, 3, seed, learning_rate=1e-30, **changed)

    state, history = seen(0)
    other_arm, same = seen(0, weight_decay=10.0)
    assert other_arm.draw_key == state.draw_key
    chex.assert_trees_all_equal(same, history)
    assert len({float(m["train_loss"]) for m in history}) == 3  # every epoch has another order

    other_state, other = seen(1)
    drawn = [draw(size, each.draw_key, digits.train.labels) for each in (state, other_state)]
    for a, b in zip(*drawn, strict=True):
        assert (a != b).mean() > 0.5
    for metric in ("train_loss", "validation_loss", "temperature"):
        assert other[0][metric] != history[0][metric]
    assert other[0]["test_loss"] == history[0]["test_loss"]


def test_a_run_is_trained_on_the_labels_that_it_drew_and_validated_on_the_right_ones(digits):
    run = pair(Fixed, (), SIZE._replace(wrong=100))
    state, (metrics,) = trained(run, digits, 1, learning_rate=1e-30)
    size = SIZE._replace(wrong=100)
    train, labels, held_out = draw(size, state.draw_key, digits.train.labels)
    assert (labels != digits.train.labels[train]).sum() == 100

    def loss(images, labels):
        return float(cross_entropy(digits.train.images[images] @ state.params["kernel"], labels))

    assert metrics["train_loss"] == pytest.approx(loss(train, labels), rel=1e-5)
    right = loss(held_out, digits.train.labels[held_out])
    assert metrics["validation_loss"] == pytest.approx(right, rel=1e-5)


def test_without_validation_images_what_needs_them_is_nan(digits):
    _, (metrics,) = trained(pair(size=Sample(64)), digits, 1)
    finite = {name for name, value in metrics.items() if np.isfinite(value)}
    assert finite == {"train_loss", "test_loss", "test_accuracy", "weight_norm"}


def test_epochs_between_evaluations_are_the_same_epochs(digits):
    seldom = pair(epochs=4, evaluations=2)
    assert classifier_run(adamw, functools.partial(MLP, WIDTHS), SIZE, 64, 4).length == 4
    assert seldom.length == 2
    _, each = trained(pair(), digits, 4)
    _, second = trained(seldom, digits, 2)
    chex.assert_trees_all_close(second, each[1::2], rtol=1e-5)
    with pytest.raises(ValueError, match="3 evaluations do not divide 4 epochs"):
        pair(epochs=4, evaluations=3)


def test_a_batch_is_at_most_all_images():
    assert steps_per_epoch(10, 4) == 2
    with pytest.raises(SettingsError, match="batch_size = 11 is more than the 10 training images"):
        steps_per_epoch(10, 11)

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
from experiments.training.autoencoder import (
    OPTIMIZERS,
    VAE,
    autoencoder_run,
    grey,
    negative_elbo,
)

HIDDEN, LATENT, BATCH = 16, 4, 64


@pytest.fixture(scope="module")
def images():
    return grey(data.load("digits").train.images)[:512]


@pytest.fixture(scope="module")
def split(images):
    return {"train": images}


def hyperparameters(learning_rate=1e-3, b1=0.9, b2=0.999):
    numbers = {"learning_rate": learning_rate, "b1": b1, "b2": b2}
    return {name: jnp.float32(value) for name, value in numbers.items()}


@functools.cache  # so that the tests share compilations
def pair(name="adam"):
    return autoencoder_run(OPTIMIZERS[name], 64, HIDDEN, LATENT, BATCH, epochs=3)


def losses(run, images, seed=0, **changed):
    start, advance = jax.jit(run.start), jax.jit(run.advance)
    state, history = start(hyperparameters(**changed), jax.random.key(seed), {"train": images}), []
    for _ in range(run.length):
        state, metrics = advance(state, {"train": images})
        history.append(float(metrics["train_loss"]))
    return history


@nnx.jit(static_argnums=0)
def network(pixels, key):
    return VAE(pixels, HIDDEN, LATENT, rngs=nnx.Rngs(key))


def reference(vae, x, noise):
    """The negative ELBO in float64, from the densities themselves."""

    def linear(layer, x):
        return x @ np.float64(layer.kernel[...]) + np.float64(layer.bias[...])

    def softplus(x):
        return np.log(1 + np.exp(x))

    x, noise = np.float64(x), np.float64(noise)
    h = softplus(linear(vae.encoder, x))
    mean, variance = linear(vae.mean, h), np.exp(linear(vae.log_variance, h))
    z = mean + np.sqrt(variance) * noise
    p = 1 / (1 + np.exp(-linear(vae.logits, softplus(linear(vae.decoder, z)))))
    likelihood = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum(-1)
    return -likelihood - 0.5 * (1 + np.log(variance) - mean**2 - variance).sum(-1)


def test_the_loss_is_the_negative_elbo(images):
    vae = network(64, jax.random.key(1))
    # Away from the biases' zeros, and from σ² = 1.
    vae.log_variance.bias[...] += jnp.linspace(-3, 1, LATENT)
    noise = jax.random.normal(jax.random.key(2), (32, LATENT))
    loss = nnx.jit(negative_elbo)(vae, images[:32], noise)
    np.testing.assert_allclose(loss, reference(vae, images[:32], noise), rtol=2e-6)


def test_grey_images_are_those_of_the_data_set(images):
    from sklearn.datasets import load_digits

    raw = {tuple(row) for row in load_digits().data}
    assert all(tuple(row) in raw for row in np.round(np.float64(images) * 16, 4))
    assert images.min() == 0 and images.max() == 1 and images.dtype == jnp.float32


def test_an_epoch_is_the_loop_that_one_would_write(images, split):
    run, key = pair(), jax.random.key(3)
    start, advance = jax.jit(run.start), jax.jit(run.advance)
    state, metrics = advance(start(hyperparameters(), key, split), split)

    key, init_key = jax.random.split(key)
    vae = network(64, init_key)
    optimizer = nnx.Optimizer(vae, adamw_jax.adam(1e-3), wrt=nnx.Param)
    order = permutation(jax.random.split(key)[1], len(images))

    @nnx.jit
    def step(vae, optimizer, images):
        noise = vae.noise(BATCH)
        grads = nnx.grad(lambda vae: negative_elbo(vae, images, noise).mean())(vae)
        optimizer.update(vae, grads)
        return noise

    values = []
    for batch in order.reshape(-1, BATCH):
        before = nnx.clone(vae)
        noise = step(vae, optimizer, images[batch])
        values.append(reference(before, images[batch], noise).mean())
    np.testing.assert_allclose(metrics["train_loss"], np.mean(values), rtol=1e-6)
    expected = nnx.as_pure(nnx.state(vae, nnx.Param))
    chex.assert_trees_all_close(state.params, expected, rtol=1e-4, atol=2e-6)


def test_it_learns(images):
    first, _, last = losses(pair(), images, learning_rate=1e-2)
    assert last < 0.8 * first


@pytest.mark.slow
def test_without_correction_a_large_rate_throws_it_far_off(images):
    corrected, uncorrected = (
        losses(pair(name), images, learning_rate=0.03, b1=0.0, b2=0.9999) for name in OPTIMIZERS
    )
    assert max(corrected) < 60 < 200 < max(uncorrected)


def test_numbers_and_images_are_data(images, split, compilations):
    run, found = pair(), set()
    scaled = images / 2
    for seed, (b1, x) in enumerate([(0.0, images), (0.9, images), (0.9, scaled)]):
        found.add(losses(run, x, seed, b1=b1)[0])
        if seed == 0:
            compilations.clear()
    assert len(found) == 3 and not compilations
    state = jax.eval_shape(run.start, hyperparameters(), jax.random.key(0), split)
    assert not any(np.size(c) > 1 for c in jax.make_jaxpr(run.advance)(state, split).consts)


def test_the_pair_maps_over_hyperparameters_and_seeds(images, split):
    run = pair()
    rows = [(1e-4, 0.0, 0.99), (1e-3, 0.9, 0.999), (1e-2, 0.9, 0.9999)]
    together = jax.tree.map(lambda *x: jnp.stack(x), *[hyperparameters(*row) for row in rows])
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    states = jax.jit(jax.vmap(run.start, (0, 0, None)))(together, keys, split)
    _, metrics = jax.jit(jax.vmap(run.advance, (0, None)))(states, split)
    alone = [losses(run._replace(length=1), images, i, **hyperparameters(*row))
             for i, row in enumerate(rows)]  # fmt: skip
    np.testing.assert_allclose(metrics["train_loss"], np.ravel(alone), rtol=1e-3)

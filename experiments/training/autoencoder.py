"""Training of a variational autoencoder, the problem that Adam's bias correction was tried on.

The network of arXiv 1412.6980, §6.4 (softplus units), which has the form of arXiv 1312.6114,
App. C: encoder and decoder of one hidden layer each,

    q(z|x) = N(μ(x), σ²(x)),   p(z) = N(0, 1),   p(x|z) = Bernoulli(sigmoid(decoder(z))).

The loss is the negative evidence lower bound (ELBO), with a single sample z = μ + σ·noise.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from adamw_jax import GradientTransformation, adam, uncorrected_adam
from adamw_jax.sweep import Run
from experiments.training.classifier import Hyperparameters, State, permutation

OPTIMIZERS: dict[str, Callable[[Hyperparameters], GradientTransformation]] = {
    "adam": lambda h: adam(h["learning_rate"], h["b1"], h["b2"]),
    "uncorrected_adam": lambda h: uncorrected_adam(h["learning_rate"], h["b1"], h["b2"]),
}


class Metrics(NamedTuple):
    """Measured over an epoch.

    Attributes:
      train_loss: mean negative ELBO of an image in nats, each minibatch before its step,
        float32 scalar.
    """

    train_loss: jax.Array


class VAE(nnx.Module):
    """A variational autoencoder with softplus units.

    Args:
      pixels: size of an image.
      hidden: width of the hidden layer of encoder and decoder; 500 in the paper.
      latent: size of the code; 50 in the paper.
      rngs: the source of the initial weights (LeCun normal; biases are 0).
    """

    def __init__(self, pixels: int, hidden: int, latent: int, *, rngs: nnx.Rngs):
        self.encoder = nnx.Linear(pixels, hidden, rngs=rngs)
        self.mean = nnx.Linear(hidden, latent, rngs=rngs)
        self.log_variance = nnx.Linear(hidden, latent, rngs=rngs)
        self.decoder = nnx.Linear(latent, hidden, rngs=rngs)
        self.logits = nnx.Linear(hidden, pixels, rngs=rngs)

    def encode(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps float[..., pixels] to μ and log σ², float[..., latent]."""
        h = nnx.softplus(self.encoder(images))
        return self.mean(h), self.log_variance(h)

    def decode(self, z: jax.Array) -> jax.Array:
        """Maps float[..., latent] to the pixels' logits, float[..., pixels]."""
        return self.logits(nnx.softplus(self.decoder(z)))


def negative_elbo(vae: VAE, images: jax.Array, noise: jax.Array) -> jax.Array:
    """−log p(x|z) + KL(q(z|x) ‖ p(z)) of each image, in nats.

    The KL is exact: ½ Σ (μ² + σ² − 1 − log σ²). Source: arXiv 1312.6114, eq. 10. Grey pixels
    enter the Bernoulli likelihood as they are, as is usual.

    Args:
      vae: the network.
      images: float[..., pixels] in [0, 1].
      noise: float[..., latent], standard normal.

    Returns:
      float[...].
    """
    mean, log_variance = vae.encode(images)
    logits = vae.decode(mean + jnp.exp(log_variance / 2) * noise)
    reconstruction = optax.sigmoid_binary_cross_entropy(logits, images).sum(-1)
    # expm1: no digits are lost at σ² ≈ 1, where training begins.
    kl = 0.5 * (mean**2 + jnp.expm1(log_variance) - log_variance).sum(-1)
    return reconstruction + kl


def grey(standardized: jax.Array) -> jax.Array:
    """Undoes the standardization of `data.load`: float32[n, pixels] in [0, 1], black at 0."""
    low, high = standardized.min(), standardized.max()
    return (standardized - low) / (high - low)


def autoencoder(
    optimizer: Callable[[Hyperparameters], GradientTransformation],
    hidden: int,
    latent: int,
    batch_size: int,
    epochs: int,
) -> Run:
    """Training on minibatches, shuffled anew for every epoch; its metrics are `Metrics`.

    The data is float32[n, pixels], images in [0, 1]. An epoch is ⌊n / batch_size⌋ steps.

    Args:
      optimizer: builds the optimizer from the hyperparameters, see `OPTIMIZERS`.
      hidden: as in `VAE`.
      latent: as in `VAE`.
      batch_size: images in a step, at most n.
      epochs: how many; an advance is one.
    """

    def network(data, seed):
        return VAE(data.shape[1], hidden, latent, rngs=nnx.Rngs(seed))

    def start(hyperparameters: Hyperparameters, key: jax.Array, data: Any) -> State:
        key, init_key = jax.random.split(key)
        params = nnx.as_pure(nnx.state(network(data, init_key), nnx.Param))
        return State(hyperparameters, key, params, optimizer(hyperparameters).init(params))

    def advance(state: State, data: Any) -> tuple[State, Metrics]:
        tx = optimizer(state.hyperparameters)
        graph = nnx.graphdef(nnx.eval_shape(lambda: network(data, 0)))
        key, order_key, noise_key = jax.random.split(state.key, 3)
        n = len(data)
        order = permutation(order_key, n)[: n - n % batch_size]
        batches = order.reshape(-1, batch_size)

        def loss(params, images, noise):
            return negative_elbo(nnx.merge(graph, params), images, noise).mean()

        def step(carry, drawn):
            (params, opt_state), (batch, key) = carry, drawn
            noise = jax.random.normal(key, (batch_size, latent))
            value, grads = jax.value_and_grad(loss)(params, data[batch], noise)
            updates, opt_state = tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

        drawn = batches, jax.random.split(noise_key, len(batches))
        carry = state.params, state.opt_state
        (params, opt_state), losses = jax.lax.scan(step, carry, drawn)
        return State(state.hyperparameters, key, params, opt_state), Metrics(losses.mean())

    return Run(start, advance, epochs)

"""Training of a variational autoencoder (VAE), on which the Adam paper tested bias correction.

The network is that of arXiv 1412.6980, §6.4 (softplus units), in the form of arXiv 1312.6114,
App. C: an encoder and a decoder with one hidden layer each,

    q(z|x) = N(μ(x), σ²(x)),   p(z) = N(0, 1),   p(x|z) = Bernoulli(sigmoid(decoder(z))).

The loss is the negative evidence lower bound (ELBO), with a single sample z = μ + σ·noise.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from adamw_jax import adam, uncorrected_adam
from adamw_jax.sweep import Run, training
from experiments.training.loop import Optimizer

OPTIMIZERS: dict[str, Optimizer] = {
    "adam": lambda h: adam(h["learning_rate"], h["b1"], h["b2"]),
    "uncorrected_adam": lambda h: uncorrected_adam(h["learning_rate"], h["b1"], h["b2"]),
}


class VAE(nnx.Module):
    """A variational autoencoder with softplus units.

    Args:
      pixels: size of an image.
      hidden: width of the hidden layer of encoder and decoder; 500 in the paper.
      latent: size of the code; 50 in the paper.
      rngs: the source of the initial weights (LeCun normal; biases are 0) and of the noise.
    """

    def __init__(self, pixels: int, hidden: int, latent: int, *, rngs: nnx.Rngs):
        self.encoder = nnx.Linear(pixels, hidden, rngs=rngs)
        self.mean = nnx.Linear(hidden, latent, rngs=rngs)
        self.log_variance = nnx.Linear(hidden, latent, rngs=rngs)
        self.decoder = nnx.Linear(latent, hidden, rngs=rngs)
        self.logits = nnx.Linear(hidden, pixels, rngs=rngs)
        self.latent, self.rngs = latent, rngs.fork()

    def noise(self, n: int) -> jax.Array:
        """Draws standard normal noise for the codes of n images, float32[n, latent]."""
        return jax.random.normal(self.rngs.noise(), (n, self.latent))

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
    # expm1 loses no digits at σ² ≈ 1, where training begins.
    kl = 0.5 * (mean**2 + jnp.expm1(log_variance) - log_variance).sum(-1)
    return reconstruction + kl


def grey(standardized: jax.Array) -> jax.Array:
    """Undoes the standardization of `data.load`: float32[n, pixels] in [0, 1], black at 0."""
    low, high = standardized.min(), standardized.max()
    return (standardized - low) / (high - low)


def autoencoder_run(
    optimizer: Optimizer, pixels: int, hidden: int, latent: int, batch_size: int, epochs: int
) -> Run:
    """The run that trains a `VAE` on minibatches, shuffled anew for every epoch.

    Its data is {"train": float32[n, pixels]}, images in [0, 1]; its metric is `train_loss`, the
    mean negative ELBO per image in nats, each minibatch before its step.

    Args:
      optimizer: builds the optimizer from the hyperparameters, see `OPTIMIZERS`.
      pixels: as in `VAE`.
      hidden: as in `VAE`.
      latent: as in `VAE`.
      batch_size: images in a step, at most n.
      epochs: passes over the images; an advance is one.
    """

    def loss(vae: VAE, images: jax.Array) -> jax.Array:
        return negative_elbo(vae, images, vae.noise(len(images))).mean()

    network = functools.partial(VAE, pixels, hidden, latent)
    return training(network, loss, optimizer, epochs=epochs, batch_size=batch_size)

"""Steps of equal size in every direction that a matrix has, as in Muon."""

import math

import jax
import jax.numpy as jnp

from adamw_jax.combine import Merge
from adamw_jax.core import describe
from adamw_jax.hyperparameters import non_negative

# Keller Jordan's quintic, and how often it is applied. It does not converge to 1, but five steps
# bring every singular value from 3e-3 to 1 into [0.68, 1.21].
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalize(eps: jax.typing.ArrayLike = 1e-7, *, scale: str = "original") -> Merge:
    """Makes all singular values of a matrix about 1: U Σ Vᵀ → U Vᵀ, times a factor of its shape.

    It takes five steps of the Newton–Schulz iteration X ← aX + (bA + cA²)X, with A = XXᵀ, from
    X = u / (‖u‖ + eps). Source: Jordan et al. (2024), *Muon*, https://kellerjordan.github.io/posts/muon,
    with its coefficients, 3.4445, −4.7750 and 2.0315, which bring singular values from 3e-3 of the
    norm to 1 into [0.68, 1.21]. It is computed in the working precision of the leaf; the authors
    compute it in bfloat16.

    The last two axes are the matrix, as in Flax, whose kernels are (inputs, outputs); PyTorch's are
    (outputs, inputs). Axes before them count matrices, such as stacked layers. An array with fewer
    axes is a matrix of one row, of which only the direction is left.

    Args:
      eps: ≥ 0, a number or 0-d array.
      scale: the factor, by its name in `torch.optim.Muon`: "original" for
        √max(1, outputs/inputs), as in Keller Jordan's code, or "match_rms_adamw" for
        0.2 √max(inputs, outputs), with which steps are about as long as AdamW's, so that its
        learning rate and decay can be used (arXiv 2502.16982).

    Returns:
      A function of one array.

    Raises:
      ValueError: eps is negative, or there is no such scale.
    """
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(map(repr, SCALES))}, got {scale!r}")
    return Merge(
        describe(orthogonalize, eps, scale=scale), SCALES[scale], (non_negative("eps", eps),)
    )


def _original(eps):
    return _scaled(eps, lambda inputs, outputs: math.sqrt(max(1, outputs / max(inputs, 1))))


def _match_rms_adamw(eps):
    return _scaled(eps, lambda inputs, outputs: 0.2 * math.sqrt(max(inputs, outputs)))


SCALES = {"original": _original, "match_rms_adamw": _match_rms_adamw}


def _scaled(eps, factor):
    def merge(u):
        whole = _gathered(u)
        matrix = whole if u.ndim > 1 else whole.reshape(1, -1)
        inputs, outputs = matrix.shape[-2:]
        # The product of the matrix with itself has as many rows as its shorter side.
        is_tall = inputs > outputs
        x = matrix.mT if is_tall else matrix
        x = _iterated(x, eps.real)
        x = factor(inputs, outputs) * (x.mT if is_tall else x).reshape(u.shape)
        return x if whole is u else jax.sharding.reshard(x, jax.typeof(u).sharding)

    return merge


def _gathered(u):
    """The array with whole matrices on each device, where shardings are part of types."""
    sharding = jax.typeof(u).sharding
    if not any(sharding.spec[-2:]):
        return u
    spec = jax.sharding.PartitionSpec(*sharding.spec[:-2], *[None] * min(u.ndim, 2))
    return jax.sharding.reshard(u, jax.sharding.NamedSharding(sharding.mesh, spec))


def _iterated(x, eps):
    a, b, c = COEFFICIENTS
    norm = jnp.sqrt(jnp.sum(jnp.square(jnp.abs(x)), axis=(-2, -1), keepdims=True))
    x = x / (norm + eps).astype(x.dtype)
    for _ in range(ITERATIONS):
        gram = x @ x.mT.conj()
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x

"""The networks that are trained."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

# The patches of this many images fit into the cache of a CPU core.
FEW = 256


class MLP(nnx.Module):
    """A multilayer perceptron with ReLU between its layers and no normalization.

    Args:
      widths: the sizes of input, hidden layers and output.
      rngs: the source of the initial weights (LeCun normal; biases are 0).
    """

    def __init__(self, widths: Sequence[int], *, rngs: nnx.Rngs):
        self.layers = nnx.List(
            nnx.Linear(fan_in, fan_out, rngs=rngs) for fan_in, fan_out in itertools.pairwise(widths)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps float[..., input] to logits float[..., output]."""
        *hidden, last = self.layers
        for layer in hidden:
            x = nnx.relu(layer(x))
        return last(x)


class CNN(nnx.Module):
    """A small convolutional network: two strided 3×3 convolutions and a hidden layer, with ReLU.

    Args:
      side: height and width of the images, which have one channel.
      channels: the numbers of channels of the two convolutions.
      hidden: size of the hidden layer.
      classes: size of the output.
      rngs: the source of the initial weights.
    """

    def __init__(
        self, side: int, channels: tuple[int, int], hidden: int, classes: int, *, rngs: nnx.Rngs
    ):
        first, second = channels
        self.side = side
        self.convolutions = nnx.List(
            nnx.Conv(fan_in, fan_out, (3, 3), strides=2, conv_general_dilated=by_patches, rngs=rngs)
            for fan_in, fan_out in ((1, first), (first, second))
        )
        left = (side + 3) // 4  # half of the half, both rounded up
        self.head = MLP([left * left * second, hidden, classes], rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps float[n, side²] to logits float[n, classes]."""
        if len(x) > FEW:
            return jax.lax.map(lambda image: self(image[None])[0], x, batch_size=FEW)
        x = x.reshape(-1, self.side, self.side, 1)
        for convolution in self.convolutions:
            x = nnx.relu(convolution(x))
        return self.head(x.reshape(len(x), -1))


def by_patches(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: str, **rest: Any
) -> jax.Array:
    """The convolution `jax.lax.conv_general_dilated`, as a matrix product of patches.

    On a CPU this makes a training step of the CNN ten times as fast: XLA's own gradient of a small
    convolution is slow there.

    Args:
      x: float[n, height, width, channels].
      kernel: float[kernel height, kernel width, channels, features].
      strides: the steps down and to the right.
      padding: "SAME" or "VALID".
      **rest: the other arguments of `jax.lax.conv_general_dilated`, at their defaults.

    Returns:
      float[n, new height, new width, features].

    Raises:
      ValueError: dilations or groups of features are given.
    """
    if {*rest["lhs_dilation"], *rest["rhs_dilation"], rest["feature_group_count"]} != {1}:
        raise ValueError("by_patches supports neither dilations nor groups of features")
    size = kernel.shape[:2]
    pads = jax.lax.padtype_to_pads(x.shape[1:3], size, strides, padding)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    height, width = (n - k + 1 for n, k in zip(x.shape[1:3], size, strict=True))
    down, right = strides
    patches = [
        x[:, i : i + height : down, j : j + width : right]
        for i in range(size[0])
        for j in range(size[1])
    ]
    return jnp.concatenate(patches, -1) @ kernel.reshape(-1, kernel.shape[-1])

"""The networks that are trained."""

from collections.abc import Sequence

import jax
from flax import nnx


class MLP(nnx.Module):
    """A multilayer perceptron with ReLU between its layers, no normalization.

    Args:
      widths: the sizes of input, hidden layers and output.
      rngs: the source of the initial weights (LeCun normal; biases are 0).
    """

    def __init__(self, widths: Sequence[int], *, rngs: nnx.Rngs):
        self.layers = nnx.List(
            nnx.Linear(fan_in, fan_out, rngs=rngs)
            for fan_in, fan_out in zip(widths, widths[1:], strict=False)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps float[..., input] to logits float[..., output]."""
        *hidden, last = self.layers
        for layer in hidden:
            x = nnx.relu(layer(x))
        return last(x)


class CNN(nnx.Module):
    """A small convolutional network: two strided 3×3 convolutions and a hidden layer, ReLU.

    Args:
      side: height and width of the images, which have one channel.
      channels: of the two convolutions.
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
            nnx.Conv(fan_in, fan_out, (3, 3), strides=2, rngs=rngs)
            for fan_in, fan_out in ((1, first), (first, second))
        )
        left = (side + 3) // 4  # half of the half, both rounded up
        self.head = MLP([left * left * second, hidden, classes], rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps float[..., side²] to logits float[..., classes]."""
        x = x.reshape(*x.shape[:-1], self.side, self.side, 1)
        for convolution in self.convolutions:
            x = nnx.relu(convolution(x))
        return self.head(x.reshape(*x.shape[:-3], -1))

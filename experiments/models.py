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

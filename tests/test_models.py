import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.training.models import CNN, FEW, by_patches

PLAIN = {"lhs_dilation": (1, 1), "rhs_dilation": (1, 1), "feature_group_count": 1}


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("kernel", "strides"), [((3, 3), (2, 2)), ((2, 3), (3, 2)), ((1, 1), (1, 1))]
)
def test_a_product_of_patches_is_the_convolution(kernel, strides, padding):
    x = jax.random.normal(jax.random.key(0), (4, 5, 8, 3))

    @nnx.jit(static_argnums=0)
    def value_and_gradients(convolution, x):
        layer = nnx.Conv(
            3, 5, kernel, strides=strides, padding=padding, rngs=nnx.Rngs(1),
            conv_general_dilated=convolution,
        )  # fmt: skip
        grads = nnx.grad(lambda layer, x: jnp.sum(layer(x) ** 2), argnums=(0, 1))(layer, x)
        return layer(x), grads

    ours, theirs = (
        value_and_gradients(convolution, x)
        for convolution in (by_patches, jax.lax.conv_general_dilated)
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_patches_refuse_what_they_do_not_know():
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2))
    for changed in {"rhs_dilation": (2, 2)}, {"feature_group_count": 2}:
        with pytest.raises(ValueError, match="supports neither dilations nor groups"):
            by_patches(x, kernel, (1, 1), "SAME", **{**PLAIN, **changed})


def test_many_images_get_the_logits_that_few_get():
    network = CNN(8, (4, 8), 16, 10, rngs=nnx.Rngs(0))
    images = jax.random.normal(jax.random.key(0), (2 * FEW + 3, 64))
    logits = nnx.jit(lambda network, images: network(images))
    few = [logits(network, images[i : i + FEW]) for i in range(0, len(images), FEW)]
    many = logits(network, images)
    np.testing.assert_allclose(many, jnp.concatenate(few), rtol=1e-5, atol=1e-6)

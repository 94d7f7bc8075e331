"""Moments in 8 bits or in factors: decoded on the way out, and encoded on the way in."""

from typing import Any

import jax
import jax.numpy as jnp

from adamw_jax.encodings import Factored, Quantized, blockwise_quantization
from adamw_jax.interchange.contents import filled


def decoded(state: Any) -> Any:
    """The state with every moment in working precision."""

    def plain(node):
        return node.decode() if _is_encoded(node) else node

    return jax.tree.map(plain, state, is_leaf=_is_encoded)


def filled_and_encoded(template: Any, *args: Any, narrow: bool, **kwargs: Any) -> Any:
    """As `filled`, and with the nearest codes, or factors, where the template has those.

    Raises:
      ValueError: as `filled`, or the template has codes or factors, and narrow is False.
    """
    found = jax.tree_util.tree_leaves_with_path(template, is_leaf=_is_encoded)
    fields = [path[-1].name for path, node in found if _is_encoded(node)]
    if fields and not narrow:
        raise ValueError(
            f"{' and '.join(fields)} would be kept in 8 bits or in factors: "
            "narrow=True rounds to that"
        )
    plain = filled(jax.eval_shape(decoded, template), *args, narrow=narrow, **kwargs)
    nearest = blockwise_quantization(seed=None)

    def kept(like, part):
        if not _is_encoded(like):
            return part
        if isinstance(like, Factored):
            return like.encoded(part)
        # The dtypes say what has codes; the scale of a small parameter is 1.
        ones = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), like)
        return nearest.encode(part, ones, None)

    return jax.tree.map(kept, template, plain, is_leaf=_is_encoded)


def _is_encoded(node: Any) -> bool:
    return isinstance(node, Quantized | Factored)

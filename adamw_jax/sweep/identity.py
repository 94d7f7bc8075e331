"""What a sweep's results depend on, in a few letters."""

import hashlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax.sweep.groups import Group

CALLBACKS = "has callbacks"


def digest_of_program(group: Group, data: Any) -> str:
    """Of a run's two functions, as they are handed to the compiler.

    Comments do not count, and what is computed does; so do the names of jitted functions.
    A program that calls back into Python holds that function's address, which is another
    one every time; of such a one nothing is known.
    """
    numbers = {name: jax.ShapeDtypeStruct((), dtype) for name, dtype in group.numbers.items()}
    start, advance = jax.jit(group.run.start), jax.jit(group.run.advance)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(start, numbers, key, data)
    text = start.lower(numbers, key, data).as_text() + advance.lower(state, data).as_text()
    calls_back = re.search(r"custom_call @\w*callback", text)
    return CALLBACKS if calls_back else _short(hashlib.sha256(text.encode()))


def digest_of_data(data: Any) -> str:
    """Of all arrays, with their shapes and dtypes."""
    digest = hashlib.sha256(str(jax.tree.structure(data)).encode())
    for leaf in map(jnp.asarray, jax.tree.leaves(data)):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        digest.update(f"{leaf.dtype}{leaf.shape}".encode())
        digest.update(np.asarray(leaf).tobytes())
    return _short(digest)


def _short(digest: Any) -> str:
    return digest.hexdigest()[:16]

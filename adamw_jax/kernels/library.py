"""The compiled loop: where it is, and why it may be missing."""

import ctypes
import functools
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

TARGET = "adamw_jax_step"


@functools.cache
def missing() -> str | None:
    """Why fused steps are done by the composition here; None where the loop was compiled.

    The loop is compiled when the package is installed, if there is a C++ compiler.
    """
    loaded = _load()
    return loaded if isinstance(loaded, str) else None


def dtypes() -> frozenset[np.dtype]:
    """The dtypes narrower than float32 that the loop reads and writes."""
    loaded = _load()
    if isinstance(loaded, str):
        return frozenset()
    float16 = [jnp.float16] if loaded.adamw_jax_has_float16() else []
    return frozenset(map(np.dtype, [jnp.bfloat16, *float16]))


@functools.cache
def _load() -> ctypes.CDLL | str:
    """The library, whose function JAX knows from then on; or why it is missing."""
    folder = Path(__file__).parent
    found = [p for suffix in EXTENSION_SUFFIXES if (p := folder / f"_step{suffix}").exists()]
    if not found:
        return (
            "the loop was not compiled when adamw_jax was installed, for want of a C++ compiler "
            "such as g++. Where there is one, install it again from its directory: pip install "
            "--force-reinstall --no-deps DIRECTORY"
        )
    try:
        library = ctypes.CDLL(str(found[0]))
        target = jax.ffi.pycapsule(library.adamw_jax_step)
        jax.ffi.register_ffi_target(TARGET, target, platform="cpu")
    except Exception as error:  # of the loader, or of XLA for a library made for another jaxlib
        return f"{found[0]} cannot be used with this jaxlib, so install adamw_jax again: {error}"
    return library

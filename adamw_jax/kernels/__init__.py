"""Fused steps: an optimizer's step as one pass over memory, in C++ for the CPU.

    fused(adamw(1e-3))         the same optimizer, in the same state
    missing()                  why the loop is missing here, or None

`shape` says which compositions a fused step can do, `transformation` prepares what a step needs,
`call` is the compiled loop as a function of JAX arrays, `library` finds it, step.cc is the loop.
"""

from adamw_jax.kernels.library import missing
from adamw_jax.kernels.transformation import Fused, fused

__all__ = ["Fused", "fused", "missing"]

"""Optimizers in the notation of the papers: their equations, and the values in them.

`equations` writes the update rule of any composition, and `inner_values` what comes out of
each of its pieces at every step, by the same names. Both read descriptions; the pieces know
nothing of them.
"""

from adamw_jax.notation.equations import Equations, equations
from adamw_jax.notation.formulas import FORMULAS
from adamw_jax.notation.inner import InnerValues, inner_values

__all__ = ["FORMULAS", "Equations", "InnerValues", "equations", "inner_values"]

"""How a moment is kept between two steps: encoded in fewer bytes than it is computed in.

A piece computes in working precision. What it remembers is kept in a dtype, rounded to the nearest
number, or in an encoding:

    stochastic_rounding()      bfloat16, 2 bytes a number, rounded without bias
    blockwise_quantization()   8 bits, and a scale for each block of about 128 numbers
    factored()                 of a second moment, the means of its rows and columns alone

Wherever an argument named `mu_dtype`, `nu_dtype` or `accumulator_dtype` takes a dtype, it takes an
encoding, too: `adamw(1e-3, mu_dtype="bfloat16", nu_dtype=stochastic_rounding())`.
"""

from adamw_jax.encodings.blockwise import Quantized, blockwise_quantization
from adamw_jax.encodings.encoding import Encoding, dtype_or_encoding, zeros_in
from adamw_jax.encodings.factored import Factored, factored
from adamw_jax.encodings.rounding import stochastic_rounding

__all__ = [
    "Encoding",
    "Factored",
    "Quantized",
    "blockwise_quantization",
    "dtype_or_encoding",
    "factored",
    "stochastic_rounding",
    "zeros_in",
]

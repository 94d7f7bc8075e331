"""State from and to Optax and PyTorch, so that a half-trained model can go on in the other.

    state = from_optax(adamw(1e-3), params, optax_state)
    state = from_torch(adamw(1e-3), params, torch_optimizer.state_dict(), layout)

What a state contains is found by its name, `mu`, `nu`, `count`, `trace`, `nu_max`, …, wherever it
stands (`contents`). Where libraries keep something else under one name, the optimizer's description
says what it is (`meaning`). Nothing is dropped, made up or rounded in silence.
"""

from adamw_jax.interchange.earlier import from_earlier_version
from adamw_jax.interchange.optax_states import from_optax, to_optax
from adamw_jax.interchange.torch_states import from_torch, to_torch

__all__ = ["from_earlier_version", "from_optax", "from_torch", "to_optax", "to_torch"]

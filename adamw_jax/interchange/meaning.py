"""What an optimizer of this library means by what its state contains, as its description says.

Optax and PyTorch keep something else under some of the same names:

- AMSGrad's maximum is of the corrected v̂ in Optax and of v in PyTorch; here it is either.
- AdaBelief's second moment contains the sum of all eps_root in Optax; here it is added later.
- Schedule-Free's z is kept in Optax, and x − y here (`iterates`).
- AdaMax's largest gradient is `nu` in Optax and here, as the second moment is, and `exp_inf` in
  PyTorch.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from adamw_jax.bias import bias_correction
from adamw_jax.combine import chain
from adamw_jax.core import Description, description_of
from adamw_jax.groups import partition
from adamw_jax.merges import difference, rms_ratio
from adamw_jax.moments import infinity_moment, running_max, second_moment

UNCORRECTED_MAXIMUM = "nu_max (max_before_correction)"
LARGEST_GRADIENT = "largest gradient"


def calls(optimizer: Any) -> Iterator[tuple[Callable[..., Any], dict[str, Any]]]:
    """The pieces and merges that an optimizer is made of, with their arguments by name."""
    pending: list[Any] = [description_of(optimizer)]
    while pending:
        match pending.pop(0):
            case Description(constructor, args, kwargs):
                bound = inspect.signature(constructor).bind(*args, **kwargs)
                bound.apply_defaults()
                yield constructor, bound.arguments
                pending = [*args, *kwargs.values(), *pending]
            case dict() as groups:
                pending = [*groups.values(), *pending]


def quantity_of(optimizer: Any, *, infinity: bool) -> Callable[[str], str]:
    """What is behind the names of the arrays in an optimizer's state.

    Args:
      optimizer: of this library.
      infinity: whether the largest gradient has a name of its own.

    Returns:
      A function from the name of an array to the name of what it is. It raises a ValueError
      where the description does not tell.
    """
    made_by = [call for call, _ in calls(optimizer) if call is not chain]
    maxima = {made_by[i - 1] for i, call in enumerate(made_by) if call is running_max}
    table = {}
    if len(maxima) == 1:
        table["nu_max"] = "nu_max" if bias_correction in maxima else UNCORRECTED_MAXIMUM
    if infinity and infinity_moment in made_by and second_moment not in made_by:
        table["nu"] = LARGEST_GRADIENT

    def quantity(name):
        kind, slash, place = name.partition("/")
        if re.match(r"(.*state/)?nu_max(/|$)", name) and kind not in table:
            raise ValueError(
                f"whether {name} is the maximum before or after the bias correction cannot be "
                f"seen in {optimizer!r}: convert the state of the optimizer inside"
            )
        return table.get(kind, kind) + slash + place

    return quantity


def sum_of_roots(optimizer: Any, steps: Any) -> Any:
    """What Optax's AdaBelief has added to the second moment by then; 0 for other optimizers."""
    arguments = dict(calls(optimizer))
    if difference not in arguments:
        return 0.0
    if partition in arguments:
        raise ValueError(
            "AdaBelief in a partition: its second moment has eps_root in it in Optax and not "
            "here, so convert each group's state with its own optimizer"
        )
    # The merge has what is left of the sum after the correction, eps_root/(1 − b2).
    decay, corrected = float(arguments[second_moment]["b2"]), arguments[rms_ratio]["eps_root"]
    return float(corrected) * (1 - decay ** np.asarray(steps, float))

"""Schedule-Free learning keeps z in Optax and x − y here; the parameters are y in both."""

from typing import Any

import jax
import numpy as np

from adamw_jax.interchange.meaning import calls
from adamw_jax.parameters import parameters
from adamw_jax.schedule_free import schedule_free
from adamw_jax.trees import is_none

# What Optax keeps beside z; the optimizer's own arguments say it here.
ARGUMENTS = "b1", "step_count", "max_lr"


def average_from_iterate(optimizer: Any, params: Any, contents: dict[str, Any]) -> dict[str, Any]:
    """Optax's contents with x − y = (y − z)(1 − b1)/b1 for z, if the optimizer is schedule-free.

    Raises:
      ValueError: the parameters are abstract.
    """
    arguments = dict(calls(optimizer)).get(schedule_free)
    if arguments is None or "max_lr" not in contents:
        return contents
    ratio, y = _ratio(arguments), _by_path(params)
    converted = {}
    for name, array in contents.items():
        kind, _, path = name.partition("/")
        if kind == "z":
            converted[f"to_average/{path}".rstrip("/")] = (y[path] - array) / ratio
        elif name not in ARGUMENTS:
            converted[name] = array
    return converted


def iterate_from_average(optimizer: Any, params: Any, contents: dict[str, Any]) -> dict[str, Any]:
    """Our contents with z = y − (x − y) b1/(1 − b1), and what Optax keeps beside it.

    Raises:
      ValueError: the parameters are abstract.
    """
    arguments = dict(calls(optimizer)).get(schedule_free)
    if arguments is None:
        return contents
    ratio, y, rate = _ratio(arguments), _by_path(params), arguments["learning_rate"]
    converted = {}
    for name, array in contents.items():
        kind, _, path = name.partition("/")
        is_average = kind == "to_average"
        converted[f"z/{path}".rstrip("/") if is_average else name] = (
            y[path] - ratio * array if is_average else array
        )
    if "count" in contents:
        steps = int(contents["count"])
        # The rate only rises, so that its largest value is the last.
        largest = rate(max(steps - 1, 0)) if callable(rate) else rate
        dtype = np.asarray(contents["weight_sum"]).dtype
        converted |= {"step_count": np.int32(steps + 1)}
        numbers = {"b1": arguments["b1"], "max_lr": largest if steps else 0.0}
        converted |= {name: np.asarray(x, dtype) for name, x in numbers.items()}
    return converted


def _ratio(arguments: dict[str, Any]) -> float:
    b1 = float(arguments["b1"])
    if not b1:
        raise ValueError("with b1=0 Optax's state does not hold the average")
    return b1 / (1 - b1)


def _by_path(params: Any) -> dict[str, Any]:
    leaves = jax.tree.leaves(params, is_leaf=is_none)
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves):
        raise ValueError("a schedule-free state is converted with the parameters, not their shapes")
    return {p.path: leaf for p, leaf in zip(parameters(params), leaves, strict=True)}

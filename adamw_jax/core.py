"""The contract: what a gradient transformation is, and how it prints.

A transformation is a pair of pure functions, `init(params) -> state` and
`update(updates, state, params) -> (updates, state)`: Optax's contract, so every
piece of this library drops into `optax.chain`, `nnx.Optimizer`, a Linen
`TrainState`, `optax.MultiSteps`, `optax.masked` and `optax.inject_hyperparams`.
A `Description` is added to the pair: the composition as data, which `repr` shows.
"""

import dataclasses
import functools
import inspect
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import numpy as np
import optax

LINE_WIDTH = 80

# Every piece's arithmetic is one module-level function, jitted once. Hyperparameters
# are its operands, so that all optimizers ever built share one compilation for a
# given tree; `inline` leaves an outer jit free to fuse the pieces into one pass.
jitted = functools.partial(jax.jit, inline=True)


@dataclasses.dataclass(frozen=True)
class Description:
    """The call that makes a transformation or a merge, as data.

    Attributes:
      constructor: the public function that was called.
      args: its positional arguments: hyperparameters, or the parts that are composed, or a
        dictionary of parts. A part is given by its `Description`; a transformation from
        another library stands for itself.
      kwargs: its keyword arguments, defaults included.
    """

    constructor: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        """The constructor's name."""
        return self.constructor.__name__

    def __str__(self) -> str:
        return _layout(self)


def describe(constructor: Callable[..., Any], *args: Any, **kwargs: Any) -> Description:
    """Describes the call `constructor(*args, **kwargs)`."""

    def described(arg):
        if isinstance(arg, dict):
            return {key: described(value) for key, value in arg.items()}
        if type(arg) is list:  # a copy, as of dictionaries and NumPy arrays: it may change later
            return list(map(described, arg))
        if isinstance(arg, np.ndarray | np.generic) and not arg.ndim:
            return arg.item()
        return description_of(arg) or arg

    return Description(
        constructor,
        tuple(map(described, args)),
        {name: described(arg) for name, arg in kwargs.items()},
    )


def description_of(value: Any) -> Description | None:
    """The call that made a value; None where it is not known."""
    description = getattr(value, "description", None)
    # A wrapper is not the value, though functools.wraps, jax.vmap, … copy its attributes.
    known = isinstance(description, Description) and not hasattr(value, "__wrapped__")
    return description if known else None


class Readable:
    """Prints as the call that made it.

    Attributes:
      description: that call, as data.
    """

    description: Any

    def __repr__(self) -> str:
        return str(self.description)


class GradientTransformation(optax.GradientTransformationExtraArgs):
    """Optax's pair of pure functions that can also be read.

    `repr` shows the composition. Where all hyperparameters are plain numbers,
    `eval(repr(tx), vars(adamw_jax))` makes an optimizer with the same description. Two
    transformations are equal, and hash alike, when `init` and `update` are the same
    functions, as in Optax. `_replace` and `jax.tree.map` make another pair of
    functions, for which no description is known, and so drop it.

    Attributes:
      init: `params -> state`.
      update: `(updates, state, params=None, **extra_args) -> (updates, state)`.
        Extra arguments are passed to the parts that take them.
      description: the composition as data, or None.
      wiring: adds its machines to the circuit of a larger composition; None where it is
        added as one machine. See `circuit`.
    """

    description: Description | None = None
    wiring: Callable[[Any, Any], Any] | None = None

    def __new__(
        cls,
        init: optax.TransformInitFn,
        update: optax.TransformUpdateExtraArgsFn,
        description: Description | None = None,
        wiring: Callable[[Any, Any], Any] | None = None,
    ) -> "GradientTransformation":
        """Makes the pair."""
        self = super().__new__(cls, init, update)
        self.description, self.wiring = description, wiring
        return self

    def __repr__(self) -> str:
        return str(self.description) if self.description else _foreign(self)


def _layout(value: Any, prefix: str = "", indent: int = 0) -> str:
    """Writes a call or dictionary on one line if it fits, otherwise one argument a line."""
    head, arguments, tail = _opened(value)
    line = prefix + head + ", ".join(name + shown(arg) for name, arg in arguments) + tail
    composed = any(isinstance(arg, Description | dict) for _, arg in arguments)
    # One column is left for the comma or parenthesis that follows.
    if (indent + len(line) < LINE_WIDTH and "\n" not in line) or not composed:
        return line
    inner = indent + 2
    lines = (
        _layout(arg, name, inner) if isinstance(arg, Description | dict) else name + shown(arg)
        for name, arg in arguments
    )
    return prefix + head + ",".join("\n" + " " * inner + text for text in lines) + tail


def _opened(value: Description | dict[Any, Any]) -> tuple[str, list[tuple[str, Any]], str]:
    """The opening of a call or dictionary, its arguments with their names, and the closing."""
    if isinstance(value, dict):
        return "{", [(f"{key!r}: ", entry) for key, entry in value.items()], "}"
    defaults = inspect.signature(value.constructor).parameters
    named = [
        (f"{name}=", arg)
        for name, arg in value.kwargs.items()
        if name not in defaults or not _same(arg, defaults[name].default)
    ]
    return f"{value.name}(", [("", arg) for arg in value.args] + named, ")"


def _same(value: Any, default: Any) -> bool:
    plain = (type(None), bool, int, float, str)
    return value is default or (isinstance(value, plain) and value == default)


def shown(value: Any) -> str:
    """How an argument of a call prints: in angle brackets where it cannot be written as code."""
    match value:
        case optax.GradientTransformation() | optax.MultiSteps():
            return _foreign(value)
        case bool() | None | str():
            return repr(value)
        case dict():
            return _layout(value)
        case numbers.Real():  # NumPy's scalars too, which print as np.float64(…)
            return repr(int(value) if isinstance(value, numbers.Integral) else float(value))
        case np.dtype() | type():
            return repr(np.dtype(value).name)
        case jax.Array():  # never read: it may be a tracer, or its device may be busy
            kind = "tracer" if isinstance(value, jax.core.Tracer) else "array"
            return f"<{kind} {value.dtype}{list(value.shape)}>"
        case _ if callable(value) and not isinstance(value, Description):
            return f"<{_maker(value)}>"
        case _:
            return str(value)


def _foreign(tx: Any) -> str:
    package = getattr(tx.update, "__module__", None) or "custom"
    return f"<{package.partition('.')[0]} {_maker(tx.update)}>"


def _maker(function: Callable[..., Any]) -> str:
    """The name of the outermost function in whose call `function` was made."""
    if isinstance(function, functools.partial):
        return _maker(function.func)
    name = getattr(function, "__name__", type(function).__name__)  # all that a jnp.ufunc has
    name = getattr(function, "__qualname__", name)
    return name.partition(".<locals>")[0]

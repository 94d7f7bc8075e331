"""Flax modules as pure functions, so that a training can keep their arrays in its state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

Use = Callable[[Any], Any]  # of a module


class Network(NamedTuple):
    """A module without its arrays, which are its parameters and the rest.

    The rest are arrays that training changes, too, without a gradient, such as the statistics
    of batch normalization.

    Attributes:
      init: `(key, use) -> (params, rest)`.
      call: `(use, params, rest, key, is_training) -> (use(module), rest)`, of a module that has
        these arrays and draws its random numbers from the key.
    """

    init: Callable[[jax.Array, Use], tuple[Any, Any]]
    call: Callable[[Use, Any, Any, jax.Array, bool], tuple[Any, Any]]


def network(model: Any) -> Network:
    """The network of a Linen module, or of a function that makes an NNX module from `rngs=`.

    Raises:
      TypeError: the model is neither.
      ImportError: Flax is not installed.
    """
    try:
        from flax import linen, nnx
    except ImportError as error:
        raise ImportError("sweep.training needs Flax: pip install flax") from error

    if isinstance(model, linen.Module):
        return _of_linen(model)
    if isinstance(model, nnx.Module) or not callable(model):
        raise TypeError(
            "model is a Linen module, or a function that makes an NNX module from rngs=, so that "
            f"each run draws its own weights; got a {type(model).__name__}"
        )
    return _of_nnx(model)


def _of_nnx(make: Callable[..., Any]) -> Network:
    from flax import nnx

    def split(module):
        graph, params, rest = nnx.split(module, nnx.Param, ...)
        return graph, nnx.as_pure(params), nnx.as_pure(rest)

    module = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    if not isinstance(module, nnx.Module):
        raise TypeError(
            "model is a Linen module, or a function that makes an NNX module from rngs=; this "
            "function makes something else"
        )
    graph = split(module)[0]

    def init(key, use):
        del use
        return split(make(rngs=nnx.Rngs(key)))[1:]

    def call(use, params, rest, key, is_training):
        del key  # the module has its own among the rest
        module = nnx.merge(graph, params, rest)
        (module.train if is_training else module.eval)()
        return use(module), split(module)[2]

    return Network(init, call)


def _of_linen(module: Any) -> Network:
    from flax import linen

    def init(key, use):
        variables = linen.init(use, module)(key)
        return variables.pop("params"), variables

    def call(use, params, rest, key, is_training):
        # The name of the stream serves for all: Linen takes it where one has no key of its own.
        apply = linen.apply(use, module, mutable=list(rest) if is_training else False)
        used = apply({"params": params, **rest}, rngs={"params": key})
        return used if is_training else (used, rest)

    return Network(init, call)

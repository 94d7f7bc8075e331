"""What every encoding does, and the choice between a dtype and an encoding."""

import abc
import functools
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax import numerics, trees
from adamw_jax.core import Readable
from adamw_jax.hyperparameters import floating_dtype

Bits = Callable[[Any, tuple[int, ...]], jax.Array]


class Encoding(Readable, abc.ABC):
    """How the moments of all parameters are kept; it prints as the call that made it.

    It is a pytree whose leaf is the seed, so that it can be an operand of compiled functions.

    Attributes:
      description: that call, as data.
      seed: of the random bits, a uint32 scalar; None where the encoding draws none.
    """

    seed: Any

    @abc.abstractmethod
    def start(self, moment: Any, *, signed: bool) -> Any:
        """What is kept of the first moment, a tree of zeros in working precision.

        Raises:
          ValueError: a leaf is complex; the message names the paths.
        """

    @abc.abstractmethod
    def decode(self, kept: Any) -> Any:
        """The moment, a tree of arrays in working precision."""

    @abc.abstractmethod
    def encode(self, moment: Any, kept: Any, bits: Bits | None) -> Any:
        """What is kept of a new moment; where a leaf of it is None, what was kept before.

        Args:
          moment: the moment, a tree.
          kept: what was kept before, in the dtypes and shapes of what is returned.
          bits: gives 16 random bits for each number of an array, by its path and shape; None if
            there is no seed.
        """

    def after_step(self, moment: Any, kept: Any, name: str, count: Any = None) -> Any:
        """What is kept of a moment after a step.

        Args:
          moment: the moment, a tree.
          kept: what was kept before it.
          name: what the moment is called, so that two moments have bits of their own.
          count: the number of steps before this one; None if there is no seed.
        """
        bits = functools.partial(random_bits, self.seed, count, name)
        return self.encode(moment, kept, None if self.seed is None else bits)


def random_bits(seed: Any, count: Any, name: str, path: Any, shape: tuple[int, ...]) -> jax.Array:
    """16 random bits for each number of an array, uint16[shape].

    They depend on the seed, the count of the steps, the name of the moment and the path of the
    parameter, and on nothing else: not on the other parameters, nor on how the array is sharded.
    """
    place = np.uint32(zlib.crc32(f"{name}{jax.tree_util.keystr(path)}".encode()))
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), count), place)
    # A word serves two neighbours: drawing 16 bits takes jax.random as long as drawing 32.
    *rows, length = shape or (1,)
    words = jax.random.bits(key, (*rows, -(-length // 2)), jnp.uint32)
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16)
    return halves.reshape(*rows, -1)[..., :length].reshape(shape)


def check_real(moment: Any, encoding: Encoding) -> None:
    """Checks that no leaf is complex.

    Raises:
      ValueError: there are complex leaves; the message names their paths.
    """
    leaves = jax.tree_util.tree_leaves_with_path(moment)
    found = [
        jax.tree_util.keystr(path) or "the only leaf"
        for path, x in leaves
        if jnp.issubdtype(x.dtype, jnp.complexfloating)
    ]
    if found:
        raise ValueError(
            f"{encoding!r} keeps real numbers, but the moments of these parameters are complex: "
            f"{', '.join(found)}. Keep theirs in a dtype, in an optimizer of their own"
        )


def dtype_or_encoding(name: str, value: Any) -> Any:
    """Checks an argument that is a dtype, an encoding or None.

    Args:
      name: the argument's name, for the message.
      value: what was given.

    Raises:
      ValueError: the value is something else.
    """
    return value if isinstance(value, Encoding) else floating_dtype(name, value)


def zeros_in(kept_in: Any, *, signed: bool = True) -> Callable[[Any], Any]:
    """A function of the parameters that makes what is kept of a moment before the first step.

    Args:
      kept_in: a dtype, an encoding, or None for the working precision of each parameter.
      signed: whether the moment may be negative; if not, it is real for complex parameters.
    """
    like = numerics.working_dtype if signed else numerics.real_dtype

    def fitting(p):
        if kept_in is None or isinstance(kept_in, Encoding):
            return like(p)
        kinds = [jnp.issubdtype(dtype, jnp.complexfloating) for dtype in (like(p), kept_in)]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"accumulator_dtype {kept_in} does not fit moments of {like(p)}, for parameters of "
                f"{jnp.result_type(p)}: both must be real, or both complex"
            )
        return kept_in

    def start(params):
        zeros = trees.zeros(params, fitting)
        return kept_in.start(zeros, signed=signed) if isinstance(kept_in, Encoding) else zeros

    return start

"""Composition of transformations, one after another and side by side.

`chain` is Optax's, made readable. `parallel` is what Optax lacks and Adam needs: the
second moment must see the raw gradient, not the momentum. In both, a piece that is named
twice and sees the same updates runs once and keeps one state; see `circuit`.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamw_jax import trees
from adamw_jax.circuit import Machine, composed, key_of, key_of_call
from adamw_jax.core import (
    Description,
    GradientTransformation,
    Readable,
    describe,
    description_of,
    jitted,
)


def chain(*parts: optax.GradientTransformation) -> GradientTransformation:
    """Applies transformations one after another; `chain()` is the identity.

    The state is a flat tuple: the states of all pieces that keep one, in the order in which
    they are first used. It includes those of nested chains and parallels, so that it makes
    no difference where the parentheses stand. A transformation from another library has one
    entry, its whole state.

    Args:
      *parts: transformations from this library or any other.

    Raises:
      ValueError: a part is not a gradient transformation.
    """
    check_transformations("chain", parts)

    def wiring(circuit, source):
        return functools.reduce(lambda wire, part: circuit.add(part, wire), parts, source)

    return composed(wiring, describe(chain, *parts))


class Merge(Readable):
    """A function of arrays that has hyperparameters, for `parallel`.

    Args:
      description: `describe(constructor, …)`: the call that made it, which `repr` shows.
      arithmetic: takes the hyperparameters and returns a function of one array for each
        branch, all of one shape and in working precision. As in `piece`, it must be a
        function defined in a module.
      hyperparameters: as in `piece`, but no schedules.

    Raises:
      ValueError: a hyperparameter is a schedule.
    """

    def __init__(
        self,
        description: Description,
        arithmetic: Callable[..., Callable[..., jax.Array]],
        hyperparameters: tuple[Any, ...] = (),
    ):
        if any(map(callable, jax.tree.leaves(hyperparameters))):
            raise ValueError(f"a merge takes no schedules; {description} has one")
        self.description = description
        self.arithmetic = arithmetic
        self.hyperparameters = hyperparameters

    def __call__(self, *arrays: jax.Array) -> jax.Array:
        """Merges one array for each branch."""
        (merged,) = trees.map_arithmetic(self.arithmetic, self.hyperparameters, *arrays)
        return merged


def parallel(
    *branches: optax.GradientTransformation, merge: Callable[..., jax.Array]
) -> GradientTransformation:
    """Feeds the same updates to every branch and merges the results leaf by leaf.

    The tuple of the branches' results never escapes, so the whole is an ordinary
    transformation again. Branches and merge see half-precision leaves as float32, and
    the merged leaf is rounded once: between the branches of Adam a float16 g² would
    underflow. The state is as in `chain`.

    Args:
      *branches: transformations that keep the structure and shapes of the updates.
      merge: takes one array for each branch and returns an array of the same shape.

    Raises:
      ValueError: there is no branch, a branch is not a gradient transformation, merge does
        not take one array for each, or (at the first update) the merged leaf and the update
        differ in shape.
    """
    check_transformations("parallel", branches)
    if not branches:
        raise ValueError("parallel needs at least one branch")
    _check_merge(merge, len(branches))
    if isinstance(merge, Merge):
        run = functools.partial(_merge_jitted, merge.arithmetic, merge.hyperparameters)
        key = key_of_call(merge.description, merge.arithmetic, merge.hyperparameters)
    else:
        run, key = functools.partial(_merge, lambda: merge, ()), key_of(merge)
    machine = Machine(
        ("merge", key),
        trees.check_floating,
        lambda inputs, state, params, extra_args: (run(*inputs), None),
        has_state=False,
        made_by=description_of(merge) or merge,
    )

    def wiring(circuit, source):
        wide = circuit.widened(source)
        return circuit.place(machine, source, *(circuit.add(b, wide) for b in branches))

    return composed(wiring, describe(parallel, *branches, merge=merge))


def _check_merge(merge: Any, branches: int) -> None:
    if not callable(merge):
        raise ValueError(f"merge must be a function of arrays, got {merge!r}")
    if getattr(merge, "__annotations__", {}).get("return") is Merge:
        raise ValueError(f"merge must be called: {merge.__name__}(…)")
    signature = _signature(merge)
    try:
        if signature:
            signature.bind(*range(branches))
    except TypeError as error:
        wanted = f"merge={merge!r} does not take one array for each of {branches} branches"
        raise ValueError(f"{wanted}: {error}") from error


def _signature(merge: Callable[..., Any]) -> inspect.Signature | None:
    if isinstance(merge, Merge):
        return _signature_of_arithmetic(merge.arithmetic, jax.tree.structure(merge.hyperparameters))
    try:
        return inspect.signature(merge)
    except ValueError:  # a builtin whose signature is unknown
        return None


@functools.lru_cache(256)
def _signature_of_arithmetic(arithmetic, structure):
    made = []
    numbers = structure.unflatten([jax.ShapeDtypeStruct((), jnp.float32)] * structure.num_leaves)
    jax.eval_shape(lambda given: made.append(inspect.signature(arithmetic(*given))), numbers)
    return made[0]


def _merge(arithmetic, hyperparameters, updates, *branches):
    def merge(*given):
        function = arithmetic(*given)
        return lambda u, *arrays: function(*arrays)

    (merged,) = trees.map_arithmetic(merge, hyperparameters, updates, *branches)
    return trees.cast_like(merged, updates)


_merge_jitted = functools.partial(jitted, static_argnums=0)(_merge)


def check_transformations(name: str, parts: Iterable[Any]) -> None:
    """Checks that all parts are gradient transformations.

    Args:
      name: the name of the function that was given the parts, for the message.
      parts: what it was given.

    Raises:
      ValueError: a part has no `init` and `update`, or is the constructor of one.
    """
    for part in parts:
        # By its methods, as Optax does: optax.MultiSteps is not a GradientTransformation.
        if not (callable(getattr(part, "init", None)) and callable(getattr(part, "update", None))):
            got = repr(part)
            if "\n" in got:  # a whole nnx.Optimizer
                got = f"an object of type {type(part).__name__}"
            raise ValueError(
                f"{name} takes gradient transformations (pairs of init and update), got {got}"
            )

"""Composition: one transformation after another, and side by side.

`chain` is Optax's, made readable. `parallel` is what Optax lacks and Adam needs: the
second moment must see the raw gradient, not the momentum.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adamw_jax import numerics
from adamw_jax.core import Description, GradientTransformation, Readable, describe, jitted


def chain(*parts: optax.GradientTransformation) -> GradientTransformation:
    """Applies transformations one after another; `chain()` is the identity.

    The state is the tuple of the parts' states, as in `optax.chain`.

    Args:
      *parts: transformations, of this library or any other.

    Raises:
      ValueError: a part is not a gradient transformation.
    """
    check_transformations("chain", parts)
    description = describe(chain, *parts)
    if not parts:
        return GradientTransformation(
            lambda params: (),
            lambda updates, state, params=None, **_: (updates, state),
            description,
        )
    composed = optax.with_extra_args_support(optax.chain(*parts))
    return GradientTransformation(composed.init, composed.update, description)


class Merge(Readable):
    """A leafwise function of arrays, with its hyperparameters as operands.

    Attributes:
      function: `(hyperparameters, *arrays) -> array`, a module-level function.
      hyperparameters: a pytree of operands.
    """

    def __init__(
        self, function: Callable[..., jax.Array], hyperparameters: Any, description: Description
    ):
        self.description = description
        self.function = function
        self.hyperparameters = hyperparameters

    def __call__(self, *arrays: jax.Array) -> jax.Array:
        """Merges one array per branch."""
        return self.function(self.hyperparameters, *arrays)


def parallel(
    *branches: optax.GradientTransformation, merge: Callable[..., jax.Array]
) -> GradientTransformation:
    """Feeds the same updates to every branch and merges the results leaf by leaf.

    The tuple of the branches' results never escapes, so the whole is an ordinary
    transformation again. Branches and merge see half-precision leaves as float32, and
    the merged leaf is rounded once: between the branches of Adam a float16 g² would
    underflow.

    The state is the tuple of the branches' states.

    Args:
      *branches: transformations that keep the structure and shapes of the updates.
      merge: takes one array per branch, and gives an array of the same shape.

    Raises:
      ValueError: there is no branch, a branch is not a gradient transformation, or (at
        the first update) the merged leaf has not the shape of the update.
    """
    check_transformations("parallel", branches)
    if not branches:
        raise ValueError("parallel needs at least one branch")
    if not callable(merge):
        raise ValueError(f"merge must be a function of arrays, got {merge!r}")
    parts = [optax.with_extra_args_support(branch) for branch in branches]

    def init(params):
        numerics.check_floating(params)
        params = numerics.widen(params)
        return tuple(part.init(params) for part in parts)

    def update(updates, state, params=None, **extra_args):
        wide, params = numerics.widen(updates), numerics.widen(params)
        results = [
            part.update(wide, part_state, params, **extra_args)
            for part, part_state in zip(parts, state, strict=True)
        ]
        merged, states = zip(*results, strict=True)
        if isinstance(merge, Merge):
            return _merge_jitted(merge.function, merge.hyperparameters, updates, merged), states
        return _merge_leaves(lambda _, *arrays: merge(*arrays), None, updates, merged), states

    return GradientTransformation(init, update, describe(parallel, *branches, merge=merge))


def _merge_leaves(function, hyperparameters, updates, branches):
    def leaf(u, *arrays):
        merged = function(hyperparameters, *arrays)
        if jnp.shape(merged) != jnp.shape(u):
            raise ValueError(
                f"merge must keep the shape: it made {jnp.shape(merged)} of {jnp.shape(u)}"
            )
        return merged

    return numerics.cast_like(numerics.map_leaves(leaf, updates, *branches), updates)


_merge_jitted = functools.partial(jitted, static_argnums=0)(_merge_leaves)


def check_transformations(name: str, parts: Iterable[Any]) -> None:
    """Refuses what is no gradient transformation.

    Args:
      name: of the function that was given the parts.
      parts: what it was given.

    Raises:
      ValueError: a part has no `init` and `update`, or is the constructor of one.
    """
    for part in parts:
        # As Optax does, by what it can: optax.MultiSteps is no GradientTransformation.
        if not (callable(getattr(part, "init", None)) and callable(getattr(part, "update", None))):
            raise ValueError(
                f"{name} takes gradient transformations (pairs of init and update), got {part!r}"
            )

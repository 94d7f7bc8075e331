"""Masks for weight decay: rules, trees of booleans, or functions that return such a tree."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax import numerics, trees
from adamw_jax.core import Description, Readable, describe
from adamw_jax.parameters import Parameter, listed, parameters
from adamw_jax.rules import Rule, as_rule, first_matches, kind


class CheckedMask:
    """A function from a tree to the mask of it, which refuses trees that the mask does not match.

    A class rather than a closure: Equinox, and so Optimistix, looks for arrays in closures.

    Args:
      mask: a tree of booleans, a prefix of one, or a function that makes either from a tree.

    Raises:
      ValueError: the mask is a rule or a pattern, from which a mask has yet to be made.
    """

    def __init__(self, mask: Any):
        if isinstance(mask, Rule | str):
            made = f"decay_only({mask!r}) or decay_except({mask!r})"
            raise ValueError(f"mask must be made of the rule: {made}")
        if mask is decay_except or mask is decay_only:
            raise ValueError(f"mask must be called: {mask.__name__}(…)")
        # A module that holds a mask may be callable, and yet is a tree, whose leaves are booleans.
        leaves = jax.tree.leaves(mask)
        self.is_function = bool(leaves) and all(map(callable, leaves))
        # A copy, since containers may change after equal masks have been taken for one.
        self.mask = mask if self.is_function else jax.tree.map(lambda mark: mark, mask)

    def __call__(self, tree: Any) -> Any:
        """The mask of a tree: booleans, in the structure of the tree or a prefix of it."""
        marks = _fitted(self.mask(tree) if self.is_function else self.mask, tree)
        for path, mark in jax.tree_util.tree_leaves_with_path(marks):
            if not isinstance(mark, bool | np.bool_) and numerics.dtype_of(mark) != np.bool_:
                raise ValueError(f"mask must hold booleans, got {mark!r} at {_listed([path])}")
        return marks


def _fitted(mask: Any, tree: Any) -> Any:
    try:
        jax.tree.map(lambda mark, subtree: None, mask, tree)
        return mask
    except ValueError as error:
        try:
            # A mask of nnx Variables, each holding one boolean, for updates that are arrays.
            return jax.tree.map(lambda _, variable: _content(variable), tree, mask)
        except ValueError:
            raise ValueError(_mismatch(mask, tree, error)) from error


def _content(variable: Any) -> Any:
    leaves = jax.tree.leaves(variable)
    if isinstance(variable, dict | list | tuple) or len(leaves) != 1:
        raise ValueError("a container where a mark should be")
    return leaves[0]


def _mismatch(mask: Any, tree: Any, error: ValueError) -> str:
    marks = [tuple(path) for path, _ in jax.tree_util.tree_leaves_with_path(mask)]
    leaves = {
        tuple(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=trees.is_none)
    }
    unmarked = [
        path
        for path, leaf in leaves.items()
        if leaf is not None and not any(path[: len(mark)] == mark for mark in marks)
    ]
    unused = [m for m in marks if not any(path[: len(m)] == m for path in leaves)]
    differences = [f"parameters without a mask: {_listed(unmarked)}"] if unmarked else []
    differences += [f"masks without a parameter: {_listed(unused)}"] if unused else []
    # If only containers differ, such as a list and a tuple, the paths agree; JAX says where.
    differences = differences or [" ".join(str(error).split())]
    return "; ".join(["mask does not match the parameters", *differences])


def _listed(paths: list[tuple[Any, ...]]) -> str:
    return ", ".join(jax.tree_util.keystr(path) or "the root" for path in paths)


# Decay is meant for weights. These set a scale, or are looked up one row at a time.
NOT_DECAYED = kind("bias"), kind("scale"), kind("embedding")


@dataclasses.dataclass(frozen=True, repr=False)
class DecayMask(Readable):
    """A mask by rules, for any tree, as `decay_except` and `decay_only` make it.

    Attributes:
      constructor: which of these two was called.
      rules: what it was called with.
    """

    constructor: Callable[..., "DecayMask"]
    rules: tuple[Rule, ...]

    @property
    def description(self) -> Description:
        """The call that made the mask, as data."""
        return describe(self.constructor, *self.rules)

    def __call__(self, tree: Any) -> Any:
        """Whether each parameter decays, as a tree of booleans like `tree`."""
        if isinstance(tree, jax.Array) and jnp.issubdtype(tree.dtype, jnp.integer):
            raise ValueError(
                f"{self} was called with a step as if it were a schedule: under "
                "optax.inject_hyperparams, name the mask among the static_args"
            )
        marks, found = self.marks(tree), parameters(tree)
        for rule in self.rules:
            if found and not any(map(rule.matches, found)):
                raise ValueError(f"{rule} matches no parameter; there are:\n{listed(found)}")
        return marks

    def marks(self, tree: Any) -> Any:
        """Like a call, except that a rule may match nothing: not every parameter has an update."""
        picks = self.constructor is decay_only
        marks = [(rule is not None) == picks for rule in self.deciding(parameters(tree))]
        return jax.tree.structure(tree, is_leaf=trees.is_none).unflatten(marks)

    def deciding(self, found: list[Parameter]) -> list[Rule | None]:
        """The first rule that matches each parameter, None where none does."""
        return first_matches(self.rules or NOT_DECAYED, found)


def decay_except(*rules: Rule | str) -> DecayMask:
    """A mask for weight decay: all parameters decay but those that a rule matches.

    Args:
      *rules: each is a `path(…)`, the pattern of one as a string, or a `kind(…)`. Without
        rules, biases, the scales of normalisations, and embeddings are left out, in stacked
        layers as well; a model need not have any. Parameters of every other kind decay.

    Returns:
      A mask that `decoupled_weight_decay`, Optax's `adamw` and others take.

    Raises:
      ValueError: an argument is not a rule; or, where the mask is used, a rule matches no
        parameter (the message lists the paths of all).
    """
    return DecayMask(decay_except, tuple(map(as_rule, rules)))


def decay_only(*rules: Rule | str) -> DecayMask:
    """A mask for weight decay: only the parameters that a rule matches decay.

    Args:
      *rules: at least one, each as in `decay_except`.

    Returns:
      A mask, like that of `decay_except`.

    Raises:
      ValueError: as `decay_except`, or there is no rule.
    """
    if not rules:
        raise ValueError("decay_only needs a rule: a path pattern, path(…) or kind(…)")
    return DecayMask(decay_only, tuple(map(as_rule, rules)))

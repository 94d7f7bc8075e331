"""Masks for weight decay: by rule, or any tree of booleans, or a function that makes one."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from adamw_jax import numerics
from adamw_jax.core import Description, Readable, describe
from adamw_jax.rules import Parameter, Rule, as_rule, first_matches, kind, parameters


def checked(mask: Any) -> Callable[[Any], Any]:
    """The mask as a function that refuses trees it does not match."""
    # A module of masks can be called and is a tree all the same: its leaves are booleans.
    leaves = jax.tree.leaves(mask)
    is_function = bool(leaves) and all(map(callable, leaves))

    def mask_of(tree):
        marks = _fitted(mask(tree) if is_function else mask, tree)
        for path, mark in jax.tree_util.tree_leaves_with_path(marks):
            if not isinstance(mark, bool | np.bool_) and numerics.dtype_of(mark) != np.bool_:
                raise ValueError(f"mask must hold booleans, got {mark!r} at {_listed([path])}")
        return marks

    return mask_of


def _fitted(mask: Any, tree: Any) -> Any:
    try:
        jax.tree.map(lambda mark, subtree: None, mask, tree)
        return mask
    except ValueError as error:
        try:
            # A mask of nnx Variables, which hold a mark each, for updates that are arrays.
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
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=numerics.is_none)
    }
    unmarked = [
        path
        for path, leaf in leaves.items()
        if leaf is not None and not any(path[: len(mark)] == mark for mark in marks)
    ]
    unused = [m for m in marks if not any(path[: len(m)] == m for path in leaves)]
    differences = [f"parameters without a mask: {_listed(unmarked)}"] if unmarked else []
    differences += [f"masks without a parameter: {_listed(unused)}"] if unused else []
    # The paths agree where only the containers differ, a list for a tuple; JAX says where.
    differences = differences or [" ".join(str(error).split())]
    return "; ".join(["mask does not match the parameters", *differences])


def _listed(paths: list[tuple[Any, ...]]) -> str:
    return ", ".join(jax.tree_util.keystr(path) or "the root" for path in paths)


# What decay is meant for is left; the others set a scale or are looked up one at a time.
NOT_DECAYED = kind("bias"), kind("scale"), kind("embedding")


class DecayMask(Readable):
    """A mask by rules, for any tree; made by `decay_except` and `decay_only`.

    Attributes:
      rules: they are asked in this order.
      picked: whether a parameter that a rule picks decays, or one that none picks.
      required: whether each rule must pick something.
    """

    def __init__(
        self, rules: tuple[Rule, ...], picked: bool, required: bool, description: Description
    ):
        super().__init__(description)
        self.rules, self.picked, self.required = rules, picked, required

    def __call__(self, tree: Any) -> Any:
        """Whether each parameter decays, as a tree of booleans like `tree`."""
        marks = [(rule is not None) == self.picked for rule in self.matches(parameters(tree))]
        return jax.tree.structure(tree, is_leaf=numerics.is_none).unflatten(marks)

    def matches(self, found: list[Parameter]) -> list[Rule | None]:
        """The rule that decides on each parameter, None where no rule picks it."""
        return first_matches(self.rules, found, required=self.required)


def decay_except(*rules: Rule | str) -> DecayMask:
    """A mask for weight decay: all parameters but those that a rule picks.

    Args:
      *rules: `path(…)`, a string that is the pattern of one, or `kind(…)`. Without any,
        biases, the scales of normalisations and embeddings are left out, stacked layers
        or not, and need not be there.

    Returns:
      A mask, as `decoupled_weight_decay` and its like take it.

    Raises:
      ValueError: an argument is no rule, or (where the mask is used) a rule picks
        nothing, with the paths that there are.
    """
    chosen = tuple(map(as_rule, rules))
    description = describe(decay_except, *chosen)
    return DecayMask(chosen or NOT_DECAYED, False, bool(chosen), description)


def decay_only(*rules: Rule | str) -> DecayMask:
    """A mask for weight decay: the parameters that a rule picks, and no other.

    Args:
      *rules: at least one, as in `decay_except`.

    Returns:
      A mask, as `decay_except`.

    Raises:
      ValueError: as `decay_except`, or there is no rule.
    """
    if not rules:
        raise ValueError("decay_only needs a rule: a path pattern, path(…) or kind(…)")
    chosen = tuple(map(as_rule, rules))
    return DecayMask(chosen, True, True, describe(decay_only, *chosen))

"""Different optimizers for different groups of parameters."""

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import optax

from adamw_jax import trees
from adamw_jax.combine import check_transformations
from adamw_jax.core import GradientTransformation, describe
from adamw_jax.parameters import Parameter, listed, parameters
from adamw_jax.rules import Rule, as_rule, first_matches


def partition(groups: Mapping[Rule | str, optax.GradientTransformation]) -> GradientTransformation:
    """Gives each group of parameters an optimizer of its own.

        partition({
            kind("embedding"): adam(1e-3),
            "*/head/*": adamw(1e-2, weight_decay=0.1),
            "*": adamw(1e-3, weight_decay=0.1, mask=decay_except()),
        })

    This is `optax.partition` with rules instead of a tree of labels.

    Args:
      groups: an optimizer for each rule. A rule is `path(…)`, the pattern of one as a
        string, or `kind(…)`. A parameter belongs to the first rule that matches it.

    Returns:
      A transformation with state `optax.transforms.PartitionState`, in which the name of
      each group is its rule's `repr`.

    Raises:
      ValueError: there is no group, a key is not a rule or comes twice, or a value is not a
        transformation; or, at `init`, a group has no parameters, or a parameter has no
        group (the message lists the paths).
    """
    if not isinstance(groups, Mapping) or not groups:
        raise ValueError(f"partition needs a mapping from rules to optimizers, got {groups!r}")
    rules = [as_rule(rule) for rule in groups]
    check_transformations("partition", groups.values())
    optimizers: dict[Hashable, Any] = dict(zip(map(str, rules), groups.values(), strict=True))
    if len(optimizers) < len(rules):
        twice = next(rule for i, rule in enumerate(rules) if rule in rules[:i])
        raise ValueError(f"{twice} comes twice")

    inner = optax.partition(optimizers, _Labels(tuple(rules)))

    def init(params):
        _check_groups(rules, parameters(params))
        return inner.init(params)

    def update(updates, state, params=None, **extra_args):
        whole = trees.spread_none(updates, params)
        changed, state = inner.update(whole, state, params, **extra_args)
        return trees.only_updated(changed, updates), state

    return GradientTransformation(init, update, describe(partition, groups))


@dataclasses.dataclass(frozen=True)
class _Labels:
    """A function from a tree to the name of each parameter's group.

    It is a class for the reason that `CheckedMask` is one.
    """

    rules: tuple[Rule, ...]

    def __call__(self, tree: Any) -> Any:
        # A place without a parameter needs a name, too, and any group will do.
        names = [str(rule or self.rules[0]) for rule in first_matches(self.rules, parameters(tree))]
        return jax.tree.structure(tree, is_leaf=trees.is_none).unflatten(names)


def _check_groups(rules: list[Rule], found: list[Parameter]) -> None:
    """Every rule must be the first to match some parameter, and every parameter needs a rule."""
    picked = first_matches(rules, found)
    for rule in rules:
        if found and rule not in picked:
            taken = any(map(rule.matches, found))
            reason = "only what earlier rules match; put it first" if taken else "no parameter"
            raise ValueError(f"{rule} matches {reason}; there are:\n{listed(found)}")
    left = [p for p, rule in zip(found, picked, strict=True) if rule is None and p.is_there]
    if left:
        raise ValueError(f"no rule of partition matches these parameters:\n{listed(left)}")

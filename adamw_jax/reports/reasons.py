"""Why a parameter decays or not, read from the groups and masks of a composition."""

from typing import Any

from adamw_jax.core import Description
from adamw_jax.groups import partition
from adamw_jax.masks import DecayMask, decay_except, decay_only
from adamw_jax.parameters import Parameter
from adamw_jax.rules import as_rule, first_matches


def reasons(part: Any, found: list[Parameter]) -> list[str]:
    """The rules that decide whether each parameter decays.

    Args:
      part: the description of a transformation, or anything in one.
      found: the parameters.

    Returns:
      A string for each parameter; empty where no rule decides.
    """
    if not isinstance(part, Description):
        return [""] * len(found)
    if part.constructor is partition:
        return _in_groups(part.args[0], found)
    if part.constructor in (decay_except, decay_only):
        verb = "left out" if part.constructor is decay_except else "picked"
        mask: DecayMask = part.constructor(*(rule.constructor(*rule.args) for rule in part.args))
        return [f"{verb} by {rule}" if rule else f"not {verb}" for rule in mask.deciding(found)]
    inside = [reasons(inner, found) for inner in (*part.args, *part.kwargs.values())]
    own_mask = part.kwargs.get("mask")
    if own_mask is not None and not isinstance(own_mask, Description):
        inside.append(["a mask without rules"] * len(found))
    return [joined(*said) for said in zip([""] * len(found), *inside, strict=True)]


def _in_groups(groups: dict[Any, Any], found: list[Parameter]) -> list[str]:
    picked = first_matches(list(map(as_rule, groups)), found)
    said = [""] * len(found)
    for rule, optimizer in groups.items():
        members = [i for i, by in enumerate(picked) if by == as_rule(rule)]
        inner = reasons(optimizer, [found[i] for i in members])
        for i, reason in zip(members, inner, strict=True):
            said[i] = joined(f"in {as_rule(rule)}", reason)
    return said


def joined(*reasons: str) -> str:
    """Joins the reasons that are not empty into one string, each once."""
    return "; ".join(dict.fromkeys(filter(None, reasons)))

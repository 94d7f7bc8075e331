"""Rules that pick parameters by what they are called, whatever their shape.

The usual rule, decay what has more than one axis, fails where layers are stacked by a
scan or a vmap: their biases have two axes, and so have those of attention heads. Rules
here go by the path of a parameter and, for modules that are themselves trees (Equinox), by
the class it belongs to. They serve as masks (`decay_except`, `decay_only`) and split a
tree into groups (`partition`).
"""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from adamw_jax import numerics
from adamw_jax.core import Description, Readable, describe

KINDS = ("weight", "bias", "scale", "embedding")


class Parameter(NamedTuple):
    """What a rule knows of a parameter.

    Attributes:
      path: names from the root, "encoder/0/attention/query/kernel".
      kind: one of `KINDS`, or None where the path ends in a number and tells nothing.
      is_there: whether there is an array, and not None in its place.
    """

    path: str
    kind: str | None
    is_there: bool


class Rule(Readable):
    """Says which parameters it picks; made by `path` and `kind`.

    Attributes:
      matches: `Parameter -> bool`.
    """

    def __init__(self, matches: Callable[[Parameter], bool], description: Description):
        super().__init__(description)
        self.matches = matches


def path(pattern: str) -> Rule:
    """Picks parameters by their path, with names joined by slashes.

    Args:
      pattern: as in the shell, case and all: `*` stands for any characters, slashes too,
        `?` for one, `[ab]` for a choice. "*/head/*", "*kernel", "layers/[01]/*".
    """
    if not isinstance(pattern, str):
        raise ValueError(f"path takes a pattern such as '*/head/*', got {pattern!r}")
    return Rule(lambda p: fnmatch.fnmatchcase(p.path, pattern), describe(path, pattern))


def kind(name: str) -> Rule:
    """Picks parameters by what they do.

    Args:
      name: "bias" (named bias, b, beta, offset or …_bias), "scale" (of a normalisation:
        named scale or gamma, or the weight of a module named or called …norm),
        "embedding" (…embed… in its name, or the weight of a class …Embed…), or "weight",
        all others.

    Raises:
      ValueError: there is no such kind, or (where the rule is used) a parameter has no
        name to go by.
    """
    if name not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {name!r}")

    def matches(parameter: Parameter) -> bool:
        if parameter.kind is None and parameter.is_there:
            raise ValueError(
                f"the parameter at {parameter.path or 'the root'!r} has no name that would tell "
                "its kind: pick parameters by path, or give them names"
            )
        return parameter.kind == name

    return Rule(matches, describe(kind, name))


def parameters(tree: Any) -> list[Parameter]:
    """The parameters of a tree, in the order of its leaves, None in their place among them.

    Flax's boxes around an array (`nnx.Variable`, `nn.Partitioned`) are no part of the
    path: under `nnx.Optimizer` they are there at `init` only.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=numerics.is_none)
    return [Parameter(*_named(tree, keys), leaf is not None) for keys, leaf in leaves]


def _named(tree: Any, keys: tuple[Any, ...]) -> tuple[str, str | None]:
    """The path and the kind of a parameter."""
    names, owner, node = [], None, tree
    for key in keys:
        name = jax.tree_util.keystr((key,), simple=True)
        if isinstance(key, jax.tree_util.GetAttrKey):
            if not _BOXES.isdisjoint(base.__name__ for base in type(node).__mro__):
                continue
            owner, node = type(node).__name__, getattr(node, key.name, None)
        elif isinstance(key, jax.tree_util.FlattenedIndexKey):
            node = None
        else:
            entry = key.idx if isinstance(key, jax.tree_util.SequenceKey) else key.key
            inside: Any = node
            owner, node = None, inside[entry] if hasattr(inside, "__getitem__") else None
        names.append(name)
    return "/".join(names), _kind(names, owner)


_BOXES = {"Variable", "AxisMetadata"}


def _kind(names: list[str], owner: str | None) -> str | None:
    """The kind of a parameter, from its names and the class that it is an attribute of."""
    if not names or names[-1].isdigit():
        return None
    name = names[-1].lower()
    module = (owner or "".join(names[-2:-1])).lower()
    if name in {"bias", "b", "beta", "offset"} or name.endswith("_bias"):
        return "bias"
    if name in {"scale", "gamma"} or (name == "weight" and "norm" in module):
        return "scale"
    if "embed" in name or (owner and name == "weight" and "embed" in module):
        return "embedding"
    return "weight"


def first_matches(
    rules: Sequence[Rule], found: list[Parameter], *, required: bool
) -> list[Rule | None]:
    """The first rule that picks each parameter, None where none does.

    Raises:
      ValueError: rules are `required` and one picks no parameter; the paths are listed.
    """
    for rule in rules:
        if required and found and not any(map(rule.matches, found)):
            raise ValueError(f"{rule} matches no parameter; there are:\n{listed(found)}")
    return [next((rule for rule in rules if rule.matches(p)), None) for p in found]


def listed(found: list[Parameter]) -> str:
    """Paths and kinds, one a line, for messages."""
    lines = (f"  {p.path or '(the root)'}  ({p.kind or 'no name'})" for p in found if p.is_there)
    return "\n".join(lines)


def as_rule(rule: Rule | str) -> Rule:
    """A rule as it is; a string is the pattern of a `path`.

    Raises:
      ValueError: it is neither.
    """
    if isinstance(rule, Rule | str):
        return path(rule) if isinstance(rule, str) else rule
    raise ValueError(f"a rule is a path pattern, path(…) or kind(…), got {rule!r}")

"""Rules that pick parameters by what they are called, whatever their shape.

The usual rule, decay what has more than one axis, fails where layers are stacked by a
scan or a vmap: their biases have two axes, and so have those of attention heads. Rules
here go by the path of a parameter and, for modules that are themselves trees (Equinox), by
the class it belongs to. They serve as masks (`decay_except`, `decay_only`) and split a
tree into groups (`partition`).
"""

import dataclasses
import fnmatch
import re
import reprlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from adamw_jax import numerics
from adamw_jax.core import Description, Readable, describe

# What tells the kind of a parameter: its own name, or for a `weight` that of its module.
# Digits and one more word may follow, as in `bias_ih_l0` and `layer_norm1`.
BIAS = re.compile(r"(.*_)?bias(es)?(_.*)?|beta|offset|b(\d+|_.*)?")
SCALE = re.compile(r"(.*_)?scale(_.*)?|gamma|g")
NORM = re.compile(r"(.*[a-z_])?norm(_?\d+)?|(ln|bn|gn)(_?\w)?")
EMBEDDING = re.compile(r"(.*_)?emb(ed(ding)?s?)?(_tokens)?|(.*_)?tokens?|wte|wpe|cls")
WEIGHT = re.compile(r"(.*_)?(kernel|weights?)(_.*)?|w(\d+|_.*)?|lora_[ab]")
KINDS = ("weight", "bias", "scale", "embedding", "other")


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


@dataclasses.dataclass(frozen=True, repr=False)
class Rule(Readable):
    """Says which parameters it picks; made by `path` and `kind`.

    Attributes:
      constructor: `path` or `kind`.
      argument: what it was called with.
    """

    constructor: Callable[[str], "Rule"]
    argument: str

    @property
    def description(self) -> Description:
        """The call that made the rule, as data."""
        return describe(self.constructor, self.argument)

    def matches(self, parameter: Parameter) -> bool:
        """Whether it picks a parameter."""
        if self.constructor is path:
            return fnmatch.fnmatchcase(parameter.path, self.argument)
        return parameter.kind == self.argument


def path(pattern: str) -> Rule:
    """Picks parameters by their path, with names joined by slashes.

    Args:
      pattern: as in the shell, case and all: `*` stands for any characters, slashes too,
        `?` for one, `[ab]` for a choice. "*/head/*", "*kernel", "layers/[01]/*".

    Raises:
      ValueError: it is no string.
    """
    if not isinstance(pattern, str):
        raise ValueError(f"path takes a pattern such as '*/head/*', got {pattern!r}")
    return Rule(path, pattern)


def kind(name: str) -> Rule:
    """Picks parameters by what they do, which their names tell.

    Args:
      name: one of

        - "bias": bias, biases, …_bias, bias_…, b, b1, beta, offset;
        - "scale": scale, …_scale, gamma, g, what is called …norm, and the weight of a
          module called …norm, ln… or bn… or of a class …Norm;
        - "embedding": embed, embedding, …_emb, …_embedding, cls, …_token, wte, wpe, and
          the weight of a module called so or of a class …Embedding;
        - "weight": kernel, weight, w, …_kernel, …_weight, lora_a, …;
        - "other": every other name.

    Raises:
      ValueError: there is no such kind, or (where the rule is used) a parameter has no
        name to go by.
    """
    if name not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {name!r}")
    return Rule(kind, name)


def parameters(tree: Any) -> list[Parameter]:
    """The parameters of a tree, in the order of its leaves, None in their place among them.

    Flax's boxes around an array (`nnx.Variable`, `nn.Partitioned`) are no part of the
    path: under `nnx.Optimizer` they are there at `init` only.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=numerics.is_none)
    return [_parameter(tree, keys, leaf is not None) for keys, leaf in leaves]


def _parameter(tree: Any, keys: tuple[Any, ...], is_there: bool) -> Parameter:
    names, owner, node = [], None, tree
    for key in keys:
        is_attribute = isinstance(key, jax.tree_util.GetAttrKey)
        if is_attribute and _is_box(node):
            continue
        owner = type(node).__name__ if is_attribute else None
        name = key.name if is_attribute else getattr(key, "key", getattr(key, "idx", key))
        node = _inside(node, name, is_attribute)
        names.append("/".join(map(str, name)) if isinstance(name, tuple) else str(name))
    full = "/".join(names)
    return Parameter(full, _kind(re.split(r"[/.]", full), owner), is_there)


def _is_box(node: Any) -> bool:
    return any(
        base.__name__ in ("Variable", "AxisMetadata") and base.__module__.startswith("flax.")
        for base in type(node).__mro__
    )


def _inside(node: Any, name: Any, is_attribute: bool) -> Any:
    """What stands in a container under a name; None where it cannot be looked up."""
    try:
        return getattr(node, name) if is_attribute else node[name]
    except (AttributeError, LookupError, TypeError):
        return None


def _kind(names: list[str], owner: str | None) -> str | None:
    """The kind of a parameter, from its names and the class that it is an attribute of."""
    name = names[-1]
    if not name or name.isdigit():
        return None
    # The class knows best; else the name of the module, over the numbers of a list.
    words = [word for word in names[:-1] if not word.isdigit()]
    module = owner or (words[-1] if words else "")
    name, module = name if name == "B" else name.lower(), module.lower()
    if BIAS.fullmatch(name):
        return "bias"
    if SCALE.fullmatch(name) or NORM.fullmatch(module if name == "weight" else name):
        return "scale"
    if EMBEDDING.fullmatch(module if name == "weight" else name):
        return "embedding"
    return "weight" if WEIGHT.fullmatch(name) else "other"


def first_matches(rules: Sequence[Rule], found: list[Parameter]) -> list[Rule | None]:
    """The first rule that picks each parameter, None where none does.

    Raises:
      ValueError: a rule asks for the kind of a parameter without a name.
    """
    return [next((rule for rule in rules if _asked(rule, p)), None) for p in found]


def _asked(rule: Rule, parameter: Parameter) -> bool:
    if rule.constructor is kind and parameter.kind is None and parameter.is_there:
        raise ValueError(
            f"the parameter at {parameter.path or 'the root'} has no name that would tell "
            "its kind: pick it by path before rules by kind, or give it a name"
        )
    return rule.matches(parameter)


def listed(found: list[Parameter]) -> str:
    """Paths and kinds, one a line, for messages."""
    lines = (f"  {p.path or '(the root)'}  ({p.kind or 'no name'})" for p in found if p.is_there)
    return "\n".join(lines) or "  (none, in this group or under this mask)"


def as_rule(rule: Rule | str) -> Rule:
    """A rule as it is; a string is the pattern of a `path`.

    Raises:
      ValueError: it is neither.
    """
    if isinstance(rule, str):
        return path(rule)
    if isinstance(rule, Rule):
        return rule
    raise ValueError(
        "a rule is a path pattern such as '*/head/*', or path(…) or kind(…), each an argument "
        f"of its own; got {reprlib.repr(rule)}"
    )

"""Rules that pick parameters by their names, whatever their shape.

The usual rule, that whatever has more than one axis decays, fails where layers are stacked
by a scan or a vmap: their biases have two axes, and so do those of attention heads. The
rules here go by the path of a parameter and, where modules are themselves trees (Equinox),
by the class of its module. Masks (`decay_except`, `decay_only`) and groups (`partition`)
are made of them.
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

# A parameter's name tells its kind, or if that is `weight`, the name of its module. Digits
# and one more word may follow, as in `bias_ih_l0` and `layer_norm1`.
BIAS = re.compile(r"(.*_)?bias(es)?(_.*)?|beta|offset|b(\d+|_.*)?")
SCALE = re.compile(r"(.*_)?scale(_.*)?|gamma|g")
NORM = re.compile(r"(.*[a-z_])?norm(_?\d+)?|(ln|bn|gn)(_?\w)?")
EMBEDDING = re.compile(r"(.*_)?emb(ed(ding)?s?)?(_tokens)?|(.*_)?tokens?|wte|wpe|cls")
WEIGHT = re.compile(r"(.*_)?(kernel|weights?)(_.*)?|w(\d+|_.*)?|lora_[ab]")
KINDS = ("weight", "bias", "scale", "embedding", "other")


class Parameter(NamedTuple):
    """What a rule knows about a parameter.

    Attributes:
      path: the names from the root, as in "encoder/0/attention/query/kernel".
      kind: one of `KINDS`; None where the path ends in a number, which tells nothing.
      is_there: whether there is an array, and not None in its place.
    """

    path: str
    kind: str | None
    is_there: bool


@dataclasses.dataclass(frozen=True, repr=False)
class Rule(Readable):
    """A condition that parameters match or do not; `path` and `kind` make it.

    Attributes:
      constructor: the one of these two that was called.
      argument: what it was called with.
    """

    constructor: Callable[[str], "Rule"]
    argument: str

    @property
    def description(self) -> Description:
        """The call that made the rule, as data."""
        return describe(self.constructor, self.argument)

    def matches(self, parameter: Parameter) -> bool:
        """Whether a parameter matches."""
        if self.constructor is path:
            return fnmatch.fnmatchcase(parameter.path, self.argument)
        return parameter.kind == self.argument


def path(pattern: str) -> Rule:
    """A rule for parameters whose path, the names from the root joined by slashes, matches.

    Args:
      pattern: as in a shell: `*` stands for any characters, slashes included, `?` for one
        character and `[ab]` for a choice; upper and lower case differ. For example
        "*/head/*", "*kernel" and "layers/[01]/*".

    Raises:
      ValueError: the pattern is not a string.
    """
    if not isinstance(pattern, str):
        raise ValueError(f"path takes a pattern such as '*/head/*', got {pattern!r}")
    return Rule(path, pattern)


def kind(name: str) -> Rule:
    """A rule for parameters that do the same, as their names tell.

    Args:
      name: one of

        - "bias": bias, biases, …_bias, bias_…, b, b1, beta, offset;
        - "scale": scale, …_scale, gamma, g, …norm, and the weight of a module named
          …norm, ln… or bn… or of a class …Norm;
        - "embedding": embed, embedding, …_emb, …_embedding, cls, …_token, wte, wpe, and
          the weight of a module with such a name or of a class …Embedding;
        - "weight": kernel, weight, w, …_kernel, …_weight, lora_a, …;
        - "other": every other name.

    Raises:
      ValueError: there is no such kind; or, where the rule is used, a parameter has no
        name to go by.
    """
    if name not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {name!r}")
    return Rule(kind, name)


def parameters(tree: Any) -> list[Parameter]:
    """The parameters of a tree in the order of its leaves, of which None is one here.

    Flax's boxes around an array (`nnx.Variable`, `nn.Partitioned`) are not part of the
    path: under `nnx.Optimizer` there are boxes at `init` only.
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
    # The class knows best; without one it is the last name that is not a number in a list.
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
    """The first rule that matches each parameter, None where none does.

    Raises:
      ValueError: a rule asks for the kind of a parameter that has no name.
    """
    return [next((rule for rule in rules if _asked(rule, p)), None) for p in found]


def _asked(rule: Rule, parameter: Parameter) -> bool:
    if rule.constructor is kind and parameter.kind is None and parameter.is_there:
        raise ValueError(
            f"the parameter at {parameter.path or 'the root'} has no name that could tell "
            "its kind: put a rule by path before those by kind, or give it a name"
        )
    return rule.matches(parameter)


def listed(found: list[Parameter]) -> str:
    """The paths and kinds of parameters, one a line, for messages."""
    lines = (f"  {p.path or '(the root)'}  ({p.kind or 'no name'})" for p in found if p.is_there)
    return "\n".join(lines) or "  (none, in this group or under this mask)"


def as_rule(rule: Rule | str) -> Rule:
    """The rule itself, or the `path` of which a string is the pattern.

    Raises:
      ValueError: the argument is neither.
    """
    if isinstance(rule, str):
        return path(rule)
    if isinstance(rule, Rule):
        return rule
    raise ValueError(
        "a rule is a path pattern such as '*/head/*', or path(…) or kind(…), each an argument "
        f"of its own; got {reprlib.repr(rule)}"
    )

"""The parameters of a tree: their paths, and what kind of parameter each is."""

import re
from typing import Any, NamedTuple

import jax

from adamw_jax import trees

# The kind of a parameter follows from its name or, if that is `weight`, from the name of its
# module. Digits and one more word may follow, as in `bias_ih_l0` and `layer_norm1`.
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
      kind: one of `KINDS`; None where the path ends in a number, which says nothing.
      is_there: whether there is an array and not None in its place.
    """

    path: str
    kind: str | None
    is_there: bool


def parameters(tree: Any) -> list[Parameter]:
    """The parameters of a tree in the order of its leaves; here None counts as a leaf.

    Flax's boxes around an array (`nnx.Variable`, `nn.Partitioned`) are not part of the
    path: under `nnx.Optimizer` the boxes are there only at `init`.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=trees.is_none)
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
    """The entry of a container under a name; None where it cannot be looked up."""
    try:
        return getattr(node, name) if is_attribute else node[name]
    except (AttributeError, LookupError, TypeError):
        return None


def _kind(names: list[str], owner: str | None) -> str | None:
    """The kind of a parameter, from its names and the class that it is an attribute of."""
    name = names[-1]
    if not name or name.isdigit():
        return None
    # The module's class where it is known, otherwise the last name that is not a list index.
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


def listed(found: list[Parameter]) -> str:
    """The paths and kinds of parameters, one on each line, for messages."""
    lines = (f"  {p.path or '(the root)'}  ({p.kind or 'no name'})" for p in found if p.is_there)
    return "\n".join(lines) or "  (none, in this group or under this mask)"

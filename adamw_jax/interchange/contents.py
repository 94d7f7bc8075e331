"""What a state contains, by name, wherever it stands in the state.

A state is named tuples inside tuples, dictionaries and other named tuples. The mean of the
gradients of "dense/kernel" is called "mu/dense/kernel" here, whether the state is
`ScaleByAdamState(count, mu, nu)` somewhere in nested chains, `MomentumState(mu)`, or one group's in
a `PartitionState`, where the other groups' parameters are missing. Instead of named tuples there
may be dictionaries, as in a checkpoint that was read without a template.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax import trees
from adamw_jax.parameters import parameters

# These fields hold the states of parts, such as those of the groups of a partition.
OF_PARTS = ("inner_state", "inner_states", "hyperparams_states", "base_optimizer_state")


def contents_of(state: Any, params: Any, whose: str) -> dict[str, Any]:
    """All arrays of a state by name.

    Args:
      state: the state of an optimizer, of this library or of Optax.
      params: the parameters, or their shapes.
      whose: what a message calls the state.

    Returns:
      Arrays by name. All counts of the steps are one.

    Raises:
      ValueError: two counts differ, or something else has the name of another.
    """
    found: dict[str, Any] = {}

    def read(name, leaf):
        if name not in found:
            found[name] = leaf
        elif not is_count(name):
            raise ValueError(f"{whose} state has {name} twice: it cannot be told which is which")
        elif not np.array_equal(found[name], leaf):
            raise ValueError(
                f"{whose} state counts {found[name]} steps in one place and {leaf} in another, "
                "and a whole optimizer has one count"
            )
        return leaf

    mapped(read, state, params)
    return found


def counted(contents: dict[str, Any], count: int | None, whose: str) -> dict[str, Any]:
    """The contents with a number of steps that its owner knows.

    Raises:
      ValueError: it has another one.
    """
    if count is None:
        return contents
    if "count" in contents and not np.array_equal(contents["count"], count):
        raise ValueError(f"count is {count}, and {whose} state counts {contents['count']} steps")
    return contents | {"count": np.int32(count)}


def filled(
    template: Any,
    params: Any,
    contents: Mapping[str, Any],
    *,
    given: str,
    wanted: str,
    narrow: bool = False,
    renamed: Callable[[str], str] = str,
) -> Any:
    """A state with the structure, shapes and dtypes of `template` and what is in `contents`.

    Args:
      template: a state of abstract arrays.
      params: as in `contents_of`.
      contents: arrays by name.
      given: whose contents they are, for messages.
      wanted: whose the template is.
      narrow: whether to round to a dtype with fewer digits.
      renamed: what a name in the template is called in the contents.

    Raises:
      ValueError: something is only in one of them, or differs in shape or dtype; the message
        shows both sides. Counts may be left over.
    """
    missing, unfit, used = [], defaultdict(list), set()

    def fill(name, like):
        name = renamed(name)
        used.add(name)
        if name not in contents:
            missing.append(name)
            return None
        array = contents[name]
        if reason := misfit(array, like.shape, like.dtype, narrow):
            unfit[reason].append(name)
            return None
        return jnp.asarray(array.real if _is(jnp.floating, like.dtype) else array, like.dtype)

    state = mapped(fill, template, params)
    left = [name for name in contents if name not in used and not is_count(name)]
    check_fit(given, wanted, left, missing, unfit)
    return state


def mapped(function: Callable[[str, Any], Any], state: Any, params: Any) -> Any:
    """The state with `function(name, array)` in the place of each array."""
    paths = {p.path for p in parameters(params)}

    def visit(node, name):
        is_state = _is_record(node) and type(node) is not type(params)
        if not is_state and {p.path for p in parameters(node)} <= paths:
            return named(node, name)
        if _is_record(node):
            return type(node)(**fields(node._asdict(), name))
        if isinstance(node, tuple | list):
            return type(node)(visit(part, name) for part in node)
        if isinstance(node, dict):
            return fields(node, name)
        return named(node, name)

    def fields(record, name):
        return {key: field(record, key, value, name) for key, value in record.items()}

    def field(record, key, value, name):
        if key in OF_PARTS and isinstance(value, dict):
            return {part: visit(inner, name) for part, inner in value.items()}
        if key in OF_PARTS or str(key).isdigit():  # Flax writes tuples as dictionaries
            return visit(value, name)
        # The count of `optax.contrib.reduce_on_plateau` is of values, not of steps.
        other = key == "count" and "plateau_count" in record
        return visit(value, _join(name, "value_count" if other else str(key)))

    def named(tree, name):
        leaves, structure = jax.tree.flatten(tree, is_leaf=trees.is_none)
        places = [_join(name, p.path) for p in parameters(tree)]
        pairs = zip(places, leaves, strict=True)
        return structure.unflatten([x if x is None else function(at, x) for at, x in pairs])

    return visit(state, "")


def misfit(array: Any, shape: tuple[int, ...], dtype: Any, narrow: bool) -> str:
    """Why an array cannot be kept in a shape and dtype; empty if it can."""
    if np.shape(array) != tuple(shape):
        return f"shapes {list(np.shape(array))} and {list(shape)}"
    old = array.dtype  # not JAX's view of it, which may be narrower
    if jnp.iscomplexobj(array) and not _is(jnp.complexfloating, dtype):
        # Optax's second moments of complex parameters are complex numbers, but real.
        if np.any(np.imag(array)):
            return f"dtypes {old} and {dtype}, and some imaginary parts are not 0"
        old = array.real.dtype
    if old == dtype or narrow or _holds(dtype, old):
        return ""
    return f"dtypes {old} and {dtype}, which has fewer digits (narrow=True rounds to it)"


def check_fit(
    given: str,
    wanted: str,
    left: Collection[str],
    missing: Collection[str],
    unfit: Mapping[str, list[str]],
) -> None:
    """Raises a ValueError that shows what does not fit, unless all does."""
    lines = [f"only in {given} state: {listed(left)}"] if left else []
    lines += [f"only in {wanted} state: {listed(missing)}"] if missing else []
    lines += [f"{reason}: {listed(names)}" for reason, names in unfit.items()]
    if missing and all(map(is_count, missing)):
        lines.append("if you know how many steps were taken, pass count=")
    if lines:
        raise ValueError(f"{given} state does not fit {wanted}:\n  " + "\n  ".join(lines))


def listed(names: Collection[str]) -> str:
    """The first name of each kind, and how many more there are."""
    kinds = defaultdict(list)
    for name in names:
        kinds[name.partition("/")[0]].append(name)
    return ", ".join(
        first + (f" and {len(rest)} more of {kind}" if rest else "")
        for kind, (first, *rest) in kinds.items()
    )


def is_count(name: str) -> bool:
    """Whether a name is that of a number of steps."""
    return name == "count" or name.endswith("state/count")


def _holds(new: Any, old: Any) -> bool:
    """Whether a dtype has all the values of another."""
    if not (_is(jnp.inexact, new) and _is(jnp.inexact, old)):
        return _is(jnp.integer, new) and _is(jnp.integer, old)
    wide, narrow = jnp.finfo(new), jnp.finfo(old)
    return wide.nmant >= narrow.nmant and wide.maxexp >= narrow.maxexp


def _is(kind: Any, dtype: Any) -> bool:
    return jnp.issubdtype(dtype, kind)


def _is_record(node: Any) -> bool:
    return isinstance(node, tuple) and hasattr(node, "_fields")


def _join(name: str, path: str) -> str:
    return f"{name}/{path}" if name and path else name or path

"""Lets `jax.export` serialize functions that take or return optimizer states."""

from typing import Any

import jax
import jax.export


def register_for_export(state: Any) -> None:
    """Lets functions that take or return such a state be serialized by `jax.export`.

    A state consists of named tuples, and JAX serializes only those that are registered in
    the running process. This registers every named tuple in the state that is not
    registered yet, whichever library it is from, under the names of its package and class,
    such as "optax.EmptyState". In the process that exports:

        register_for_export(state)
        exported = jax.export.export(jax.jit(step))(params, state)
        path.write_bytes(exported.serialize())

    In the process that runs what was exported:

        register_for_export(jax.eval_shape(optimizer.init, params))
        step = jax.export.deserialize(path.read_bytes()).call

    Args:
      state: any tree, such as the state of an optimizer or a part of it, of concrete or
        abstract arrays.

    Raises:
      ValueError: another class is registered under the same name.
    """
    for kind in _named_tuples(state):
        name = f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"
        try:
            jax.export.register_namedtuple_serialization(kind, serialized_name=name)
        except ValueError as error:
            # JAX cannot be asked whether a class is registered. That it is, is the one error to
            # be ignored.
            if "registration for type" not in str(error):
                raise


def _named_tuples(tree: Any) -> list[type]:
    """The classes of the named tuples in a tree, each once."""
    found = {}

    def visit(node):
        if isinstance(node, tuple) and hasattr(node, "_fields"):
            found[type(node)] = None
        return False  # so that JAX visits what is inside

    jax.tree.leaves(tree, is_leaf=visit)
    return list(found)

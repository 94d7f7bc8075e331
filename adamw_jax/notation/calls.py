"""The machines of a circuit as calls, each of which has a formula or at least a name."""

import ast
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from adamw_jax.circuit import WIDEN, Circuit
from adamw_jax.core import Description, shown
from adamw_jax.notation.formulas import formula
from adamw_jax.notation.trees import names


class Call(NamedTuple):
    """A machine of a circuit.

    Attributes:
      place: its number in the circuit.
      made_by: as in `Machine`.
      arguments: those of the call that made it, defaults included.
      inputs: where each value comes from that its formula reads, by the formula's names.
      now: the formula up to the value that goes out; where that is no assignment, without a name.
      later: the assignments that are made after the step.
    """

    place: int
    made_by: Any
    arguments: dict[str, Any]
    inputs: dict[str, int]
    now: list[tuple[str, ast.expr]]
    later: list[tuple[str, ast.expr]]

    def targets(self) -> list[str]:
        """The names that its formula assigns."""
        return [name for name, _ in [*self.now, *self.later] if name]

    def reads(self) -> Iterator[int]:
        """The places that it reads, once for each time, and twice more where it needs names.

        It does where it reads them after the step, which may have changed what they are made of,
        and where it has a line of its own that says no more than its name.
        """
        found = [name for _, tree in self.now for name in names(tree)]
        yield from (self.inputs[name] for name in found if name in self.inputs)
        if self.later or (self.now[-1][0] and "function" in found):
            yield from [*self.inputs.values()] * 2


def calls(circuit: Circuit) -> list[Call]:
    """The machines of a circuit in order, but for those that only serve others."""
    found, origins = [], {0: 0}
    for place, (machine, wires, _) in enumerate(circuit.machines, 1):
        inputs = [origins[wire.place] for wire in wires]
        origins[place] = inputs[0] if machine is WIDEN else place
        if machine.made_by is not None:
            # A merge also sees what its branches see; a piece, the number of steps.
            is_merge = machine.key[0] == "merge"
            inputs = inputs[1:] if is_merge else inputs[:1]
            found.append(_call(place, machine.made_by, inputs, is_merge))
    return found


def _call(place: int, made_by: Any, inputs: list[int], is_merge: bool) -> Call:
    arguments = {}
    if isinstance(made_by, Description):
        bound = inspect.signature(made_by.constructor).bind(*made_by.args, **made_by.kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
    given, body = formula(made_by, arguments) or _unknown(inputs, is_merge)
    if len(given.split()) != len(inputs):
        wrong = f"reads {given!r}, but {len(inputs)} value(s) come in"
        raise ValueError(f"the formula of {name_of(made_by)} {wrong}")
    lines = list(map(_line, ast.parse(body).body))
    end = next((i for i, (name, _) in enumerate(lines, 1) if not name), len(lines))
    named = dict(zip(given.split(), inputs, strict=True))
    return Call(place, made_by, arguments, named, lines[:end], lines[end:])


def _line(statement: ast.stmt) -> tuple[str, ast.expr]:
    match statement:
        case ast.Assign([ast.Name(name)], value):
            return name, value
        case ast.Expr(value):
            return "", value
    wrong = ast.unparse(statement)
    raise ValueError(f"a formula consists of assignments and one expression, got {wrong!r}")


def _unknown(inputs: list[int], is_merge: bool) -> tuple[str, str]:
    """A formula that only says which function it is, and for a transformation takes a line."""
    names = [f"x{i}" for i, _ in enumerate(inputs)]
    call = f"function({', '.join(names)})"
    return " ".join(names), call if is_merge else f"u = {call}"


def name_of(made_by: Any) -> str:
    """What a piece, merge, schedule or foreign transformation is called."""
    if isinstance(made_by, Description):
        return made_by.name
    name = shown(made_by).strip("<>")
    return "f" if name == "lambda" else name


def remade(value: Any) -> Any:
    """What a description describes, made again."""
    match value:
        case Description(constructor, args, kwargs):
            return constructor(*map(remade, args), **remade(kwargs))
        case dict():
            return {key: remade(inner) for key, inner in value.items()}
    return value

"""What an optimizer computes in a step, line by line, derived from its circuit.

Every machine of a circuit knows the call that made it, and `formulas` has the formula of that
call, into which goes what comes into the machine. A value that is remembered, or used twice,
gets a line and a name; a value that is used once is written where it is used.
"""

import ast
import itertools
import unicodedata
from collections import Counter
from typing import Any, NamedTuple

import optax

from adamw_jax.circuit import SOURCE, Circuit, key_of
from adamw_jax.core import Description
from adamw_jax.groups import partition
from adamw_jax.notation.calls import Call, calls, name_of, remade
from adamw_jax.notation.symbols import SYMBOLS, Symbols
from adamw_jax.notation.trees import inserted, names, simplified, variable
from adamw_jax.rules import as_rule


class Line(NamedTuple):
    """An assignment.

    Attributes:
      name: what is assigned.
      tree: its value, a tree of Python's `ast`, which can be compiled and evaluated.
    """

    name: str
    tree: ast.expr


class Group(NamedTuple):
    """What is computed for the parameters that a rule of `partition` picks.

    Attributes:
      rule: as `repr` shows it.
      lines: as in a `Derivation`.
      values: as in a `Derivation`.
    """

    rule: str
    lines: "list[Line | Group]"
    values: dict[str, Any]


class Derivation:
    """The lines of a circuit.

    Args:
      part: the transformation that the circuit is of.
      source: the name of what comes into it.
      result: the name of what it computes: θ, which it moves, or the new update.
      symbols: those in use.

    Attributes:
      circuit: the circuit, and `end` the place in it where the result goes out.
      calls: its machines.
      lines: in the order in which they are computed.
      values: what the symbols in the lines stand for: numbers, arrays, functions, ….
      names: what the value at each place of the circuit is called, if it has a line.
    """

    def __init__(
        self, part: optax.GradientTransformation, source: str, result: str, symbols: Symbols
    ):
        self.circuit = Circuit()
        self.end = self.circuit.add(part, SOURCE).place
        self.result, self.symbols = result, symbols
        self.lines: list[Line | Group] = []
        self.values: dict[str, Any] = {}
        self.names = {0: source}
        self.outputs: dict[int, ast.expr] = {0: variable(source)}
        self.later: list[tuple[str, ast.expr, dict[str, ast.expr], Call]] = []
        self.calls = calls(self.circuit)
        read = (call.reads() for call in self.calls if not self._is_move(call))
        self.uses = Counter([self.end, *itertools.chain(*read)])
        # What comes later than the result averages the parameters, and is no part of it.
        for call in (call for call in self.calls if call.place <= self.end):
            self._add(call)
        self._finish()
        for call in (call for call in self.calls if call.place > self.end):
            self._add(call)
        # The last first: it may read what the others had remembered before this step.
        for name, tree, trees, call in reversed(self.later):
            self._assign(name, self._filled(tree, trees, call))

    def _is_move(self, call: Call) -> bool:
        """Whether a machine makes the new parameters, as the last line does."""
        is_applied = call.made_by is optax.apply_updates
        return is_applied and self.result == "θ" and self.end in call.inputs.values()

    def _finish(self) -> None:
        output = self.outputs[self.end]
        moved = ast.BinOp(variable("θ"), ast.Add(), output) if self.result == "θ" else output
        self._assign(self.result, moved)

    def _assign(self, name: str, tree: ast.expr) -> ast.expr:
        self.lines.append(Line(name, simplified(tree)))
        return variable(name)

    def _add(self, call: Call) -> None:
        """Finds the value at a place and adds the lines that it takes."""
        if self._is_move(call):
            output = variable("θ")
        elif isinstance(call.made_by, Description) and call.made_by.constructor is partition:
            output = self._partition(call)
        else:
            output = self._value(call)
            if self.uses[call.place] > 1 and not isinstance(output, ast.Name):
                output = self._assign(self.symbols.new("u"), output)
        self.outputs[call.place] = output
        if isinstance(output, ast.Name):
            self.names[call.place] = output.id

    def _value(self, call: Call) -> ast.expr:
        named = {name: self.symbols.new(self._made_of(name, call)) for name in call.targets()}
        trees = {name: self.outputs[place] for name, place in call.inputs.items()}
        trees |= {name: variable(symbol) for name, symbol in named.items()}
        self.later += [(named[target], tree, trees, call) for target, tree in call.later]
        *before, (target, tree) = call.now
        for name, local in before:
            self._assign(named[name], self._filled(local, trees, call))
        output = self._filled(tree, trees, call)
        return self._assign(named[target], output) if target else output

    def _partition(self, call: Call) -> ast.expr:
        (place,), result = call.inputs.values(), self.symbols.new("u")
        inside = Symbols()
        for rule, part in call.arguments["groups"].items():
            group = Derivation(remade(part), self.names[place], result, Symbols(self.symbols))
            self.lines.append(Group(str(as_rule(rule)), group.lines, group.values))
            inside |= group.symbols
        # Groups may use the same names, since each is for other parameters; what follows may not.
        for name in inside.keys() - self.symbols.keys():
            self.symbols[name] = object()
        return variable(result)

    def _made_of(self, target: str, call: Call) -> str:
        """A name for what is assigned; ĝ and g_max are made of the name of what comes in as g."""
        parts = unicodedata.normalize("NFD", target)
        letter, decoration = parts[0], parts[1:]
        is_mark = unicodedata.combining(decoration[:1] or " ") > 0
        if letter not in call.inputs or not (is_mark or decoration.startswith("_")):
            return target
        name = unicodedata.normalize("NFD", self.names.get(call.inputs[letter], "u"))
        made = name[0] + decoration + name[1:] if is_mark else name + decoration
        return unicodedata.normalize("NFC", made)

    def _filled(self, tree: ast.expr, trees: dict[str, ast.expr], call: Call) -> ast.expr:
        """A part of a formula with what its names stand for, which is added to the trees."""
        for name in names(tree):
            if name == "function":
                trees[name] = self._function(call.made_by)
            elif name in call.arguments and name not in trees:
                trees[name] = self._argument(name, call.arguments[name])
        return inserted(tree, trees)

    def _argument(self, name: str, value: Any) -> ast.expr:
        """The symbol of an argument; a line says what a schedule is at this step."""
        known = set(self.symbols)
        symbol = self.symbols.of(SYMBOLS.get(name, name), key_of(value))
        is_schedule = name != "mask" and (callable(value) or isinstance(value, Description))
        if symbol not in known and is_schedule:
            seen = ast.BinOp(variable("t"), ast.Sub(), ast.Constant(1))
            self._assign(symbol, ast.Call(self._function(value), [seen], []))
        elif symbol not in known:
            self.values[symbol] = value
        return variable(symbol)

    def _function(self, made_by: Any) -> ast.expr:
        symbol = self.symbols.of(name_of(made_by), key_of(made_by))
        self.values[symbol] = made_by
        return variable(symbol)


def derived(optimizer: optax.GradientTransformation) -> Derivation:
    """The lines in which an optimizer moves θ."""
    return Derivation(optimizer, "g", "θ", Symbols({name: name for name in ("θ", "g", "t")}))

"""An optimizer writes its own update rule."""

import dataclasses
import numbers
import textwrap
from collections.abc import Sequence
from typing import Any

import optax

from adamw_jax.combine import check_transformations
from adamw_jax.core import Description, shown
from adamw_jax.hyperparameters import flag
from adamw_jax.notation.calls import name_of
from adamw_jax.notation.derivation import Group, Line, derived
from adamw_jax.notation.typesetting import LaTeX, Text


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Equations:
    """The update rule of an optimizer: prints as text, and in notebooks as mathematics.

    Attributes:
      lines: the assignments of a step in order, and groups of them for a `partition`.
      values: what the symbols stand for that are neither assigned nor θ, g or t: numbers,
        arrays, functions and masks.
      shows_values: whether the values are printed below the lines.
    """

    lines: Sequence[Line | Group]
    values: dict[str, Any]
    shows_values: bool = False

    def __repr__(self) -> str:
        style, rows = Text(), []
        for line in self.lines:
            if isinstance(line, Line):
                rows.append(f"{style.symbol(line.name)} ← {style.write(line.tree)}")
            else:
                rows += [f"for {line.rule}:", textwrap.indent(repr(self._inside(line)), "  ")]
        return "\n".join([*rows, *self._values(style)])

    def _repr_latex_(self) -> str:
        """The rule in LaTeX."""
        return f"$${self._aligned()}$$"

    def _aligned(self) -> str:
        style, rows = LaTeX(), []
        for line in self.lines:
            if isinstance(line, Line):
                rows.append(rf"{style.symbol(line.name)} &\leftarrow {style.write(line.tree)}")
            else:
                rows.append("&" + style.word(f"for {line.rule}:"))
                rows.append(rf"&\quad {self._inside(line)._aligned()}")
        rows += [f"&{row}" for row in self._values(style)]
        return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"

    def _inside(self, group: Group) -> "Equations":
        return Equations(group.lines, group.values, self.shows_values)

    def _values(self, style: Text) -> list[str]:
        """Rows that say what the symbols stand for, where they do not say so themselves."""
        found, calls = [], []
        for symbol, value in self.values.items():
            text = style.word(" ".join(shown(value).strip("<>").split()))
            if isinstance(value, numbers.Real) and not isinstance(value, bool):
                text = style.number(float(value))
            if not symbol.startswith(name_of(value)):
                found.append(f"{style.symbol(symbol)} = {text}")
            elif isinstance(value, Description):
                calls.append(text)
        rows = [style.comma.join(found)] if found else []
        return [*rows, *calls] if self.shows_values else []


def equations(optimizer: optax.GradientTransformation, *, values: bool = False) -> Equations:
    """Writes the update rule of an optimizer, as it follows from its description.

    For AdamW, `print(equations(adamw(1e-3)))` prints

        m ← m + (1 − β₁)(g − m)
        m̂ ← m / (1 − β₁ᵗ)
        v ← v + (1 − β₂)(g² − v)
        v̂ ← v / (1 − β₂ᵗ)
        θ ← θ − α (m̂ / (√v̂ + ε) + λ θ)

    The lines are in the order in which they are computed. θ is a parameter, g its gradient and
    t the number of the step, from 1; what is remembered from one step to the next is 0 at first.
    A schedule is a function of t − 1. For complex parameters, g² means |g|². `1[…]` is 1 where a
    condition or a mask holds and 0 elsewhere; `mean` is over all numbers of a parameter's array. Of
    a transformation from another library only the name is known, and of a piece that has no entry
    in `adamw_jax.notation.FORMULAS`.

    Args:
      optimizer: any Optax transformation.
      values: whether to print the values of the hyperparameters, too.

    Returns:
      The rule. `repr` is text in Unicode; notebooks show mathematics.

    Raises:
      ValueError: the optimizer is not a gradient transformation, or values is not a flag.
    """
    check_transformations("equations", [optimizer])
    derivation = derived(optimizer)
    return Equations(derivation.lines, derivation.values, flag("values", values))

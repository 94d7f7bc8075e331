"""An optimizer writes its own update rule."""

import dataclasses
import numbers
from collections.abc import Iterator
from typing import Any

import optax

from adamw_jax.combine import check_transformations
from adamw_jax.core import Description, shown
from adamw_jax.hyperparameters import flag
from adamw_jax.notation.calls import name_of
from adamw_jax.notation.derivation import Group, Line, derived
from adamw_jax.notation.typesetting import LaTeX, Text


@dataclasses.dataclass(frozen=True, repr=False)
class Equations:
    """The update rule of an optimizer; prints as text and, in notebooks, in LaTeX.

    Attributes:
      lines: the assignments of a step in order, or groups of them for a `partition`.
      values: what stands for the symbols that no line assigns, other than θ, g and t: numbers,
        arrays, functions and masks.
      with_values: whether the values are printed below the lines.
    """

    lines: list[Line | Group]
    values: dict[str, Any]
    with_values: bool = False

    def __repr__(self) -> str:
        text = Text()
        return "\n".join(
            "  " * depth + (f"{name} ← {rest}" if name else rest)
            for depth, name, rest in self._rows(text, self.lines, self.values)
        )

    def _repr_latex_(self) -> str:
        rows = (
            rf"{name} &\leftarrow {rest}" if name else f"&{rest}"
            for _, name, rest in self._rows(LaTeX(), self.lines, self.values)
        )
        return "$$\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}$$"

    def _rows(
        self, style: Text, lines: list[Line | Group], values: dict[str, Any], depth: int = 0
    ) -> Iterator[tuple[int, str, str]]:
        """The depth of each row, what it assigns, if anything, and the rest of it."""
        for line in lines:
            if isinstance(line, Line):
                yield depth, style.symbol(line.name), style.write(line.tree)
            else:
                yield depth, "", style.word(f"for {line.rule}:")
                yield from self._rows(style, line.lines, line.values, depth + 1)
        written = [w for symbol, value in values.items() if (w := _written(style, symbol, value))]
        if self.with_values and written:
            yield depth, "", ", ".join(written)


def _written(style: Text, symbol: str, value: Any) -> str:
    """Says what a symbol stands for, unless it says so itself."""
    if isinstance(value, numbers.Real):
        return f"{style.symbol(symbol)} = {style.number(float(value))}"
    text = style.word(" ".join(shown(value).strip("<>").split()))
    if symbol.startswith(name_of(value)):
        return text if isinstance(value, Description) else ""
    return f"{style.symbol(symbol)} = {text}"


def equations(optimizer: optax.GradientTransformation, *, values: bool = False) -> Equations:
    """Writes the update rule of an optimizer, derived from its description.

    For AdamW, `print(equations(adamw(1e-3)))` prints

        m ← m + (1 − β₁)(g − m)
        m̂ ← m / (1 − β₁ᵗ)
        v ← v + (1 − β₂)(g² − v)
        v̂ ← v / (1 − β₂ᵗ)
        θ ← θ − α (m̂ / (√v̂ + ε) + λ θ)

    The lines are in the order in which they are computed. θ is a parameter, g its gradient, and
    t the number of the step, from 1; what is remembered from step to step is 0 at first. A
    schedule is called with t − 1. For complex parameters g² is |g|². `1[…]` is 1 where the
    condition or the mask holds and 0 elsewhere. Of a transformation from another library, and of a
    piece without an entry in `adamw_jax.notation.FORMULAS`, only the name is known.

    Args:
      optimizer: any Optax transformation.
      values: whether to print the values of the hyperparameters, too.

    Returns:
      The rule. `repr` is in Unicode; notebooks show it in LaTeX.

    Raises:
      ValueError: the optimizer is not a gradient transformation, or values is not a flag.
    """
    check_transformations("equations", [optimizer])
    derivation = derived(optimizer)
    return Equations(derivation.lines, derivation.values, flag("values", values))

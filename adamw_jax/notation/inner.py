"""What comes out of every piece of an optimizer, step by step."""

import dataclasses
import unicodedata
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax import trees
from adamw_jax.combine import check_transformations
from adamw_jax.hyperparameters import positive_integer
from adamw_jax.notation.calls import name_of
from adamw_jax.notation.derivation import Derivation, derived
from adamw_jax.notation.symbols import Symbols
from adamw_jax.notation.typesetting import Text
from adamw_jax.parameters import listed, parameters

FIRST, LAST = 12, 4  # how many rows of a long table are printed


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class InnerValues:
    """A table with a row for each step; prints as such.

    `values["m̂"]` is a column. With pandas or Polars, `DataFrame(values.columns)` is the table;
    with Matplotlib, `plt.plot(values["t"], values["m̂"])` is a curve.

    Attributes:
      columns: NumPy arrays with a number for each step, by name.
    """

    columns: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        """A column; a hat may be typed in any of Unicode's ways."""
        normal = unicodedata.normalize("NFC", name)
        if normal not in self.columns:
            raise KeyError(f"there is no column {name!r}; there are {', '.join(self.columns)}")
        return self.columns[normal]

    def __len__(self) -> int:
        """The number of steps."""
        return len(self.columns["t"])

    def __repr__(self) -> str:
        steps = range(len(self))
        is_long = len(self) > FIRST + LAST + 1
        shown = [*steps[:FIRST], *steps[-LAST:]] if is_long else steps
        cells = [
            [name, *(f"{column[i]:.4g}" for i in shown)] for name, column in self.columns.items()
        ]
        if is_long:
            cells = [[*column[: FIRST + 1], "…", *column[FIRST + 1 :]] for column in cells]
        return "\n".join(map("  ".join, zip(*map(_aligned, cells), strict=True)))


def _aligned(cells: list[str]) -> list[str]:
    # A combining mark takes no room.
    sizes = [sum(not unicodedata.combining(letter) for letter in cell) for cell in cells]
    return [" " * (max(sizes) - size) + cell for cell, size in zip(cells, sizes, strict=True)]


def inner_values(
    optimizer: optax.GradientTransformation,
    params: optax.Params,
    gradients: Any,
    *,
    steps: int | None = None,
    batches: Any = None,
    path: str | None = None,
    index: int | tuple[int, ...] = (),
) -> InnerValues:
    """Runs an optimizer and records what comes out of each of its pieces, for one number θ.

    The columns are t, the number of the step, from 1; θ before the step and g, its gradient
    there; what comes out of each piece in the order in which they run; and Δθ, the step. They have
    the names that the values have in `equations` or, where a value has none there, the name
    of its piece: `inner_values(adamw(0.1), 1.0, lambda x: 2 * x, steps=50)` has the columns
    t, θ, g, m, m̂, v, v̂, rms_ratio, decoupled_weight_decay and Δθ. The whole run is compiled.

    Args:
      optimizer: any Optax transformation. One from another library, and a `partition`, is one
        piece.
      params: the parameters at the start: a number, an array or a tree.
      gradients: a function of the parameters that returns their gradient, to be called `steps`
        times; or a function of the parameters and a batch, to be called for each of the
        `batches`; or the gradients themselves, in a list or stacked along a first axis.
      steps: ≥ 1, the number of steps, where the gradient is a function of the parameters alone.
      batches: a tree of arrays that are stacked along a first axis.
      path: where θ is in a tree, as `path` in a mask, such as "layers/0/kernel".
      index: the place of θ in its array.

    Returns:
      A table, to be printed or drawn.

    Raises:
      ValueError: steps and batches do not fit the gradients, path or index do not lead to a
        number, a gradient does not have the shape of the parameters, or a parameter is not
        floating-point or complex.
    """
    check_transformations("inner_values", [optimizer])
    trees.check_floating(params, arrays_only=True)
    params = jax.tree.map(jnp.asarray, params)
    gradient, given, length = _gradient(params, gradients, steps, batches)
    theta = _picked(params, path, index)
    derivation = derived(optimizer)
    circuit, end, places = derivation.circuit, derivation.end, _places(derivation)

    def step(carry, batch):
        params, states = carry
        updates = gradient(params, batch)
        _check_shapes(updates, params)
        values, states = circuit.update(updates, states, params, {})
        seen = [params, *(values[place] for place in (0, *places.values(), end))]
        params = optax.apply_updates(params, values[end])
        return (params, states), trees.widen([theta(tree) for tree in seen])

    @jax.jit
    def run(params, given):
        return jax.lax.scan(step, (params, circuit.init(params)), given, length)[1]

    rows = map(np.asarray, run(params, given))
    columns = dict(zip(("θ", "g", *places, "Δθ"), rows, strict=True))
    return InnerValues({"t": np.arange(1, len(columns["g"]) + 1)} | columns)


def _places(derivation: Derivation) -> dict[str, int]:
    """The places of the circuit that have a column, by its name."""
    found, labels = {}, Symbols({name: name for name in ("t", "θ", "g")})
    for call in derivation.calls:
        symbol = derivation.names.get(call.place)
        # The new parameters are the next row's θ, and the end without a symbol is Δθ.
        if call.made_by is not optax.apply_updates and (symbol or call.place != derivation.end):
            label = symbol if symbol and symbol not in labels else name_of(call.made_by)
            found[Text().symbol(labels.new(label))] = call.place
    return found


def _gradient(params, gradients, steps, batches) -> tuple[Callable[..., Any], Any, int | None]:
    """The gradient as a function of parameters and a batch, the batches, and their number."""
    if callable(gradients):
        if (steps is None) == (batches is None):
            raise ValueError(
                f"a gradient function needs either steps or batches, got {steps=} and "
                f"{'no' if batches is None else 'some'} batches"
            )
        if steps is None:
            return gradients, batches, None
        return lambda params, _: gradients(params), None, int(positive_integer("steps", steps))
    if steps is not None or batches is not None:
        raise ValueError("given gradients are one for each step: leave out steps and batches")
    if isinstance(gradients, list):
        gradients = jax.tree.map(lambda *leaves: jnp.stack(jnp.array(leaves)), *gradients)
    given = jax.tree.map(lambda p, g: jnp.asarray(g, p.dtype), params, gradients)
    return lambda params, gradient: gradient, given, None


def _picked(params, path, index) -> Callable[[Any], jax.Array]:
    """The function that finds θ, or what takes its place, in a tree like the parameters."""
    found, leaves = parameters(params), jax.tree.leaves(params, is_leaf=trees.is_none)
    paths = [parameter.path for parameter in found]
    if (path is None and len(paths) != 1) or (path is not None and path not in paths):
        raise ValueError(f"path must be one of these, got {path!r}:\n{listed(found)}")
    place = 0 if path is None else paths.index(path)
    at, shape = index if isinstance(index, tuple) else (index,), jnp.shape(leaves[place])
    if len(at) != len(shape) or not all(-n <= i < n for i, n in zip(at, shape, strict=True)):
        raise ValueError(f"index must pick one number of an array of {shape=}, got {index!r}")
    return lambda tree: jax.tree.leaves(tree, is_leaf=trees.is_none)[place][at]


def _check_shapes(gradient: Any, params: Any) -> None:
    got, expected = ([jnp.shape(x) for x in jax.tree.leaves(tree)] for tree in (gradient, params))
    if got != expected:
        raise ValueError(f"a gradient must have the parameters' shapes {expected}, got {got}")

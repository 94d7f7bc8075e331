"""The sizes at which a network is trained, and the moves from one to another."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import adamw_jax
from experiments.training.loop import steps_per_epoch

AXES = "batch_size", "images", "width", "epochs"


class Cell(NamedTuple):
    """A size of run, within which α and τ are tuned.

    Attributes:
      batch_size: images in a step.
      images: training images.
      width: units of the first hidden layer; the second has half as many.
      epochs: passes over the images.
      b2: β₂.
    """

    batch_size: int
    images: int
    width: int
    epochs: int
    b2: float

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return steps_per_epoch(self.images, self.batch_size)

    def tuned(self, learning_rate: float, weight_decay: float) -> adamw_jax.TunedRun:
        """A run of this size, as the rules take it."""
        return adamw_jax.TunedRun(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            batch_size=self.batch_size,
            examples=self.images,
            epochs=self.epochs,
            width=self.width,
            b2=self.b2,
        )


class Move(NamedTuple):
    """From one cell to another that differs in one size.

    Attributes:
      axis: the size, one of `AXES`.
      factor: by how much it grows.
      old: the index of the cell that was tuned.
      new: the index of the cell to go to.
    """

    axis: str
    factor: float
    old: int
    new: int


def middle(values: Sequence[Any]) -> Any:
    """The value in the middle; of an even number the upper of the two."""
    return values[len(values) // 2]


def design(
    batch_sizes: Sequence[int],
    images: Sequence[int],
    widths: Sequence[int],
    epochs: Sequence[int],
    b2s: Sequence[float],
) -> list[Cell]:
    """All batch sizes × images × widths, and from the middle all epochs, and batch sizes × β₂.

    Args:
      batch_sizes: ascending, like the others.
      images: of these, the widths, the epochs and β₂ the middle value is the base cell's.
      widths: of the first hidden layer.
      epochs: passes.
      b2s: values of β₂.
    """
    b2 = middle(b2s)
    full = itertools.product(batch_sizes, images, widths, [middle(epochs)], [b2])
    base = [middle(images)], [middle(widths)]
    longer = itertools.product([middle(batch_sizes)], *base, epochs, [b2])
    averages = itertools.product(batch_sizes, *base, [middle(epochs)], b2s)
    return [Cell(*sizes) for sizes in dict.fromkeys([*full, *longer, *averages])]


def base(cells: Sequence[Cell]) -> int:
    """The index of the base cell, which has the middle value of every size."""
    values = [sorted({cell[i] for cell in cells}) for i in range(len(Cell._fields))]
    return cells.index(Cell(*map(middle, values)))


def moves(cells: Sequence[Cell]) -> list[Move]:
    """Every ordered pair of cells with the base's β₂ that differ in one size alone."""
    b2 = cells[base(cells)].b2
    pairs = itertools.permutations([i for i, cell in enumerate(cells) if cell.b2 == b2], 2)
    found = []
    for old, new in pairs:
        differ = [axis for axis in AXES if getattr(cells[old], axis) != getattr(cells[new], axis)]
        if len(differ) == 1:
            (axis,) = differ
            factor = getattr(cells[new], axis) / getattr(cells[old], axis)
            found.append(Move(axis, factor, old, new))
    return found


def factors(old: Cell, new: Cell) -> dict[str, tuple[float, float]]:
    """By what each rule multiplies α and λ; rules that agree share a line.

    Returns:
      By the names of the rules, joined, the factors of α and λ. β₂ is left as it is.
    """
    report = adamw_jax.scaling_report(
        old.tuned(1.0, 1.0),
        **{name: getattr(new, name) for name in ("batch_size", "epochs", "width")},
        examples=new.images,
    )
    kinds = report.kinds
    averages = ["same averages"] if "averages" in kinds else []
    same: dict[tuple[str, float, float], list[str]] = {}
    for *rates, decay in itertools.product(
        *(names for kind, names in kinds.items() if kind != "averages")
    ):
        run = report.run(*rates, decay, *averages)
        key = "".join(f"{rate}, " for rate in rates), *_rounded(run)
        same.setdefault(key, []).append(decay)
    return {
        rates + " = ".join(decays).replace("= same ", "= "): (rate, decay)
        for (rates, rate, decay), decays in same.items()
    }


def _rounded(run: adamw_jax.TunedRun) -> tuple[float, float]:
    return float(f"{run.learning_rate:.9g}"), float(f"{run.weight_decay:.9g}")

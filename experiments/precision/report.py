"""What the runs say, in a sentence, tables and a plot."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from adamw_jax import sweep
from experiments.harness import plots
from experiments.harness.formats import listed, signed
from experiments.harness.report import Figure, Report, Table
from experiments.harness.statistics import Difference
from experiments.precision.ways import BASE

AS_GOOD, BETTER, UNCLEAR, WORSE = "as good", "better", "unclear", "worse"


class Compared(NamedTuple):
    """A way and what came of it at a learning rate.

    Attributes:
      name: of the way.
      rate: the learning rate.
      params: bytes for each parameter.
      state: bytes of the optimizer's state for each parameter.
      accuracy: mean test accuracy, percent.
      train_loss: mean training loss in the last epoch.
      more: points of accuracy more than with float32.
      runs: tidy rows, one for each seed.
    """

    name: str
    rate: float
    params: float
    state: float
    accuracy: float
    train_loss: float
    more: Difference
    runs: list[dict[str, Any]]

    @classmethod
    def of(
        cls,
        name: str,
        runs: Sequence[sweep.Result],
        base: Sequence[sweep.Result],
        bytes_each: tuple[float, float],
    ) -> "Compared":
        """Compares the runs of a way with those in float32, seed by seed."""
        ours, theirs = (
            100 * np.array([r.final("test_accuracy") for r in each]) for each in (runs, base)
        )
        loss = float(np.mean([r.final("train_loss") for r in runs]))
        rows = [r.settings | {metric: float(r.final(metric)) for metric in r.metrics} for r in runs]
        rate, more = runs[0].settings["learning_rate"], Difference.of(ours, theirs)
        return cls(name, rate, *bytes_each, float(ours.mean()), loss, more, rows)

    def verdict(self, matters: float) -> str:
        """What the difference says, if differences below `matters` do not matter."""
        if self.more.negligible(matters):
            return AS_GOOD
        return {1: BETTER, 0: UNCLEAR, -1: WORSE}[self.more.sign]


Ways = Mapping[float, Sequence[Compared]]  # by learning rate


def summarize(compared: Ways, seeds: int, matters: float) -> Report:
    """Says which ways cost accuracy.

    Args:
      compared: all ways at each learning rate, float32 first.
      seeds: how many there are.
      matters: points of accuracy, the least difference that matters.
    """
    tables = [_table(rate, ways, seeds, matters) for rate, ways in compared.items()]
    rows = [row for ways in compared.values() for way in ways for row in way.runs]
    figure, finding = _figure(compared, seeds, matters), _finding(compared, matters)
    return Report("", [f"{finding}."], tables, [figure], {"results": rows})


def _finding(compared: Ways, matters: float) -> str:
    """The ways that cost accuracy, and how much the others change it at most."""
    others = [c for ways in compared.values() for c in ways if c.name != BASE]
    worse = [c for c in others if c.verdict(matters) == WORSE]
    most = max(abs(c.more.mean) for c in others if c not in worse)
    if not worse:
        return f"No way changes test accuracy by more than {most:.2f} points"
    costs = listed(f"{c.name}, at α = {c.rate:g} ({signed(c.more.mean)} points)" for c in worse)
    return (
        f"Worse than float32: {costs}. All else changes test accuracy by at most {most:.2f} points"
    )


def _table(rate: float, ways: Sequence[Compared], seeds: int, matters: float) -> Table:
    columns = [
        "", "parameter, bytes", "state, bytes", "test accuracy, %", "minus float32", "verdict",
        "training loss",
    ]  # fmt: skip
    rows = [
        [
            c.name,
            f"{c.params:.2f}",
            f"{c.state:.2f}",
            f"{c.accuracy:.2f}",
            *(["", ""] if c.name == BASE else [c.more.text(2), c.verdict(matters)]),
            f"{c.train_loss:.4f}",
        ]
        for c in ways
    ]
    note = (
        f"Means of {seeds} seeds at the last epoch; points of accuracy more than with float32, "
        "paired by seed, with 95 % intervals. As good: nearer to float32 than "
        f"{matters:g} points by an equivalence test. Bytes for each parameter."
    )
    return Table(f"What fewer bytes cost, α = {rate:g}", columns, rows, note)


def _figure(compared: Ways, seeds: int, matters: float) -> Figure:
    count = len(next(iter(compared.values()))) - 1
    figure, axes = plots.subplots(len(compared), height=1.6 + 0.45 * count, width=12)
    ends = [x for ways in compared.values() for c in ways for x in (c.more.low, c.more.high)]
    widest = min(*ends, -matters) - 0.1, max(*ends, matters) + 0.1
    for axis, (rate, (_, *ways)) in zip(axes[0], compared.items(), strict=True):
        axis.axvspan(-matters, matters, color=plots.BLACK, alpha=0.08, lw=0)
        axis.axvline(0, color=plots.BLACK, lw=1)
        for y, c in enumerate(ways):
            color = plots.VERMILION if c.verdict(matters) == WORSE else plots.BLUE
            axis.plot([c.more.low, c.more.high], [y, y], color=color, solid_capstyle="round")
            axis.plot(c.more.mean, y, "o", color=color, markersize=8)
        labels = [f"{c.name}: {c.params + c.state:.3g} bytes" for c in ways]
        axis.set_yticks(range(count), labels if axis is axes[0, 0] else [""] * count)
        axis.set_ylim(count - 0.5, -0.5)
        axis.set(xlim=widest, title=f"α = {rate:g}", xlabel="points more than float32")
    caption = (
        f"Test accuracy: mean over {seeds} seeds and 95 % interval; grey: less than matters. "
        "Bytes for each parameter, with the optimizer's state; float32 takes 12."
    )
    return Figure("precision", _finding(compared, matters), figure, caption)

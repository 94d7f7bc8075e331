"""What the published rules say when a tuned run is to have another size, side by side.

The rules disagree, and none is chosen here. docs/scaling.md says which of them carried a
setting over in small networks.
"""

import dataclasses
import itertools
import textwrap
from collections.abc import Mapping
from typing import NamedTuple

from adamw_jax.reports.scaling_rules import (
    AVERAGES,
    BATCH,
    DECAY,
    KINDS,
    RULES,
    WIDTH,
    ScalingRule,
    TunedRun,
)
from adamw_jax.reports.tables import printed

SIZES = "batch_size", "examples", "epochs", "width"


class ScalingReport(NamedTuple):
    """What `scaling_report` found; prints as tables.

    Attributes:
      old: the tuned run.
      sizes: the sizes of the new run, by name.
      rules: the rules that have something to say, in the order in which they are applied.
    """

    old: TunedRun
    sizes: Mapping[str, float | None]
    rules: tuple[ScalingRule, ...]

    @property
    def kinds(self) -> dict[str, tuple[str, ...]]:
        """The names of the rules, by what they give."""
        return {
            kind: names
            for kind in KINDS
            if (names := tuple(rule.name for rule in self.rules if rule.gives == kind))
        }

    @property
    def runs(self) -> dict[tuple[str, ...], TunedRun]:
        """The new run by every combination of rules, one of each kind, that is defined."""
        made = {}
        for names in itertools.product(*self.kinds.values()):
            try:
                made[names] = self.run(*names)
            except ValueError:
                continue  # where 'SDE' has no β
        return made

    def run(self, *names: str) -> TunedRun:
        """The new run by the named rules, one of each kind that the report shows.

        Raises:
          ValueError: the report has no such rule, there is not one of each kind, or the rule
            is not defined for so large a batch.
        """
        known = {rule.name: rule for rule in self.rules}
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"no rule is called {unknown[0]!r} here; there are {', '.join(known)}")
        given = sorted(known[name].gives for name in names)
        if given != sorted(self.kinds):
            raise ValueError(
                f"run takes the names of one rule each for {', '.join(self.kinds)}; got "
                f"{', '.join(map(repr, names)) or 'none'}"
            )
        new = dataclasses.replace(self.old, **self.sizes)
        for rule in self.rules:
            if rule.name in names:
                new = rule.apply(self.old, new)
        return new

    def __str__(self) -> str:
        changes = [
            f"{name} {getattr(self.old, name):,g} → {size:,g}"
            for name, size in self.sizes.items()
            if size is not None and size != getattr(self.old, name)
        ]
        if not changes:
            return "Nothing changes: by every rule the run stays as it is."
        tables = _rates(self), _decays(self), _averages(self)
        notes = [
            textwrap.fill(
                f"{rule.name}: {rule.source}. Assumes: {rule.assumes}. Found in: {rule.found}.",
                width=100,
                subsequent_indent="  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            for rule in self.rules
            if rule.found
        ]
        return "\n\n".join([", ".join(changes), *filter(None, tables), "\n".join(notes)])


def scaling_report(
    run: TunedRun,
    *,
    batch_size: float | None = None,
    examples: float | None = None,
    epochs: float | None = None,
    width: float | None = None,
) -> ScalingReport:
    """Shows what every rule makes of a tuned run's hyperparameters at another size.

    The rules contradict each other; the report shows all and chooses none. `report.run` gives
    the new run by the rules that you name, `report.runs` by all combinations.

    Args:
      run: the tuned run.
      batch_size: that of the new run, > 0; by default the same.
      examples: likewise.
      epochs: likewise.
      width: likewise; the tuned run has to have one, too.

    Returns:
      A report, to be printed.

    Raises:
      ValueError: a size is out of range, or `width` is given and the run has none.
    """
    given = {"batch_size": batch_size, "examples": examples, "epochs": epochs, "width": width}
    if width is not None and run.width is None:
        raise ValueError(f"width = {width!r} needs the tuned run's width; give it to TunedRun")
    sizes = {name: getattr(run, name) if x is None else x for name, x in given.items()}
    new = dataclasses.replace(run, **sizes)  # which checks them
    shown = {
        BATCH: new.batch_size != run.batch_size,
        AVERAGES: new.batch_size != run.batch_size,
        WIDTH: new.width != run.width,
        DECAY: True,
    }
    rules = tuple(
        rule
        for rule in RULES
        if shown[rule.gives] and (shown[WIDTH] or rule.name != "root of width")
    )
    return ScalingReport(run, {name: getattr(new, name) for name in SIZES}, rules)


def _rate_runs(report: ScalingReport) -> dict[tuple[str, ...], TunedRun]:
    """The runs by the rules for the learning rate alone, with λ the same."""
    rates = [names for kind, names in report.kinds.items() if kind in (BATCH, WIDTH)]
    rest = [n[0] for kind, n in report.kinds.items() if kind not in (BATCH, WIDTH)]
    return {names: report.run(*names, *rest) for names in itertools.product(*rates)}


def _rates(report: ScalingReport) -> str:
    formulas = {rule.name: rule.formula for rule in report.rules}
    rows = [
        (", ".join(names), f"{run.learning_rate:.4g}", "; ".join(formulas[n] for n in names))
        for names, run in _rate_runs(report).items()
        if names
    ]
    return printed(("learning rate by", "α′", ""), rows) if rows else ""


def _decays(report: ScalingReport) -> str:
    """A column of λ for each learning rate that the rules give."""
    runs = _rate_runs(report)
    first = {f"{run.learning_rate:.4g}": names for names, run in reversed(runs.items())}
    columns = dict(sorted(first.items(), key=lambda item: float(item[0])))
    rest = [names[0] for kind, names in report.kinds.items() if kind == AVERAGES]
    rows = [
        (
            rule.name,
            *(
                f"{report.run(*names, rule.name, *rest).weight_decay:.4g}"
                for names in columns.values()
            ),
            rule.formula,
        )
        for rule in report.rules
        if rule.gives == DECAY
    ]
    return printed(("decay by", *(f"λ′ at α′ = {rate}" for rate in columns), ""), rows)


def _averages(report: ScalingReport) -> str:
    rest = [names[0] for kind, names in report.kinds.items() if kind != AVERAGES]
    rows = []
    for rule in [rule for rule in report.rules if rule.gives == AVERAGES]:
        try:
            run = report.run(*rest, rule.name)
            cells = f"{run.b1:.6g}", f"{run.b2:.6g}", f"{run.eps:.4g}"
        except ValueError:
            cells = "—", "—", "—"
        rows.append((rule.name, *cells, rule.formula))
    return printed(("averages by", "β₁′", "β₂′", "ε′", ""), rows) if rows else ""

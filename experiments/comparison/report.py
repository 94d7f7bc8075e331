"""The comparison's report: what the measurements say, in sentences, tables and plots."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from experiments.comparison import plots, tables
from experiments.comparison.tables import Compared
from experiments.harness.report import Report
from experiments.harness.statistics import Difference

ARM = ["label", "family", "decay", "l2", "weight_decay", "decay_per_step"]


def summarize(title: str, table: pl.DataFrame, steps_per_epoch: int) -> Report:
    """Compares all arms with Adam, which is the first, and makes the report.

    Args:
      title: the title of the report.
      table: the measurements, as `arms.table` returns them.
      steps_per_epoch: the number of optimizer steps in an epoch.
    """
    shown = percent(table)
    last = shown.filter(pl.col("evaluation") == pl.col("evaluation").max())
    means = last.group_by(ARM, maintain_order=True).agg(
        pl.mean("^(train|validation|test)_.*$", "weight_norm"),
        pl.col("test_loss", "test_accuracy").std().name.suffix("_sd"),
    )
    finite = means.filter(pl.col("test_loss").is_finite())
    best = best_of_families(finite)
    compared = compare(last)
    seeds, epochs = last["seed"].n_unique(), last["evaluation"][0]
    findings = [
        *_distinguished([c for c in compared if c.label in set(finite["label"])], seeds),
        _level(means),
        *_diverged(means),
        *_choice(best),
    ]
    chosen = shown.join(best, on="label", how="semi", maintain_order="left") if len(best) else shown
    figures = [
        plots.curves(chosen),
        plots.decays(last, steps_per_epoch),
    ]
    shown_tables = [
        tables.levels(means, seeds, epochs, steps_per_epoch),
        tables.differences(compared, means[1:].n_unique(["l2", "weight_decay"])),
    ]
    return Report(title, findings, shown_tables, figures, {"results": _tidy(table)})


def percent(table: pl.DataFrame) -> pl.DataFrame:
    """The table with accuracies in percent, and the test error."""
    return table.with_columns(pl.col("^.*_accuracy$") * 100).with_columns(
        test_error=100 - pl.col("test_accuracy")
    )


def compare(last: pl.DataFrame) -> list[Compared]:
    """Compares every other arm with the first, seed by seed, by the last evaluations."""
    base, *others = last.partition_by("label", maintain_order=True)

    def difference(runs: pl.DataFrame, metric: str) -> Difference:
        return Difference.of(runs[metric].to_numpy(), base[metric].to_numpy())

    return [
        Compared(
            runs["label"][0],
            runs["family"][0],
            runs["decay"][0],
            difference(runs, "test_accuracy"),
            difference(runs, "test_loss"),
        )
        for runs in others
    ]


def best_of_families(means: pl.DataFrame) -> pl.DataFrame:
    """The arm of each family with the lowest validation loss."""
    lowest = pl.col("validation_loss") == pl.col("validation_loss").min().over("family")
    return means.filter(lowest).unique("family", keep="first", maintain_order=True)


def _level(means: pl.DataFrame) -> str:
    adam = means.row(0, named=True)
    return (
        f"Adam reaches {adam['test_accuracy']:.2f} % test accuracy and "
        f"{adam['test_loss']:.3f} test loss."
    )


def _distinguished(compared: Sequence[Compared], seeds: int) -> list[str]:
    """Which arms differ from Adam."""
    if seeds == 1 or not compared:
        return ["More than one seed is needed to tell whether the others differ."]
    return [
        _sentence("test accuracy", [(c, c.accuracy.sign) for c in compared]),
        _sentence("test loss", [(c, c.loss.sign) for c in compared]),
    ]


def _sentence(what: str, signs: Sequence[tuple[Compared, int]]) -> str:
    parts = []
    for sign, word in {1: "higher", -1: "lower", 0: "not distinguishable"}.items():
        families: dict[str, list[str]] = {}
        for arm, found in signs:
            if found == sign:
                families.setdefault(arm.family, []).append(f"{arm.decay:g}")
        listed = "; ".join(f"{family} {', '.join(d)}" for family, d in families.items())
        parts += [f"{word} with {listed}"] if listed else []
    return f"Compared with Adam's, {what} is {'. It is '.join(parts)}."


def _diverged(means: pl.DataFrame) -> list[str]:
    diverged = means.filter(~pl.col("test_loss").is_finite())
    return [f"{label} diverged: some of its losses are not finite." for label in diverged["label"]]


def _choice(best: pl.DataFrame) -> list[str]:
    listed = "; ".join(
        f"{arm['label']} (test {arm['test_accuracy']:.2f} %, loss {arm['test_loss']:.3f})"
        for arm in best.iter_rows(named=True)
    )
    return [f"Chosen by validation loss in each family: {listed}."] if listed else []


def _tidy(table: pl.DataFrame) -> list[dict[str, Any]]:
    metrics = pl.col("^(train|validation|test)_.*$", "weight_norm")
    arm = ["family", "decay", "l2", "weight_decay", "decay_per_step", "seed"]
    return table.select(*arm, pl.col("evaluation").alias("epoch"), metrics).to_dicts()

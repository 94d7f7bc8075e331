"""The study's report: what the measurements say, in sentences, tables and plots."""

from collections.abc import Mapping, Sequence

import polars as pl

from experiments.harness.report import Report
from experiments.study import choices, plots, tables, verdicts
from experiments.study.choices import METRICS
from experiments.study.tables import DIGITS
from experiments.study.verdicts import Judgement
from experiments.training.arms import ADAM


def summarize(
    title: str,
    table: pl.DataFrame,
    talk: Sequence[float],
    matters: Mapping[str, float],
    missing: Sequence[str],
) -> Report:
    """Chooses the decays, compares the arms, judges the claims and makes the report.

    Args:
      title: the title of the report.
      table: the measurements of all trials that were run, as `Trial.table` returns them.
      talk: values of λ, times α, that the talk may have meant.
      matters: the smallest effect that matters, by metric.
      missing: names of the trials that were not run.
    """
    scores = choices.scores(table)
    chosen = choices.choose(scores)
    fitted = choices.cross_fit(scores)
    effects = verdicts.compare(fitted, choices.rivals(scores, talk))
    judgements = verdicts.judge(effects, matters)
    overfitting = _overfitting(table)
    findings = [
        *_overfits(overfitting),
        *(_verdicts(claim, judgements) for claim in dict.fromkeys(j.claim for j in judgements)),
        *_at_edge(scores, chosen),
        *_diverged(table),
        *([f"Not yet run: {'; '.join(missing)}."] if missing else []),
    ]
    figures = [
        plots.forest(judgements, matters),
        *(
            plots.decays(rows, chosen, talk, f"decays-{i}")
            for i, rows in enumerate(scores.partition_by("task", maintain_order=True), 1)
        ),
    ]
    shown = [
        tables.glance(judgements),
        tables.effects(judgements, matters),
        tables.chosen_decays(scores, chosen, fitted),
        tables.trials(table, overfitting),
    ]
    return Report(title, findings, shown, figures, {"results": _last(table)})


def _overfitting(table: pl.DataFrame) -> pl.DataFrame:
    """Adam's validation loss in each trial, the mean over the seeds: lowest, and at the end."""
    adam = table.filter(pl.col("family") == ADAM)
    by_evaluation = adam.group_by(
        "trial", "task", "schedule", "evaluation", maintain_order=True
    ).agg(pl.mean("validation_loss"))
    return by_evaluation.group_by("trial", "task", "schedule", maintain_order=True).agg(
        lowest=pl.col("validation_loss").nan_min(), last=pl.col("validation_loss").last()
    )


def _overfits(overfitting: pl.DataFrame) -> list[str]:
    """Says whether the premise of the first guess holds."""
    parts = [
        f"{row['ratio']:.2f} times its lowest ({row['task']})"
        for row in overfitting.with_columns(ratio=pl.col("last") / pl.col("lowest")).to_dicts()
        if row["schedule"] == "constant"
    ]
    return [f"Adam overfits where its validation loss ends above its lowest value. It ends at "
            f"{'; '.join(parts)}."] if parts else []  # fmt: skip


def _verdicts(claim: str, judgements: Sequence[Judgement]) -> str:
    """The verdicts on a claim for each metric, with the places or their number."""
    sentences = []
    for metric in METRICS:
        found: dict[str, list[Judgement]] = {}
        for judgement in judgements:
            if (judgement.claim, judgement.metric) == (claim, metric):
                found.setdefault(judgement.verdict, []).append(judgement)
        every = sum(map(len, found.values()))
        most_first = sorted(found.items(), key=lambda item: -len(item[1]))
        said = [f"{word} {_where(alike, every)}" for word, alike in most_first]
        sentences.append(f"In test {metric} {'; '.join(said)}.")
    return f"{claim}? {' '.join(sentences)}"


def _where(alike: Sequence[Judgement], every: int) -> str:
    """The places and their effects; for more than two, their number and the range of effects."""
    shown = [f"{j.interval.mean:+.{DIGITS[j.metric]}f}" for j in alike]
    if len(alike) <= 2:
        places = zip(alike, shown, strict=True)
        return "with " + " and ".join(f"{j.where} ({effect})" for j, effect in places)
    ordered = sorted(zip((j.interval.mean for j in alike), shown, strict=True))
    return f"in {len(alike)} of {every} comparisons ({ordered[0][1]} to {ordered[-1][1]})"


def _at_edge(scores: pl.DataFrame, chosen: pl.DataFrame) -> list[str]:
    """Says which choices are at an end of the values tried, so that others may be better."""
    groups = ["trial", "family"]
    tried = scores.group_by(groups, maintain_order=True).agg(
        least=pl.col("decay").min(), most=pl.col("decay").max()
    )
    at_edge = tried.join(chosen, on=groups, maintain_order="left_right").filter(
        pl.col("family") != ADAM,
        (pl.col("decay") == pl.col("least")) | (pl.col("decay") == pl.col("most")),
    )
    places = [
        f"{row['family']} {row['decay']:g} by {row['metric']} ({row['trial']})"
        for row in at_edge.iter_rows(named=True)
    ]
    return [f"Chosen at an end of what was tried: {'; '.join(places)}."] if places else []


def _diverged(table: pl.DataFrame) -> list[str]:
    """Says which runs became NaN, and when."""
    ended = table.filter(pl.col("status") == "diverged", pl.col("train_loss").is_nan())
    first = ended.unique(["trial", "family", "decay", "seed"], keep="first", maintain_order=True)
    runs = [
        f"λ′ = {row['l2']:g}, λ = {row['weight_decay']:g}, seed {row['seed']}, before evaluation "
        f"{row['evaluation']} ({row['trial']})"
        for row in first.iter_rows(named=True)
    ]
    return [f"Diverged: {'; '.join(runs)}."] if runs else []


def _last(table: pl.DataFrame) -> list[dict[str, object]]:
    """The last measurements of every run, in the precision of the training."""
    metrics = pl.col("^(train|validation|test)_.*$", "weight_norm")
    columns = ["trial", "l2", "weight_decay", "seed", "status"]
    last = choices.last(table).select(*columns, metrics.cast(pl.Float32))
    rows = zip(*(column.to_numpy() for column in last), strict=True)
    return [dict(zip(last.columns, row, strict=True)) for row in rows]

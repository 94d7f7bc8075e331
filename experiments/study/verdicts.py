"""The talk's guesses as comparisons, and the verdict on each."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from experiments.harness.statistics import Difference
from experiments.training.arms import ADAM, ADAMW, L2

OVER_ADAM, OVER_L2, OVERFITTING, DECAY, SCHEDULE = (
    "AdamW does better than Adam",
    "AdamW does better than Adam+L2",
    "(1) AdamW's lead over Adam grows with overfitting",
    "(2) another λ does better than the talk's",
    "(3) AdamW's lead over Adam grows with a schedule",
)
SUPPORTED, REFUTED, REVERSED, UNDECIDED, DIVERGED = (
    "supported", "refuted", "reversed", "undecided", "diverged",
)  # fmt: skip


class Judgement(NamedTuple):
    """What one comparison says about a claim.

    Attributes:
      claim: one of the above; it predicts a positive effect.
      where: the trial, and what it is compared with.
      metric: "accuracy" (points) or "loss".
      interval: the mean effect over the seeds, more accuracy or less loss, with its interval.
      verdict: one of the five above.
    """

    claim: str
    where: str
    metric: str
    interval: Difference
    verdict: str


def compare(fitted: pl.DataFrame, rivals: pl.DataFrame) -> pl.DataFrame:
    """Every comparison that the trials allow, claim by claim.

    Args:
      fitted: as `choices.cross_fit` returns them.
      rivals: as `choices.rivals` returns them.

    Returns:
      The columns `claim`, `where`, `metric`, `seed` and `effect`, which a claim predicts to be
      positive.
    """
    leads = _lead(fitted, ADAM)
    trials = fitted.select("trial", "task", "schedule", "network", "images", "noise")
    trials = trials.unique(maintain_order=True).to_dicts()
    effects = {
        OVER_ADAM: [leads],
        OVER_L2: [_lead(fitted, L2)],
        OVERFITTING: _more_overfitting(leads, trials),
        DECAY: _other_decays(rivals),
        SCHEDULE: _with_schedule(leads, trials),
    }
    return pl.concat(
        rows.select(pl.lit(claim).alias("claim"), "where", "metric", "seed", "effect")
        for claim, parts in effects.items()
        for rows in parts
    )


def judge(effects: pl.DataFrame, matters: Mapping[str, float]) -> list[Judgement]:
    """Judges every comparison by intervals that all together cover with 95 % (Bonferroni).

    Args:
      effects: as `compare` returns them.
      matters: the smallest effect that matters, by metric.
    """
    compared = effects.partition_by("claim", "where", "metric", maintain_order=True, as_dict=True)
    judgements = []
    for (claim, where, metric), rows in compared.items():
        effect = rows["effect"].to_numpy()
        interval = Difference.of(effect, np.zeros_like(effect), len(compared))
        said = verdict(interval, matters[metric])
        judgements.append(Judgement(claim, where, metric, interval, said))
    return judgements


def verdict(interval: Difference, matters: float) -> str:
    """What an interval says about a claim, given the smallest effect that matters.

    Supported: the effect is above zero and perhaps large enough to matter. Reversed: it is below
    zero and perhaps large enough to matter. Refuted: otherwise, if it is too small to matter.
    """
    if np.isnan(interval.mean):
        return DIVERGED
    if interval.low > 0 and interval.high >= matters:
        return SUPPORTED
    if interval.high < 0 and interval.low <= -matters:
        return REVERSED
    return REFUTED if interval.high < matters else UNDECIDED


def _lead(fitted: pl.DataFrame, family: str) -> pl.DataFrame:
    """By how much AdamW is better than another family, in each trial that has both."""
    ours, base = (
        fitted.filter(pl.col("family") == name).select(
            "metric", "seed", where="trial", effect="test"
        )
        for name in (ADAMW, family)
    )
    return _minus(ours, base, on=["where", "metric", "seed"])


def _minus(ours: pl.DataFrame, base: pl.DataFrame, on: Sequence[str]) -> pl.DataFrame:
    joined = ours.join(base, on=on, maintain_order="left", suffix="_base")
    return joined.select(*on, effect=pl.col("effect") - pl.col("effect_base"))


def _growth(leads: pl.DataFrame, trial: str, base: str, where: str) -> pl.DataFrame:
    """By how much the lead is larger in a trial than in another."""
    ours, theirs = (leads.filter(pl.col("where") == name) for name in (trial, base))
    return _minus(ours, theirs, on=["metric", "seed"]).with_columns(where=pl.lit(where))


def _more_overfitting(leads: pl.DataFrame, trials: Sequence[dict]) -> list[pl.DataFrame]:
    """Compares wrong labels with as many right ones, and fewer images with the most."""
    grown = []
    for trial in trials:
        alike = [
            other
            for other in trials
            if not other["noise"]
            and all(other[name] == trial[name] for name in ("schedule", "network"))
            and (other["images"] == trial["images"] or not trial["noise"])
        ]
        base = max(alike, key=lambda other: other["images"], default=trial)
        if base != trial:
            where = f"{trial['trial']}, against {base['images']:,} right"
            grown.append(_growth(leads, trial["trial"], base["trial"], where))
    return grown


def _with_schedule(leads: pl.DataFrame, trials: Sequence[dict]) -> list[pl.DataFrame]:
    """Compares a schedule with the constant rate on the same task."""
    constant = {each["task"]: each["trial"] for each in trials if each["schedule"] == "constant"}
    return [
        _growth(leads, each["trial"], constant[each["task"]], each["trial"])
        for each in trials
        if each["schedule"] != "constant" and each["task"] in constant
    ]


def _other_decays(rivals: pl.DataFrame) -> list[pl.DataFrame]:
    """Compares another λ with the talk's, with right labels and a constant rate as in the talk."""
    asked = rivals.filter(pl.col("schedule") == "constant", pl.col("noise") == 0)
    return [
        rows.with_columns(
            where=pl.lit(f"{trial}, against λ = {decay:g}"), effect=pl.col("test") - pl.col("base")
        )
        for (trial, decay), rows in asked.group_by("trial", "against", maintain_order=True)
    ]

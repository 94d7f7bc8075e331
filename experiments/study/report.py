"""Tables and sentences of the study."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

import adamw_jax
from experiments.harness.formats import timescale
from experiments.harness.report import Report, Table
from experiments.harness.statistics import deviation
from experiments.study import plots as study_plots
from experiments.study import verdicts
from experiments.study.trials import Measured, Trial
from experiments.study.verdicts import METRICS, Comparison

if TYPE_CHECKING:
    from experiments.study.question import Settings

DIGITS = {"accuracy": 2, "loss": 4}


def summarize(measured: Sequence[Measured], missing: Sequence[Trial], chosen: "Settings") -> Report:
    """Makes the report of the trials that were run."""
    alpha = chosen.learning_rate
    talk = sorted({lam for t in chosen.talk for lam in (t, _over_rate(t, alpha))})
    matters = {"accuracy": chosen.matters_accuracy, "loss": chosen.matters_loss}
    compared = verdicts.comparisons(measured, talk)
    findings = [
        *_overfits(measured),
        *(
            _verdicts(claim, compared, matters)
            for claim in dict.fromkeys(c.claim for c in compared)
        ),
        *_at_edge(measured),
        *_diverged(measured),
        *([f"Not yet run: {'; '.join(t.name for t in missing)}."] if missing else []),
    ]
    tasks = dict.fromkeys(m.trial.task for m in measured)
    figures = [
        study_plots.forest(compared, matters),
        *(
            study_plots.decays(
                task, [m for m in measured if m.trial.task == task], alpha, talk, f"decays-{i}"
            )
            for i, task in enumerate(tasks, 1)
        ),
    ]
    tables = [
        _glance(compared, matters),
        _effects(compared, matters),
        _chosen(measured, chosen),
        _setting(measured),
    ]
    title = f"Why did AdamW not beat Adam? A study on {chosen.data}"
    return Report(title, findings, tables, figures, {"results": _tidy(measured)})


def _over_rate(decay: float, alpha: float) -> float:
    return adamw_jax.weight_decay_from_per_step(decay, alpha)


def _overfits(measured: Sequence[Measured]) -> list[str]:
    """Whether the premise of the first guess holds."""
    parts = []
    for m in measured:
        if m.trial.schedule == "constant":
            loss = m.history((0.0, 0.0), "validation_loss").mean(0)
            parts.append(f"{loss[-1] / loss.min():.2f} times its lowest ({m.trial.task})")
    return [f"Adam overfits where its validation loss ends above its lowest value. It ends at "
            f"{'; '.join(parts)}."] if parts else []  # fmt: skip


def _verdicts(claim: str, compared: Sequence[Comparison], matters: dict[str, float]) -> str:
    """What the numbers say of a claim: for each metric the verdicts, and where or how often."""
    sentences = []
    for metric in METRICS:
        found: dict[str, list[tuple[float, str]]] = {}
        for c in compared:
            if (c.claim, c.metric) == (claim, metric):
                interval = c.interval(len(compared))
                says = verdicts.verdict(interval, matters[metric])
                found.setdefault(says, []).append((interval.mean, c.where))
        every, digits = sum(map(len, found.values())), DIGITS[metric]
        most_first = sorted(found.items(), key=lambda item: -len(item[1]))
        said = [f"{word} {_where(places, every, digits)}" for word, places in most_first]
        sentences.append(f"In test {metric} {'; '.join(said)}.")
    return f"{claim}? {' '.join(sentences)}"


def _where(places: Sequence[tuple[float, str]], every: int, digits: int) -> str:
    """The places with their effects, or how many there are and from where to where they go."""
    if len(places) <= 2:
        return "with " + " and ".join(f"{where} ({mean:+.{digits}f})" for mean, where in places)
    means = [mean for mean, _ in places]
    bounds = f"{min(means):+.{digits}f} to {max(means):+.{digits}f}"
    return f"in {len(places)} of {every} comparisons ({bounds})"


def _at_edge(measured: Sequence[Measured]) -> list[str]:
    """Choices beyond which there may be better ones."""
    places = [
        f"{family} {sum(arm):g} by {metric} ({m.trial.name})"
        for m in measured
        for family in ("Adam+L2", "AdamW")
        for metric in METRICS
        if (arms := m.arms(family)) and (arm := m.chosen(family, metric)) in (min(arms), max(arms))
    ]
    listed = "; ".join(places)
    return [f"Chosen at an end of what was tried: {listed}."] if places else []


def _diverged(measured: Sequence[Measured]) -> list[str]:
    """The runs that became NaN, and when."""
    ended = [(m, r) for m in measured for r in m.results if r.status == "diverged"]
    arms = dict.fromkeys(
        f"λ′ = {r.settings['l2']:g}, λ = {r.settings['weight_decay']:g}, seed "
        f"{r.settings['seed']}, before evaluation {r.advance[-1]} ({m.trial.name})"
        for m, r in ended
    )
    return [f"Diverged: {'; '.join(arms)}."] if arms else []


def _glance(compared: Sequence[Comparison], matters: dict[str, float]) -> Table:
    rows = []
    for claim in dict.fromkeys(c.claim for c in compared):
        cells = []
        for metric in METRICS:
            given = [
                verdicts.verdict(c.interval(len(compared)), matters[metric])
                for c in compared
                if (c.claim, c.metric) == (claim, metric)
            ]
            counts = Counter(given).most_common()
            cells.append(", ".join(f"{word} {n} of {len(given)}" for word, n in counts))
        rows.append([claim, *cells])
    return Table(
        "The verdicts",
        ["claim", "in test accuracy", "in test loss"],
        rows,
        "How many of the comparisons below say so.",
    )


def _effects(compared: Sequence[Comparison], matters: dict[str, float]) -> Table:
    by_place = {(c.claim, c.where, c.metric): c.interval(len(compared)) for c in compared}
    rows: list[list[str]] = []
    last = ""
    for claim, where in dict.fromkeys((c.claim, c.where) for c in compared):
        rows += [[claim, "", "", "", ""]] if claim != last else []
        last, cells = claim, []
        for metric in METRICS:
            interval = by_place[claim, where, metric]
            cells += [interval.text(DIGITS[metric]), verdicts.verdict(interval, matters[metric])]
        rows.append([f"– {where}", *cells])
    return Table(
        "The effects that the claims predict to be positive: mean [interval]",
        ["claim", "test accuracy, points", "", "test loss, lower by", ""],
        rows,
        f"Paired by seed. The {len(compared)} intervals together cover with 95 % (Bonferroni). "
        f"Smallest effects that matter: {matters['accuracy']:g} points, {matters['loss']:g} in "
        "loss. The intervals are over weights and order: images, wrong labels and split are fixed.",
    )


def _chosen(measured: Sequence[Measured], chosen: "Settings") -> Table:
    rows: list[list[str]] = []
    for m in measured:
        rows.append([m.trial.name, *[""] * 8])
        for family in ("Adam", "Adam+L2", "AdamW"):
            if not m.arms(family):
                continue
            cells = []
            for metric in METRICS:
                arm, values = m.chosen(family, metric), m.judged(family, metric)
                digits = DIGITS[metric]
                decay = "" if family == "Adam" else f"{sum(arm):g}"
                tau = _tau(arm[1], m.trial, chosen.learning_rate) if family == "AdamW" else ""
                spread = f"{deviation(values):.{digits}f}" if len(values) > 1 else "—"
                cells += [decay, tau, f"{values.mean():.{digits}f}", spread]
            rows.append([f"– {family}", *cells])
    columns = ["trial and arm"]
    columns += ["λ by accuracy", "τ, epochs", "test acc. %", "sd"]
    columns += ["λ by loss", "τ, epochs", "test loss", "sd"]
    return Table(
        f"What validation chose, and its test results: mean of {chosen.seeds} seeds",
        columns,
        rows,
        "λ is that of PyTorch and Optax: a step takes α·λ away, so that the paper's λ is α = "
        f"{chosen.learning_rate:g} times this one. τ is the time in which decay alone takes a "
        "weight to 1/e, at the schedule's peak. Shown is the choice of all seeds; the test results "
        "are those of the choices that the even seeds make for the odd ones and the odd for the "
        "even.",
    )


def _tau(weight_decay: float, trial: Trial, alpha: float) -> str:
    per_step = adamw_jax.per_step_from_weight_decay(weight_decay, alpha)
    return timescale(adamw_jax.timescale_from_per_step(per_step, trial.steps))


def _setting(measured: Sequence[Measured]) -> Table:
    rows = []
    for m in measured:
        final = {name: m.final((0.0, 0.0), name).mean() for name in m.results[0].metrics}
        lowest = m.history((0.0, 0.0), "validation_loss").mean(0).min()
        rows.append(
            [
                m.trial.name,
                f"{m.trial.condition.epochs}",
                f"{m.trial.total:,}",
                f"{len(m.results)}",
                f"{final['train_loss']:.4f}",
                f"{lowest:.4f}",
                f"{final['validation_loss']:.4f}",
                f"{np.median([r.seconds for r in m.results]):.2g}",
            ]
        )
    return Table(
        "The trials, and how far Adam overfits in each",
        ["trial", "epochs", "steps", "runs", "train loss", "lowest valid. loss",
         "last valid. loss", "s per run"],
        rows,
        "Train loss is the mean over the last epoch's minibatches.",
    )  # fmt: skip


def _tidy(measured: Sequence[Measured]) -> list[dict[str, object]]:
    return [
        {
            "trial": m.trial.name,
            **{k: r.settings[k] for k in ("l2", "weight_decay", "seed")},
            "status": r.status,
            **{name: values[-1] for name, values in r.metrics.items()},
        }
        for m in measured
        for r in m.results
    ]

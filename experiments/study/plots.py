"""Plots of the study."""

from typing import Any

import polars as pl

from adamw_jax import per_step_from_weight_decay, timescale_from_per_step
from experiments.harness import plots
from experiments.harness.formats import signed
from experiments.harness.report import Figure
from experiments.harness.statistics import Difference
from experiments.study.evidence import Evidence
from experiments.study.stages import TUNING
from experiments.training.arms import ADAM, ADAMW, L2
from experiments.training.plots import COLORS
from experiments.tuning.candidates import CANDIDATE
from experiments.tuning.choices import best_so_far
from experiments.tuning.measures import ACCURACY, CALIBRATED, LAST, LOSS, MEASURES, STOPPED

AXES = {
    ACCURACY: "points of test accuracy more",
    CALIBRATED: "calibrated test loss, less by",
    LOSS: "test loss, less by",
}
READ = {STOPPED: (plots.BLUE, "both stopped early"), LAST: (plots.ORANGE, "at the last epoch")}


def all_of(evidence: Evidence) -> list[Figure]:
    """The pictures of the page, the one that carries the answer first."""
    return [
        leads(evidence),
        *remains(evidence),
        stopping(evidence),
        curves(evidence),
        budget(evidence),
    ]


def leads(evidence: Evidence) -> Figure:
    """AdamW's leads on the primary tasks, in accuracy and in calibrated loss."""
    primary = list(dict.fromkeys(j.task for j in evidence.judgements))
    rows = [(base, task) for base in (ADAM, L2) for task in primary]
    figure, axes = plots.subplots(2, height=1.6 + 0.55 * len(rows))
    for axis, measure in zip(axes[0], (ACCURACY, CALIBRATED), strict=True):
        plots.no_lead(axis, evidence.matters[measure])
        for y, (base, task) in enumerate(rows):
            lead = evidence.lead(task, measure, base=base)
            plots.interval(axis, lead, y, COLORS[base])
        labels = [f"over {base},\n{task}" for base, task in rows]
        plots.rows(axis, labels if measure == ACCURACY else [""] * len(rows))
        axis.set_xlabel(AXES[measure])
    seeds = evidence.studied[primary[0]].bench.task.seeds
    found = " and ".join(
        f"{signed(evidence.lead(task, ACCURACY).mean)} points ({task})" for task in primary
    )
    return Figure(
        "leads",
        f"AdamW's lead over an Adam that is tuned and stopped alike: {found}",
        figure,
        f"Mean over {seeds} seeds and 95 % interval. Right of zero AdamW is better. The lead over "
        f"{L2} in loss is not among the primary comparisons.",
    )


def remains(evidence: Evidence) -> list[Figure]:
    """What stopping and tuning leave of AdamW's lead, where the talk's settings were run."""
    tasks = [name for name, each in evidence.studied.items() if each.bench.task.talk_seeds]
    if not tasks:
        return []
    rate, numbers = evidence.config.talk_learning_rate, []
    steps = [f"α = {rate:g},\nlast epoch", "both\nstop early", "both tuned,\ntoo"]
    figure, axes = plots.subplots(len(tasks), height=3.6)
    for axis, task in zip(axes[0], tasks, strict=True):
        noisy = evidence.studied[task].bench.task.noise
        raw, tuned = (ACCURACY, ACCURACY) if noisy else (LOSS, CALIBRATED)
        found = [evidence.talk_best(task, read, raw) for read in (LAST, STOPPED)]
        found.append(evidence.lead(task, tuned))
        numbers = [signed(lead.mean, MEASURES[tuned].digits) for lead in found]
        _bars(axis, found, numbers)
        plots.rows(axis, steps if axis is axes[0, 0] else [""] * len(steps))
        axis.set(title=task.replace(", ", ",\n", 1), xlabel=AXES[raw])
    first, second, third = numbers
    return [
        Figure(
            "remains",
            f"AdamW's lead over Adam: {first}; if both stop early {second}, if both are tuned, "
            f"too, {third} ({tasks[-1]})",
            figure,
            f"Mean and 95 % interval. At α = {rate:g}, for both, λ is the one with the best "
            "validation score. Tuned losses are calibrated as well.",
        )
    ]


def _bars(axis: Any, found: list[Difference], numbers: list[str]) -> None:
    """Leads as bars with their intervals and numbers."""
    axis.axvline(0, color=plots.BLACK, lw=1)
    axis.barh(range(len(found)), [lead.mean for lead in found], 0.5, color=plots.SKY)
    for y, (lead, number) in enumerate(zip(found, numbers, strict=True)):
        axis.plot([lead.low, lead.high], [y, y], color=plots.BLACK, lw=1.5)
        axis.annotate(number, (max(lead.high, 0), y), (6, 0),
                      textcoords="offset points", va="center_baseline")  # fmt: skip
    axis.margins(x=0.25)


def stopping(evidence: Evidence) -> Figure:
    """The lead over Adam of tuned arms on every task, at the last epoch and stopped."""
    tasks = list(evidence.studied)
    figure, axes = plots.subplots(2, height=1.4 + 0.85 * len(tasks))
    shown = (ACCURACY, ACCURACY), (LOSS, CALIBRATED)
    for axis, (raw, calibrated) in zip(axes[0], shown, strict=True):
        axis.axvline(0, color=plots.BLACK, lw=1)
        for measure, read, offset in (raw, LAST, -0.12), (calibrated, STOPPED, 0.12):
            color, label = READ[read]
            for y, task in enumerate(tasks):
                lead = evidence.lead(task, measure, read)
                plots.interval(axis, lead, y + offset, color, "" if y else label)
        words = [task.replace(", ", ",\n") for task in tasks]
        plots.rows(axis, words if raw == ACCURACY else [""] * len(tasks))
        axis.set_xlabel(AXES[raw])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=2)
    return Figure(
        "stopping",
        "AdamW's lead over Adam, both tuned, at the last epoch and where both stop early",
        figure,
        "Mean and 95 % interval. Right of zero AdamW is better. The losses of stopped runs are "
        "calibrated as well. The settings are those that tuning chose for stopped runs.",
    )


def curves(evidence: Evidence) -> Figure:
    """Test accuracy and loss over the epochs, of what accuracy chose on the first task."""
    name, each = next(iter(evidence.studied.items()))
    chosen = each.chosen.filter(pl.col("measure") == ACCURACY)
    figure, axes = plots.subplots(2, height=4)
    shown = ("test_accuracy", 100, "test accuracy, %"), ("test_loss", 1, "test loss")
    for axis, (column, scale, label) in zip(axes[0], shown, strict=True):
        lines = []
        for row in chosen.to_dicts():
            asked = pl.DataFrame([row]).select(CANDIDATE)
            runs = each.fresh.join(asked, on=CANDIDATE, how="semi")
            epochs = pl.col("evaluation") * evidence.config.every
            means = (
                runs.filter(epochs <= pl.col("epochs"))
                .group_by(epochs.alias("epoch"), maintain_order=True)
                .agg(mean=pl.mean(column) * scale, sd=pl.std(column) * scale)
            )
            x, mean, sd = (column.to_numpy() for column in means.sort("epoch"))
            color = COLORS[row["family"]]
            lines += axis.plot(x, mean, color=color, label=row["family"])
            axis.fill_between(x, mean - sd, mean + sd, color=color, alpha=0.15, lw=0)
        axis.set(xlabel="epoch", ylabel=label)
        plots.label_ends(axis, [(line, str(line.get_label())) for line in lines])
    return Figure(
        "curves",
        "Test accuracy and test loss over the epochs",
        figure,
        f"{name}, the settings that accuracy chose: mean over the seeds, shaded by one standard "
        "deviation.",
    )


def budget(evidence: Evidence) -> Figure:
    """The best validation score after so many trials, by arm."""
    tasks = list(dict.fromkeys(j.task for j in evidence.judgements))
    figure, axes = plots.subplots(len(tasks), 2, height=3.6)
    for column, task in enumerate(tasks):
        for axis, measure in zip(axes[:, column], (ACCURACY, CALIBRATED), strict=True):
            trials = evidence.studied[task].scores.filter(
                pl.col("stage") == TUNING, pl.col("measure") == measure, pl.col("read") == STOPPED
            )
            bests = {
                str(family): best_so_far(rows["validation"]) * (1 if measure == ACCURACY else -1)
                for (family,), rows in trials.group_by("family", maintain_order=True)
            }
            for family, best in bests.items():
                # One trial alone is so much worse that it would hide how the arms differ.
                trials_made = range(2, len(best) + 1)
                axis.plot(trials_made, best[1:], color=COLORS[family], label=family)
            axis.set_title(f"{task}")
            axis.set(xlabel="trials", ylabel="best validation " + (
                "accuracy, %" if measure == ACCURACY else "loss, calibrated"))  # fmt: skip
    axes[0, 0].legend()
    return Figure(
        "budget",
        "How good the best of so many trials is",
        figure,
        "Expected best validation score of n of each arm's trials, which have one seed each. It is "
        "better than on new images, since it is the best of many.",
    )


def overfitting(evidence: Evidence) -> Figure:
    """AdamW's lead in accuracy against Adam's overfitting, task by task."""
    figure, axes = plots.subplots(1, height=3.6, width=plots.CARD)
    axis = axes[0, 0]
    axis.axhline(0, color=plots.BLACK, lw=1)
    for read, (color, label) in READ.items():
        for i, task in enumerate(evidence.studied):
            at, lead = evidence.overfitting(task), evidence.lead(task, ACCURACY, read)
            axis.plot([at, at], [lead.low, lead.high], color=color, lw=2)
            axis.plot(at, lead.mean, "o", color=color, label=label if i == 0 else "")
    axis.set(xlabel="how far Adam's loss rises again", ylabel="AdamW's lead, points")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower left")
    return Figure(
        "overfitting", "AdamW's lead against Adam's overfitting", figure,
        "A dot for each task, with the 95 % interval over the seeds. To the right: the log of "
        "Adam's last validation loss over its lowest, the median over its trials.",
    )  # fmt: skip


def talk(evidence: Evidence, task: str) -> Figure:
    """AdamW's lead over Adam at the talk's learning rate, over the decay's timescale."""
    config, steps = evidence.config, evidence.studied[task].bench.steps
    figure, axes = plots.subplots(1, height=3.6, width=plots.CARD)
    axis = axes[0, 0]
    axis.axhline(0, color=plots.BLACK, lw=1)
    labels = {plots.ORANGE: "times α", plots.VERMILION: "per step", plots.BLUE: "between"}
    for decay, lead in evidence.talk_leads(task).items():
        per_step = per_step_from_weight_decay(decay, config.talk_learning_rate)
        tau = timescale_from_per_step(per_step, steps)
        times_rate, taken_whole = evidence.talk_times_rate, evidence.talk_per_step
        color = (plots.ORANGE if decay in times_rate else
                 plots.VERMILION if decay in taken_whole else plots.BLUE)  # fmt: skip
        axis.plot([tau, tau], [lead.low, lead.high], color=color, lw=2.5)
        axis.plot(tau, lead.mean, "o", color=color, markersize=8, label=labels.pop(color, ""))
    axis.set(xscale="log", xlabel="decay's timescale τ, epochs", ylabel="points more than Adam")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower left", ncols=3,
                  handletextpad=0, columnspacing=0.8)  # fmt: skip
    return Figure(
        "talk", "What the talk's λ does in each convention", figure,
        f"{task}, last epoch, both at α = {config.talk_learning_rate:g}: the talk's two λ taken "
        "times α and per step, and values between. The weaker a decay, the further right.",
    )  # fmt: skip


def schedules(evidence: Evidence, cosine: str, constant: str) -> Figure:
    """Test accuracy of every arm with a constant rate and with a cosine."""
    figure, axes = plots.subplots(1, height=3.6, width=plots.CARD)
    axis = axes[0, 0]
    lines = []
    for family in (ADAM, L2, ADAMW):
        means = [evidence.mean(task, family, ACCURACY) for task in (constant, cosine)]
        lines += axis.plot([0, 1], means, "o-", color=COLORS[family], label=family)
    axis.set_xticks([0, 1], ["constant rate", "cosine"])
    axis.set(xlim=(-0.3, 1.1), ylabel="test accuracy, %")
    plots.label_ends(axis, [(line, str(line.get_label())) for line in lines])
    return Figure("schedules", "What a cosine adds to each arm", figure,
                  "Means over the seeds, stopped early.")  # fmt: skip

"""When does a network that knows its examples learn the rule?

The task of Power et al. (arXiv 2201.02177): a + b mod p, learnt from some of the pairs (a, b). A
network soon knows those by heart. Whether and when it then gets the other pairs right, all at
once, has been found to depend on weight decay (Liu et al., arXiv 2210.01117). Here AdamW trains
with several decays λ, and nothing else differs.
"""

from typing import Annotated

import msgspec
import numpy as np
from matplotlib.lines import Line2D

import adamw_jax
from adamw_jax import sweep
from experiments.harness import plots, settings
from experiments.harness.context import Context
from experiments.harness.report import Figure, Report, Table
from experiments.harness.sweeps import run_grid
from experiments.training.addition import addition_run, decayed, modular_addition

KNOWS, GENERALIZES = 0.99, 0.95
Runs = dict[float, list[sweep.Result]]  # by λ


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The settings of `configs/grokking.toml`."""

    p: Annotated[int, msgspec.Meta(ge=3, le=10_000), settings.about("the modulus")]
    fraction: Annotated[
        float, msgspec.Meta(gt=0, lt=1), settings.about("fraction of the pairs that are trained on")
    ]
    embedding: Annotated[settings.Count, settings.about("size of a number's embedding")]
    hidden: Annotated[settings.Count, settings.about("width of the hidden layer")]
    learning_rate: Annotated[settings.Positive, settings.about("α, constant")]
    weight_decay: Annotated[
        tuple[settings.NonNegative, ...], settings.SOME, settings.about("λ of AdamW, times α")
    ]
    steps: Annotated[settings.Count, settings.about("optimizer steps, each on all training pairs")]
    evaluations: Annotated[settings.Count, settings.about("evaluations in a run")]
    seeds: Annotated[settings.Count, settings.about("runs of every λ, with seeds 0, 1, …")]


def run(config: Settings, context: Context) -> Report:
    """Trains with every decay."""
    if config.steps % config.evaluations:
        raise settings.SettingsError(
            f"evaluations = {config.evaluations} does not divide {config.steps} steps"
        )
    settings.check_ascending(weight_decay=config.weight_decay)
    pairs = modular_addition(config.p, config.fraction, seed=0)
    for split, name in (pairs["train"], "trained on"), (pairs["test"], "left"):
        if not len(split.sums):
            raise settings.SettingsError(
                f"with p = {config.p} and fraction = {config.fraction:g} no pair is {name}"
            )
    sizes = {
        key: getattr(config, key) for key in ("p", "embedding", "hidden", "steps", "evaluations")
    }
    grid = sweep.product(
        learning_rate=[config.learning_rate],
        weight_decay=config.weight_decay,
        seed=range(config.seeds),
    )
    results = run_grid(
        "grokking",
        addition_run(decayed, **sizes),
        grid,
        lambda: pairs,
        context,
        identity={"fraction": config.fraction, **sizes},
    )
    by_decay = {
        decay: [r for r in results if r.settings["weight_decay"] == decay]
        for decay in config.weight_decay
    }
    return _report(by_decay, config)


def first_above(result: sweep.Result, metric: str, threshold: float, every: int) -> float:
    """The step of the first evaluation with a metric of at least `threshold`; inf if none."""
    reached = np.flatnonzero(result.metrics[metric] >= threshold)
    return every * (reached[0] + 1) if len(reached) else np.inf


def _report(by_decay: Runs, config: Settings) -> Report:
    every = config.steps // config.evaluations
    rows, medians = [], {}
    for decay, runs in by_decay.items():
        knows = [first_above(r, "train_accuracy", KNOWS, every) for r in runs]
        learns = [first_above(r, "test_accuracy", GENERALIZES, every) for r in runs]
        medians[decay] = _median(learns)
        per_step = adamw_jax.per_step_from_weight_decay(decay, config.learning_rate)
        rows.append(
            [
                f"{decay:g}",
                "∞" if per_step == 0 else f"{1 / per_step:,.0f}",
                _steps(_median(knows)),
                _steps(medians[decay]),
                f"{_steps(min(learns))} to {_steps(max(learns))}",
                f"{sum(np.isfinite(learns))} of {len(runs)}",
                f"{100 * np.mean([r.final('test_accuracy') for r in runs]):.1f}",
                f"{np.mean([r.final('weight_norm') for r in runs]):.1f}",
            ]
        )
    table = Table(
        f"a + b mod {config.p}, {100 * config.fraction:g} % of the pairs, {config.seeds} seeds",
        ["λ", "1/(α·λ), steps", f"knows {100 * KNOWS:g} % of its pairs, step",
         f"{100 * GENERALIZES:g} % of the others, step", "range", "runs that do",
         "test acc. % at the end", "‖θ‖"],
        rows,
        f"Medians over the seeds, to {every} steps; never: not within {config.steps:,} steps.",
    )  # fmt: skip
    always = [d for d in by_decay if np.isfinite(medians[d])]
    never = [d for d in by_decay if d not in always]
    findings = [
        *_listed("At least half of the runs generalize with λ = ", always),
        *_listed("Fewer than half of the runs generalize with λ = ", never),
    ]
    if len(always) > 1:
        first, last = min(always), max(always)
        findings.append(
            f"Between λ = {first:g} and {last:g} the median step of generalization goes from "
            f"{_steps(medians[first])} to {_steps(medians[last])}."
        )
    data = [
        {"weight_decay": d, "seed": r.settings["seed"], "step": every * int(a),
         **{k: v[i] for k, v in r.metrics.items()}}
        for d, runs in by_decay.items() for r in runs for i, a in enumerate(r.advance)
    ]  # fmt: skip
    return Report("", findings, [table], [_figure(by_decay, medians, config)], {"results": data})


def _median(steps: list[float]) -> float:
    """The lower median, which is finite where exactly half of the runs get there."""
    return sorted(steps)[(len(steps) - 1) // 2]


def _steps(value: float) -> str:
    return f"{value:,.0f}" if np.isfinite(value) else "never"


def _when(step: float) -> str:
    return f"at step {step:,.0f}" if np.isfinite(step) else "never"


def _listed(start: str, decays: list[float]) -> list[str]:
    return [start + ", ".join(f"{decay:g}" for decay in decays) + "."] if decays else []


def _figure(by_decay: Runs, medians: dict[float, float], config: Settings) -> Figure:
    columns = min(3, len(by_decay))
    figure, axes = plots.subplots(columns, -(-len(by_decay) // columns), height=3)
    every = config.steps // config.evaluations
    colors = {"train": plots.BLACK, "test": plots.BLUE}
    for axis in axes.flat[len(by_decay) :]:
        axis.set_visible(False)
    for axis, (decay, runs) in zip(axes.flat, by_decay.items(), strict=False):
        for r in runs:
            for split, color in colors.items():
                accuracy = 100 * r.metrics[f"{split}_accuracy"]
                axis.plot(every * r.advance, accuracy, color=color, lw=1.5, alpha=0.8)
        axis.set(xscale="log", ylim=(-3, 103), title=f"λ = {decay:g}: {_when(medians[decay])}")
    for axis in axes[-1]:
        axis.set_xlabel("step")
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy, %")
    names = "pairs that are trained on", "pairs left out"
    lines = [Line2D([], [], color=color) for color in colors.values()]
    figure.legend(lines, names, loc="outside lower center", ncols=2)
    first, least = min(by_decay, key=medians.__getitem__), min(by_decay)
    ways = [
        f"{_when(medians[decay])} with λ = {decay:g}" for decay in dict.fromkeys((first, least))
    ]
    title = f"The pairs left out of training come right {', '.join(ways)}"
    caption = (
        "Accuracy on the pairs that are trained on, and on the others; a line for each seed. Above "
        f"each plot, the median step at which {100 * GENERALIZES:g} % of the others are right."
    )
    return Figure("grokking", title, figure, caption)

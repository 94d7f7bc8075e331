"""For which β₁, β₂ and learning rates does Adam's bias correction matter?

Fig. 4 of the Adam paper (arXiv 1412.6980, §6.4), at a size that a CPU can afford: the training
loss of a variational autoencoder over the learning rate α, for two β₁ and three β₂, early and
late in training. The paper finds that without the correction a β₂ near 1 makes the first steps
too long and training unstable, and that with it Adam is at least as good everywhere.
"""

import itertools
from typing import Annotated, Literal

import msgspec
import numpy as np
from matplotlib.lines import Line2D

from adamw_jax import sweep
from experiments.harness import data, plots, settings
from experiments.harness.context import Context
from experiments.harness.report import Figure, Report, Table
from experiments.harness.sweeps import run_grid
from experiments.training.autoencoder import OPTIMIZERS, autoencoder_run, grey
from experiments.training.loop import steps_per_epoch

FAR = 2  # training has failed if the loss is this many times the least
NAMES = {"adam": "corrected", "uncorrected_adam": "not corrected"}
STYLES = {"adam": "-", "uncorrected_adam": "--"}


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The settings of `configs/vae.toml`."""

    data: Annotated[Literal["digits", "fashion-mnist"], settings.about("the data set")]
    hidden: Annotated[settings.Count, settings.about("width of the hidden layers")]
    latent: Annotated[settings.Count, settings.about("size of the code")]
    b1: Annotated[tuple[settings.DecayRate, ...], settings.SOME, settings.about("β₁")]
    b2: Annotated[tuple[settings.DecayRate, ...], settings.SOME, settings.about("β₂")]
    learning_rates: Annotated[
        tuple[settings.Positive, ...], settings.SOME, settings.about("α, constant")
    ]
    early: Annotated[settings.Count, settings.about("epochs after which the loss is shown first")]
    epochs: Annotated[settings.Count, settings.about("passes over the training images")]
    batch_size: Annotated[settings.Count, settings.about("images in a step")]
    seeds: Annotated[settings.Count, settings.about("runs of every setting")]
    tolerance: Annotated[
        settings.Positive, settings.about("nats above the least loss within which a loss is good")
    ]


class Losses(msgspec.Struct, frozen=True):
    """Training loss after some epochs, by optimizer, β₁ and β₂: float64[rates].

    The mean over the seeds; infinite where a run diverged.
    """

    epochs: int
    means: dict[tuple[str, float, float], np.ndarray]

    def of(self, optimizer: str) -> list[np.ndarray]:
        """The losses of one optimizer."""
        return [mean for (name, _, _), mean in self.means.items() if name == optimizer]

    def least(self) -> float:
        """The least loss of all settings."""
        return float(min(mean.min() for mean in self.means.values()))


def run(config: Settings, context: Context) -> Report:
    """Trains with every combination of β₁, β₂ and α, with the correction and without."""
    axes = "b1", "b2", "learning_rates"
    settings.check_ascending(**{key: getattr(config, key) for key in axes})
    steps_per_epoch(data.SIZES[config.data].images, config.batch_size)  # refuses too large a batch
    if config.early > config.epochs:
        raise settings.SettingsError(f"early = {config.early} is after {config.epochs} epochs")
    variants = sweep.product(optimizer=OPTIMIZERS, b1=config.b1, b2=config.b2)
    grid = sweep.product(variants, learning_rate=config.learning_rates, seed=range(config.seeds))

    pixels = data.SIZES[config.data].pixels
    sizes = {key: getattr(config, key) for key in ("hidden", "latent", "batch_size", "epochs")}
    results = run_grid(
        "vae",
        lambda row: autoencoder_run(OPTIMIZERS[row["optimizer"]], pixels, **sizes),
        grid,
        lambda: {"train": grey(data.load(config.data, context.data_dir).train.images)},
        context,
        identity={"data": config.data, **sizes},
    )
    history = np.stack([r.history("train_loss", config.epochs) for r in results])
    history = history.reshape(len(variants), len(config.learning_rates), config.seeds, -1)
    means = np.nan_to_num(history.mean(2), nan=np.inf, posinf=np.inf)
    names = [tuple(row.values()) for row in variants]
    losses = [
        Losses(epochs, dict(zip(names, means[..., epochs - 1], strict=True)))
        for epochs in (config.early, config.epochs)
    ]
    if not np.isfinite(losses[-1].least()):
        raise settings.SettingsError("every run diverged; the learning rates are too large")
    return _report(losses, config)


def _report(losses: list[Losses], config: Settings) -> Report:
    cells = len(config.b1) * len(config.b2) * len(config.learning_rates)
    failed = [
        f"in {count} of {cells} settings {NAMES[name]}" for name, count in _failed(losses).items()
    ]
    findings = [
        f"Training fails {' and '.join(failed)}: it ends at more than {FAR} times the least loss, "
        "or diverges.",
        *(_finding(loss, cells, config.tolerance) for loss in losses),
    ]
    rows = [
        {
            "optimizer": name,
            "b1": b1,
            "b2": b2,
            "learning_rate": a,
            "epochs": loss.epochs,
            "loss": m,
        }
        for loss in losses
        for (name, b1, b2), mean in loss.means.items()
        for a, m in zip(config.learning_rates, mean, strict=True)
    ]
    tables = [_table(loss, config) for loss in losses]
    return Report("", findings, tables, [_figure(losses, config)], {"losses": rows})


def _failed(losses: list[Losses]) -> dict[str, int]:
    """In how many settings of each optimizer training ends far above the least loss."""
    far = FAR * losses[-1].least()
    return {name: sum(int((m > far).sum()) for m in losses[-1].of(name)) for name in OPTIMIZERS}


def _table(loss: Losses, config: Settings) -> Table:
    limit = loss.least() + config.tolerance
    rows = [
        [
            f"{b1:g}",
            f"{b2:g}",
            *(
                cell
                for name in OPTIMIZERS
                for cell in _row(loss.means[name, b1, b2], config, limit)
            ),
            f"{_worse(loss, b1, b2)} of {len(config.learning_rates)}",
        ]
        for b1 in config.b1
        for b2 in config.b2
    ]
    columns = [f"{name}: {what}" for name in NAMES.values() for what in ("least", "good α")]
    return Table(
        f"After {loss.epochs} epochs: training loss, nats",
        ["β₁", "β₂", *columns, "corrected worse"],
        rows,
        f"Least loss over α, and the α whose loss is at most {limit:.1f}, {config.tolerance:g} "
        f"above the least of all. Means of {config.seeds} seeds. Last column: at how many α the "
        "loss is lower without the correction, by more than 0.5.",
    )


def _row(mean: np.ndarray, config: Settings, limit: float) -> list[str]:
    good = [a for a, m in zip(config.learning_rates, mean, strict=True) if m <= limit]
    between = f"{good[0]:.2g} to {good[-1]:.2g}" if good else "none"
    return [f"{mean.min():.2f}", f"{between} ({len(good)})"]


def _worse(loss: Losses, b1: float, b2: float) -> int:
    corrected, uncorrected = (loss.means[name, b1, b2] for name in OPTIMIZERS)
    with np.errstate(invalid="ignore"):  # where both diverged
        return int((corrected > uncorrected + 0.5).sum())


def _finding(loss: Losses, cells: int, tolerance: float) -> str:
    """How many settings are good, and whether the correction ever hurts."""
    limit = loss.least() + tolerance
    good = [sum(int((mean <= limit).sum()) for mean in loss.of(name)) for name in OPTIMIZERS]
    worse = sum(_worse(loss, b1, b2) for _, b1, b2 in loss.means) // len(OPTIMIZERS)
    return (
        f"After {loss.epochs} epochs {good[0]} of {cells} settings are good with the correction "
        f"and {good[1]} without it; it is worse by more than 0.5 nats in {worse}."
    )


def _figure(losses: list[Losses], config: Settings) -> Figure:
    figure, axes = plots.subplots(len(config.b1), len(losses), height=3.6)
    colors = plots.GREEN, plots.BLUE, plots.VERMILION, plots.PURPLE, plots.ORANGE, plots.SKY
    least = min(loss.least() for loss in losses)
    for row, loss in zip(axes, losses, strict=True):
        for axis, b1 in zip(row, config.b1, strict=True):
            for b2, color in zip(config.b2, itertools.cycle(colors)):
                for name, style in STYLES.items():
                    mean = np.minimum(loss.means[name, b1, b2], 1e6)
                    axis.plot(config.learning_rates, mean, style, color=color)
            axis.set(xscale="log", ylim=(0.98 * least, 1.1 * FAR * least))
            axis.set_title(f"after {loss.epochs} epochs, β₁ = {b1:g}")
        row[0].set_ylabel("training loss, nats")
    for axis in axes[-1]:
        axis.set_xlabel("learning rate α")
    key = [
        Line2D([], [], color=color, label=f"β₂ = {b2:g}")
        for b2, color in zip(config.b2, itertools.cycle(colors))
    ]
    key += [
        Line2D([], [], color=plots.BLACK, ls=style, label=NAMES[name])
        for name, style in STYLES.items()
    ]
    figure.legend(handles=key, loc="outside lower center", ncols=len(key))
    caption = (
        "Training loss (negative evidence lower bound per image) over the learning rate, early "
        f"above and late below. What leaves the plot at the top is more than {FAR} times the least "
        "loss, or diverged."
    )
    corrected, uncorrected = (_failed(losses)[name] for name in NAMES)
    cells = len(config.b1) * len(config.b2) * len(config.learning_rates)
    title = (
        f"Of {cells} settings, training fails in {uncorrected} without bias correction, in "
        f"{corrected} with it"
    )
    return Figure("vae", title, figure, caption)

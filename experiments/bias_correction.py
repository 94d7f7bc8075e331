"""How far off are Adam's first steps without bias correction?

The averages m and v start at zero, and after t steps their weights sum only to 1 − βᵗ: they
underestimate E[g] and E[g²] by that factor, which bias correction divides out. Here the gradients
are drawn from N(μ, σ²) for many independent coordinates, so that E[g] = μ and E[g²] = μ² + σ² are
known, and each piece of the library runs on them by itself.

The consequence for the step is less obvious. Without correction both m and √v are too small, and
their ratio is off by (1 − β₁ᵗ) / √(1 − β₂ᵗ), whatever the gradients are: the third plot shows
whether the first steps are too short or too long, and for how long.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from msgspec import Meta

from adamw_jax import adam, bias_correction, chain, momentum, second_moment, uncorrected_adam
from experiments.harness import plots, settings
from experiments.harness.context import Context
from experiments.harness.report import Figure, Report, Table

Truth = dict[str, float]  # E[g] under "m", E[g²] under "v"
Theory = dict[str, np.ndarray]  # the bias of "m", "v" and the resulting "step", float64[steps]


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The settings of `configs/bias-correction.toml`."""

    mean: Annotated[settings.Positive, settings.about("μ of the gradients")]
    deviation: Annotated[settings.NonNegative, settings.about("σ of the gradients")]
    coordinates: Annotated[int, Meta(ge=2, le=10**8, description="independent coordinates")]
    steps: Annotated[settings.Count, settings.about("steps taken")]
    table_steps: Annotated[
        tuple[settings.Count, ...], settings.SOME, settings.about("steps shown in the tables")
    ]
    b1: Annotated[settings.DecayRate, settings.about("decay rate of the momentum")]
    b2: Annotated[settings.DecayRate, settings.about("decay rate of the second moment")]
    eps: Annotated[settings.NonNegative, settings.about("added to the root of v")]
    seed: Annotated[settings.Seed, settings.about("of the gradients")]


def outputs(transformation: optax.GradientTransformation, gradients: jax.Array) -> jax.Array:
    """The updates that a transformation makes of gradients [steps, …], step by step."""

    def step(state: Any, gradient: jax.Array) -> Any:
        update, state = transformation.update(gradient, state)
        return state, update

    return jax.lax.scan(step, transformation.init(gradients[0]), gradients)[1]


class Series(NamedTuple):
    """A quantity over the steps, float64[steps] each.

    Attributes:
      mean: the mean over the coordinates.
      error: the standard error of that mean.
      low: the value below which a tenth of the coordinates lie.
      high: the value above which a tenth of them lie.
    """

    mean: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray


def summarize(values: jax.Array) -> Series:
    """Summarizes values [steps, coordinates] over the coordinates."""
    x = np.asarray(values, np.float64)
    error = x.std(axis=1, ddof=1) / np.sqrt(x.shape[1])
    return Series(x.mean(axis=1), error, *np.quantile(x, (0.1, 0.9), axis=1))


def run(config: Settings, context: Context) -> Report:
    """Draws the gradients and runs every piece on them."""
    del context
    if max(config.table_steps) > config.steps:
        raise settings.SettingsError(f"table_steps go past the last of {config.steps} steps")
    noise = jax.random.normal(jax.random.key(config.seed), (config.steps, config.coordinates))
    gradients = config.mean + config.deviation * noise
    if not jnp.isfinite(gradients**2).all():
        raise settings.SettingsError(
            f"mean = {config.mean:g} and deviation = {config.deviation:g} are too large: squares "
            "of the gradients overflow float32"
        )
    first, second = momentum(config.b1), second_moment(config.b2)
    betas: dict[str, Any] = {"b1": config.b1, "b2": config.b2, "eps": config.eps}
    pieces = {
        "m": first,
        "m_hat": chain(first, bias_correction(config.b1)),
        "v": second,
        "v_hat": chain(second, bias_correction(config.b2)),
    }
    # At learning rate 1 the length of a step is in units of α.
    optimizers = {"uncorrected": uncorrected_adam(1.0, **betas), "corrected": adam(1.0, **betas)}
    series = {name: summarize(outputs(piece, gradients)) for name, piece in pieces.items()}
    series |= {n: summarize(jnp.abs(outputs(tx, gradients))) for n, tx in optimizers.items()}

    t = np.arange(1, config.steps + 1)
    truth = {"m": config.mean, "v": config.mean**2 + config.deviation**2}
    theory = {"m": 1 - config.b1**t, "v": 1 - config.b2**t}
    theory["step"] = theory["m"] / np.sqrt(theory["v"])
    return Report(
        "",
        list(_findings(series, truth, theory)),
        _tables(series, truth, theory, config.table_steps),
        [_figure(series, truth, theory)],
        {
            "bias-correction": [
                {"quantity": name, "step": i + 1, **dict(zip(Series._fields, values, strict=True))}
                for name, s in series.items()
                for i, values in enumerate(zip(*s, strict=True))
            ]
        },
    )


def _findings(series: dict[str, Series], truth: Truth, theory: Theory) -> Iterator[str]:
    lengths = series["uncorrected"].mean, series["corrected"].mean
    ratio = lengths[0] / lengths[1]
    yield (
        f"Without correction the first step is {ratio[0]:.2f} times as long as with it: m is too "
        f"small by a factor of {1 / theory['m'][0]:.3g} and √v by {theory['v'][0] ** -0.5:.3g}."
    )
    peak = int(np.abs(np.log(ratio)).argmax())
    yield (
        f"That ratio is furthest from 1 at step {peak + 1}, {ratio[peak]:.2f}, and still "
        f"{ratio[-1]:.2f} at step {len(ratio)}; all the steps together are "
        f"{lengths[0].sum() / lengths[1].sum():.2f} times as long."
    )
    for x, moment in (("m", "E[g]"), ("v", "E[g²]")):
        share, last = series[x].mean / truth[x], len(theory[x])
        hat = series[f"{x}_hat"]
        off, error = np.abs(hat.mean / truth[x] - 1).max(), (hat.error / truth[x]).max()
        yield (
            f"{x} is {share[0]:#.3g} of {moment} at step 1 and {share[-1]:#.3g} at step {last}, "
            f"where 1 − βᵗ is {theory[x][0]:#.3g} and {theory[x][-1]:#.3g}. Corrected, it is off "
            f"by at most {off:.2%}, with a standard error of up to {error:.2%}."
        )


def _tables(
    series: dict[str, Series], truth: Truth, theory: Theory, steps: Sequence[int]
) -> list[Table]:
    def row(t, x):
        raw, hat = series[x], series[f"{x}_hat"]
        i = t - 1
        return [
            f"{raw.mean[i] / truth[x]:#.3g}",
            f"{theory[x][i]:#.3g}",
            f"{hat.mean[i] / truth[x]:.4f} ± {hat.error[i] / truth[x]:.4f}",
        ]

    def lengths(t):
        without, corrected = (series[x].mean[t - 1] for x in ("uncorrected", "corrected"))
        return [
            f"{x:.3f}" for x in (without, corrected, without / corrected, theory["step"][t - 1])
        ]

    return [
        Table(
            "The moments, as fractions of the true ones",
            ["Step", "m / E[g]", "1 − β₁ᵗ", "m̂ / E[g]", "v / E[g²]", "1 − β₂ᵗ", "v̂ / E[g²]"],
            [[str(t), *row(t, "m"), *row(t, "v")] for t in steps],
            "Means over the coordinates, with their standard error.",
        ),
        Table(
            "The length of the step, in units of the learning rate",
            ["Step", "Without correction", "With", "Ratio", "(1 − β₁ᵗ) / √(1 − β₂ᵗ)"],
            [[str(t), *lengths(t)] for t in steps],
        ),
    ]


def _figure(series: dict[str, Series], truth: Truth, theory: Theory) -> Figure:
    figure, ((first, second, step),) = plots.subplots(3)
    t = np.arange(1, len(theory["m"]) + 1)

    def draw(axis, raw, corrected, predicted, names):
        lines = []
        for name, color in ((raw, plots.VERMILION), (corrected, plots.BLUE)):
            s = series[name]
            band = axis.fill_between(t, s.low, s.high, color=color, alpha=0.15, linewidth=0)
            lines += axis.plot(t, s.mean, color=color)
        (theory,) = axis.plot(t, predicted, ":", color=plots.BLACK)
        axis.set(xlabel="step", xlim=(0, len(t)), ylim=(0, None))
        plots.label_ends(axis, list(zip(lines, names, strict=True)))
        return theory, band

    draw(first, "m", "m_hat", theory["m"] * truth["m"], ("m", "m̂"))
    draw(second, "v", "v_hat", theory["v"] * truth["v"], ("v", "v̂"))
    predicted = theory["step"] * series["corrected"].mean
    key = draw(step, "uncorrected", "corrected", predicted, ("without", "with"))
    first.set_title("m, average of g")
    second.set_title("v, average of g²")
    step.set_title("length of a step / α")
    names = "theory, from 1 − βᵗ", "the middle 80 % of the coordinates"
    figure.legend(key, names, loc="outside lower center", ncols=2)
    longer = series["uncorrected"].mean[0] / series["corrected"].mean[0]
    return Figure(
        "bias-correction",
        f"Without bias correction the first step is {longer:.2g} times as long",
        figure,
        "Means over the coordinates. Red: without bias correction; blue: with. Corrected, both "
        "averages are the true ones from the first step on; in theory the step is then shorter by "
        "(1 − β₁ᵗ) / √(1 − β₂ᵗ).",
    )

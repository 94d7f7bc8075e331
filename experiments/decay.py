"""How much does each parameter really shrink under Adam+L2 and under AdamW?

Parameters start at the same value and get gradients from N(0, σ²), which on average do not move
them: whatever the mean parameter loses, the decay has taken. With the same nominal decay λ, AdamW
should take αλ per step from every parameter, whatever σ is. Adam with λθ in the gradient divides
it by √v̂, where v̂ is about σ² + (λθ)²: it should take αλ/√v̂. Every sequence of gradients drives
two parameters, with opposite signs, so that the noise cancels in their mean.

The left plot shows groups of parameters that should decay alike and do not; the right one shows
AdamW's flat line, Adam+L2's, which falls as 1/σ, and what happens where λθ is larger than the
gradients.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax import adam_l2, adamw
from experiments.harness import plots, settings
from experiments.harness.context import Context
from experiments.harness.report import Figure, Report, Table

L2, ADAMW = "Adam+L2", "AdamW"
COLORS = {L2: plots.VERMILION, ADAMW: plots.BLUE}
Measured = dict[str, np.ndarray]  # by optimizer


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The settings of `configs/decay.toml`."""

    start: Annotated[settings.Positive, settings.about("θ, every parameter at step 0")]
    pairs: Annotated[settings.Count, settings.about("pairs of parameters in a group")]
    scales: Annotated[
        tuple[settings.Positive, settings.Positive],
        settings.about("σ of the gradients of the two groups"),
    ]
    steps: Annotated[settings.Count, settings.about("steps of the two groups")]
    recorded_every: Annotated[settings.Count, settings.about("steps between two recorded points")]
    sweep_scales: Annotated[
        tuple[settings.Positive, ...], settings.SOME, settings.about("σ over a range")
    ]
    sweep_steps: Annotated[settings.Count, settings.about("steps for each of sweep_scales")]
    learning_rate: Annotated[settings.Positive, settings.about("α")]
    weight_decay: Annotated[settings.Positive, settings.about("λ of both optimizers")]
    b1: Annotated[settings.DecayRate, settings.about("decay rate of the momentum")]
    b2: Annotated[settings.DecayRate, settings.about("decay rate of the second moment")]
    eps: Annotated[settings.NonNegative, settings.about("added to the root of v")]
    seed: Annotated[settings.Seed, settings.about("of the gradients")]


def mean_path(
    optimizer: optax.GradientTransformation,
    scale: jax.typing.ArrayLike,
    start: float,
    pairs: int,
    steps: int,
    key: jax.Array,
) -> jax.Array:
    """The mean parameter after each step under gradients N(0, scale²), float32[steps]."""

    def step(carry: Any, key: jax.Array) -> Any:
        params, state = carry
        noise = scale * jax.random.normal(key, (pairs,))
        updates, state = optimizer.update(jnp.concatenate([noise, -noise]), state, params)
        moved: Any = optax.apply_updates(params, updates)
        return (moved, state), moved.mean()

    params = jnp.full(2 * pairs, start)
    carry = params, optimizer.init(params)
    return jax.lax.scan(step, carry, jax.random.split(key, steps))[1]


def shrink_rate(remaining: np.ndarray, steps: int) -> np.ndarray:
    """The fraction lost per step that leaves `remaining` after `steps`; NaN if it is negative."""
    with np.errstate(invalid="ignore"):
        return 1 - np.asarray(remaining, np.float64) ** (1 / steps)


def run(config: Settings, context: Context) -> Report:
    """Measures the two groups, then groups over a range of scales."""
    del context
    common: dict[str, Any] = {"b1": config.b1, "b2": config.b2, "eps": config.eps}
    optimizers = {
        L2: adam_l2(config.learning_rate, l2=config.weight_decay, **common),
        ADAMW: adamw(config.learning_rate, weight_decay=config.weight_decay, **common),
    }
    key = jax.random.key(config.seed)

    def remaining(optimizer, scales, steps):
        """Fractions of the start, [scales, steps]."""

        def path(scale):
            return mean_path(optimizer, scale, config.start, config.pairs, steps, key)

        return np.asarray(jax.jit(jax.vmap(path))(jnp.array(scales))) / config.start

    ways = {name: remaining(tx, config.scales, config.steps) for name, tx in optimizers.items()}
    rates = {name: shrink_rate(way[:, -1], config.steps) for name, way in ways.items()}
    short = {
        name: remaining(tx, config.sweep_scales, config.sweep_steps)[:, -1]
        for name, tx in optimizers.items()
    }
    sweep = {name: shrink_rate(left, config.sweep_steps) for name, left in short.items()}
    return Report(
        "",
        list(_findings(ways, rates, sweep, config)),
        [_table(ways, rates, config)],
        [_figure(ways, rates, sweep, config)],
        {
            "groups": [
                {"optimizer": name, "scale": scale, "step": step + 1, "remaining": float(way[step])}
                for name, paths in ways.items()
                for scale, way in zip(config.scales, paths, strict=True)
                for step in range(config.recorded_every - 1, config.steps, config.recorded_every)
            ],
            "sweep": [
                {
                    "optimizer": name,
                    "scale": scale,
                    "rate": float(rate),
                    "predicted": float(predicted(name, scale, config)),
                }
                for name, rates in sweep.items()
                for scale, rate in zip(config.sweep_scales, rates, strict=True)
            ],
        },
    )


def predicted(optimizer: str, scale: float | np.ndarray, config: Settings) -> np.ndarray:
    """The fraction that, in theory, a parameter at its start value loses per step."""
    nominal = config.learning_rate * config.weight_decay
    if optimizer == ADAMW:
        return np.full_like(scale, nominal, dtype=np.float64)
    return nominal / (np.hypot(scale, config.weight_decay * config.start) + config.eps)


def _table(ways: Measured, rates: Measured, config: Settings) -> Table:
    nominal = config.learning_rate * config.weight_decay
    rows = [
        [name, f"{scale:g}", f"{way[-1]:.4f}", f"{rate:.3e}", f"{rate / nominal:.3f}"]
        + [f"{predicted(name, scale, config) / nominal:.3f}"]
        for name in ways
        for scale, way, rate in zip(config.scales, ways[name], rates[name], strict=True)
    ]
    return Table(
        f"Two groups of parameters, {config.steps:,} steps",
        ["Optimizer", "σ of gradients", "Left", "Lost per step", "÷ αλ", "Predicted ÷ αλ"],
        rows,
        f"αλ = {nominal:g}. Predicted: αλ for AdamW, αλ/√(σ² + λ²θ²) at the start for Adam+L2.",
    )


def _findings(ways: Measured, rates: Measured, sweep: Measured, config: Settings) -> Iterator[str]:
    nominal = config.learning_rate * config.weight_decay
    first, second = config.scales
    more = {name: a / b for name, (a, b) in rates.items()}
    yield (
        f"Where its gradients are {second / first:g} times smaller, a parameter loses "
        f"{more[L2]:#.3g} times as much to Adam+L2's decay and {more[ADAMW]:#.3g} times as much "
        "to AdamW's."
    )
    for name in (ADAMW, L2):
        a, b = rates[name]
        left_a, left_b = ways[name][:, -1]
        yield (
            f"{name} takes {a:#.3g} of a parameter per step where σ = {first:g} and {b:#.3g} where "
            f"σ = {second:g}, with αλ = {nominal:#.3g}; after {config.steps:,} steps {left_a:.1%} "
            f"and {left_b:.1%} are left."
        )
    scales = np.array(config.sweep_scales)
    off = {
        name: np.abs(rate / predicted(name, scales, config) - 1).max()
        for name, rate in sweep.items()
    }
    yield (
        f"From σ = {scales.min():g} to {scales.max():g}, AdamW's rate is within {off[ADAMW]:.2%} "
        f"of αλ, and Adam+L2's within {off[L2]:.1%} of αλ/√(σ² + λ²θ²)."
    )
    least = scales.argmin()
    yield (
        f"At σ = {scales[least]:g}, λθ is {config.weight_decay * config.start / scales[least]:.3g} "
        f"times as large as the gradients. Adam+L2 takes {sweep[L2][least]:.3g} per step: αλ/σ "
        f"would be {nominal / scales[least]:.3g}, and α/θ, a full step of Adam whatever λ is, "
        f"{config.learning_rate / config.start:.3g}."
    )


def _figure(ways: Measured, rates: Measured, sweep: Measured, config: Settings) -> Figure:
    figure, ((groups, over_scales),) = plots.subplots(2, height=4.4)
    t = np.arange(1, config.steps + 1)
    kept = t % config.recorded_every == 0
    lines = [
        (
            groups.plot(t[kept] / 1000, 100 * way[kept], style, color=color)[0],
            f"{name}, σ = {scale:g}",
        )
        for name, color in COLORS.items()
        for scale, way, style in zip(config.scales, ways[name], ("-", "--"), strict=True)
    ]
    groups.set(title="what is left of a parameter, %", xlabel="1,000 steps", ylim=(0, None))
    groups.set_xlim(0, None)
    scales = np.geomspace(min(config.sweep_scales), max(config.sweep_scales), 200)
    predictions = []
    for name, color in COLORS.items():
        over_scales.plot(config.sweep_scales, sweep[name], "o", color=color)
        predictions += over_scales.plot(scales, predicted(name, scales, config), color=color)
    over_scales.set(title="fraction lost per step", xlabel="σ, deviation of the gradients")
    over_scales.set(xscale="log", yscale="log")
    plots.label_ends(groups, lines)
    plots.label_ends(over_scales, list(zip(predictions, COLORS, strict=True)))
    small, large = np.argsort(config.scales)
    ratio = config.scales[large] / config.scales[small]

    def speed(name: str) -> str:
        faster = rates[name][small] / rates[name][large]
        return "just as fast" if abs(faster - 1) < 0.01 else f"{faster:.3g} times as fast"

    return Figure(
        "decay",
        f"Where gradients are {ratio:.3g} times smaller, Adam+L2 decays parameters {speed(L2)}, "
        f"AdamW {speed(ADAMW)}",
        figure,
        "Left: the mean parameter of two groups, which differ in the deviation σ of their "
        "gradients. Right: measured (dots) and predicted (lines): αλ for AdamW, αλ/√(σ² + λ²θ²) "
        "for Adam+L2.",
    )

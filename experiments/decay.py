"""How much each parameter really shrinks: L2 in Adam's gradient, and AdamW's decay.

Parameters start at the same value and get gradients of mean zero, N(0, σ²), which do not
move them on average: whatever the mean parameter loses, the decay has taken. With the same
nominal decay λ, AdamW should take αλ per step of every parameter, whatever σ. Adam with λθ
in the gradient divides it by √v̂, whose square is about σ² + (λθ)²: it should take αλ/√v̂.
Every sequence of gradients drives two parameters, with opposite signs, so that noise leaves
their mean alone.

Look on the left for groups of parameters that should decay alike and do not; on the right
for AdamW's flat line, for L2's, which falls as 1/σ, and for what it does where λθ is larger
than the gradients.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from msgspec import Meta

from adamw_jax import adam_l2, adamw
from experiments.harness import plots, settings
from experiments.harness.context import Context
from experiments.harness.report import Figure, Report, Table

L2, ADAMW = "Adam+L2", "AdamW"
COLORS = {L2: plots.VERMILION, ADAMW: plots.BLUE}
Measured = dict[str, np.ndarray]  # by optimizer


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The parameters, their gradients and the optimizers."""

    start: Annotated[settings.Positive, settings.about("θ, every parameter at step 0")]
    pairs: Annotated[settings.Count, settings.about("pairs of parameters in a group")]
    scales: Annotated[
        tuple[settings.Positive, settings.Positive],
        settings.about("σ of the gradients of the two groups"),
    ]
    steps: Annotated[settings.Count, settings.about("steps of the two groups")]
    recorded_every: Annotated[settings.Count, settings.about("steps between points on their way")]
    sweep_scales: Annotated[
        tuple[settings.Positive, ...], Meta(min_length=1, description="σ over a range")
    ]
    sweep_steps: Annotated[settings.Count, settings.about("steps for each of these")]
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
    """The share lost per step that leaves `remaining` of the start; NaN below zero."""
    with np.errstate(invalid="ignore"):
        return 1 - np.asarray(remaining, np.float64) ** (1 / steps)


def run(chosen: Settings, context: Context) -> Report:
    """Shrinks the two groups, then groups over a range of scales."""
    del context
    common: dict[str, Any] = {"b1": chosen.b1, "b2": chosen.b2, "eps": chosen.eps}
    optimizers = {
        L2: adam_l2(chosen.learning_rate, l2=chosen.weight_decay, **common),
        ADAMW: adamw(chosen.learning_rate, weight_decay=chosen.weight_decay, **common),
    }
    key = jax.random.key(chosen.seed)

    def remaining(optimizer, scales, steps):
        """Shares of the start, [scales, steps]."""

        def path(scale):
            return mean_path(optimizer, scale, chosen.start, chosen.pairs, steps, key)

        return np.asarray(jax.jit(jax.vmap(path))(jnp.array(scales))) / chosen.start

    ways = {name: remaining(tx, chosen.scales, chosen.steps) for name, tx in optimizers.items()}
    rates = {name: shrink_rate(way[:, -1], chosen.steps) for name, way in ways.items()}
    short = {
        name: remaining(tx, chosen.sweep_scales, chosen.sweep_steps)[:, -1]
        for name, tx in optimizers.items()
    }
    sweep = {name: shrink_rate(left, chosen.sweep_steps) for name, left in short.items()}
    return Report(
        "How much does each parameter shrink under Adam+L2 and under AdamW?",
        list(_findings(ways, rates, sweep, chosen)),
        [_table(ways, rates, chosen)],
        [_figure(ways, sweep, chosen)],
        {
            "groups": [
                {"optimizer": name, "scale": scale, "step": step + 1, "remaining": float(way[step])}
                for name, paths in ways.items()
                for scale, way in zip(chosen.scales, paths, strict=True)
                for step in range(chosen.recorded_every - 1, chosen.steps, chosen.recorded_every)
            ],
            "sweep": [
                {
                    "optimizer": name,
                    "scale": scale,
                    "rate": float(rate),
                    "predicted": float(predicted(name, scale, chosen)),
                }
                for name, rates in sweep.items()
                for scale, rate in zip(chosen.sweep_scales, rates, strict=True)
            ],
        },
    )


def predicted(optimizer: str, scale: float | np.ndarray, chosen: Settings) -> np.ndarray:
    """The share that theory lets a parameter at the start lose per step."""
    nominal = chosen.learning_rate * chosen.weight_decay
    if optimizer == ADAMW:
        return np.full_like(scale, nominal, dtype=np.float64)
    return nominal / (np.hypot(scale, chosen.weight_decay * chosen.start) + chosen.eps)


def _table(ways: Measured, rates: Measured, chosen: Settings) -> Table:
    nominal = chosen.learning_rate * chosen.weight_decay
    rows = [
        [name, f"{scale:g}", f"{way[-1]:.4f}", f"{rate:.3e}", f"{rate / nominal:.3f}"]
        + [f"{predicted(name, scale, chosen) / nominal:.3f}"]
        for name in ways
        for scale, way, rate in zip(chosen.scales, ways[name], rates[name], strict=True)
    ]
    return Table(
        f"Two groups of parameters, {chosen.steps:,} steps",
        ["Optimizer", "σ of gradients", "Left", "Lost per step", "÷ αλ", "Predicted ÷ αλ"],
        rows,
        f"αλ = {nominal:g}. Predicted: αλ for AdamW, αλ/√(σ² + λ²θ²) at the start for Adam+L2.",
    )


def _findings(ways: Measured, rates: Measured, sweep: Measured, chosen: Settings) -> Iterator[str]:
    nominal = chosen.learning_rate * chosen.weight_decay
    first, second = chosen.scales
    for name in (ADAMW, L2):
        a, b = rates[name]
        left_a, left_b = ways[name][:, -1]
        yield (
            f"{name} takes {a:#.3g} of a parameter per step where σ = {first:g} and {b:#.3g} where "
            f"σ = {second:g}, {a / b:#.3g} to 1, with αλ = {nominal:#.3g}; after {chosen.steps:,} "
            f"steps {left_a:.1%} and {left_b:.1%} are left."
        )
    scales = np.array(chosen.sweep_scales)
    off = {
        name: np.abs(rate / predicted(name, scales, chosen) - 1).max()
        for name, rate in sweep.items()
    }
    yield (
        f"From σ = {scales.min():g} to {scales.max():g}, AdamW's rate is within {off[ADAMW]:.2%} "
        f"of αλ, and Adam+L2's within {off[L2]:.1%} of αλ/√(σ² + λ²θ²)."
    )
    least = scales.argmin()
    yield (
        f"At σ = {scales[least]:g}, λθ is {chosen.weight_decay * chosen.start / scales[least]:.3g} "
        f"times as large as the gradients. Adam+L2 takes {sweep[L2][least]:.3g} per step: αλ/σ "
        f"would be {nominal / scales[least]:.3g}, and α/θ, a full step of Adam whatever λ is, "
        f"{chosen.learning_rate / chosen.start:.3g}."
    )


def _figure(ways: Measured, sweep: Measured, chosen: Settings) -> Figure:
    figure, ((groups, rates),) = plots.subplots(2, height=4)
    t = np.arange(1, chosen.steps + 1)
    kept = t % chosen.recorded_every == 0
    for name, color in COLORS.items():
        for scale, way, style in zip(chosen.scales, ways[name], ("-", "--"), strict=True):
            groups.plot(t[kept], way[kept], style, color=color, label=f"{name}, σ = {scale:g}")
    nominal = chosen.learning_rate * chosen.weight_decay
    groups.plot(t[kept], (1 - nominal) ** t[kept], ":", color=plots.BLACK, label="(1 − αλ)ᵗ")
    groups.set(title="mean parameter / its start", xlabel="step", ylim=(0, None))
    groups.legend()
    scales = np.geomspace(min(chosen.sweep_scales), max(chosen.sweep_scales), 200)
    for name, color in COLORS.items():
        rates.plot(chosen.sweep_scales, sweep[name], "o", color=color, label=name)
        rates.plot(scales, predicted(name, scales, chosen), color=color, lw=1)
    rates.plot(scales, nominal / scales, ":", color=plots.BLACK, label="αλ/σ")
    rates.set(title="share lost per step", xlabel="σ of the gradients", xscale="log", yscale="log")
    rates.legend()
    return Figure(
        "decay",
        figure,
        "Left: the mean parameter of each group. Right: measured (dots) over a range of gradients, "
        "and predicted (lines).",
    )

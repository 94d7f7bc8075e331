"""Momentum on a parabola, adaptive steps on a paraboloid.

On y = x² gradient descent slows down as the slope flattens. Momentum steps along the mean
of the gradients so far, which on the way down are larger than the present one: it comes
in faster, may run past the minimum, and turns. Is it there earlier for that? Both start
at the same point with the same learning rate, over a range of rates.

On z = 10x² + y² the gradient is the vector (20x, 2y). A fixed step must suit the steep x,
and y trudges; Adam divides each coordinate by the size of its own gradients. Do the two
then advance together, and is that faster?

Look in the first figure for the overshoot and the turn, and for the rates at which
momentum settles first; in the second for the bent and the straight way to the minimum.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from msgspec import Meta

from adamw_jax import adam, gd, momentum_gd, uncorrected_adam
from experiments import plots, settings
from experiments.context import Context
from experiments.report import Figure, Report, Table

Rate = settings.Positive
DecayRate = Annotated[float, Meta(ge=0, lt=1)]

COLOURS = {
    "gradient descent": plots.BLUE,
    "momentum": plots.VERMILION,
    "Adam without correction": plots.ORANGE,
    "Adam": plots.GREEN,
}


class Settings(settings.Settings):
    """Where the descents start, how they step, and when they have arrived."""

    start: Annotated[settings.Positive, Meta(description="every coordinate at step 0")]
    tolerance: Annotated[
        settings.Positive, Meta(description="settled once all coordinates stay this near to 0")
    ]
    steps: Annotated[settings.Count, Meta(description="length of every descent")]
    b1: Annotated[DecayRate, Meta(description="decay rate of the momentum")]
    b2: Annotated[DecayRate, Meta(description="decay rate of the second moment")]
    drawn_rates: Annotated[
        tuple[Rate, ...], Meta(min_length=1, description="learning rates on y = x², drawn")
    ]
    timed_rates: Annotated[
        tuple[Rate, ...], Meta(description="further learning rates on y = x², settling time only")
    ]
    curvatures: Annotated[
        tuple[settings.Positive, settings.Positive],
        Meta(description="a and b of the paraboloid z = a x² + b y²"),
    ]
    fixed_rate: Annotated[Rate, Meta(description="learning rate of the fixed steps on it")]
    adaptive_rate: Annotated[Rate, Meta(description="learning rate of the adaptive steps on it")]
    compared_at: Annotated[settings.Count, Meta(description="step at which x and y are compared")]


class Descent(NamedTuple):
    """A way down and its marks.

    Attributes:
      optimizer: its name.
      rate: its learning rate.
      path: the coordinates at every step, float32[steps + 1, coordinates].
      settled: the step from which all stay within the tolerance; infinity if they never do.
      overshoot: how far past the minimum one of them went, 0 if none did.
      turn: the step at which it was that far.
    """

    optimizer: str
    rate: float
    path: np.ndarray
    settled: float
    overshoot: float
    turn: int


def descend(
    optimizer: optax.GradientTransformation, curvatures: jax.Array, start: float, steps: int
) -> jax.Array:
    """Descends Σ cᵢ xᵢ² from x = start; gives every x, float32[steps + 1, coordinates]."""
    gradient = jax.grad(lambda x: jnp.sum(curvatures * x**2))

    def step(carry, _):
        x, state = carry
        updates, state = optimizer.update(gradient(x), state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    first = jnp.full_like(curvatures, start)
    _, path = jax.lax.scan(step, (first, optimizer.init(first)), length=steps)
    return jnp.concatenate([first[None], path])


def descents(
    name: str,
    optimizer: Callable[[jax.Array], optax.GradientTransformation],
    rates: Sequence[float],
    curvatures: Sequence[float],
    chosen: Settings,
) -> list[Descent]:
    """Descends Σ cᵢ xᵢ² once for every learning rate, and marks the ways."""

    def path(rate):
        return descend(optimizer(rate), jnp.array(curvatures), chosen.start, chosen.steps)

    def marked(rate, path):
        outside = np.flatnonzero(~(np.abs(path) <= chosen.tolerance).all(1))  # a NaN is outside
        settled = outside[-1] + 1 if len(outside) else 0
        lowest = path.min(1)
        return Descent(
            name,
            rate,
            path,
            float(settled) if settled < len(path) else np.inf,
            max(0.0, -float(lowest.min())),
            int(lowest.argmin()),
        )

    return list(map(marked, rates, np.asarray(jax.vmap(path)(jnp.array(rates)))))


def run(chosen: Settings, context: Context) -> Report:
    """Descends both surfaces."""
    del context
    if chosen.compared_at > chosen.steps:
        raise settings.SettingsError(f"compared_at is past the last of {chosen.steps} steps")
    momentum = functools.partial(momentum_gd, b1=chosen.b1)
    rates = sorted({*chosen.drawn_rates, *chosen.timed_rates})
    plain = descents("gradient descent", gd, rates, [1.0], chosen)
    heavy = descents("momentum", momentum, rates, [1.0], chosen)
    line = [d for pair in zip(plain, heavy, strict=True) for d in pair]

    fixed, adaptive = [chosen.fixed_rate], [chosen.adaptive_rate]
    early = functools.partial(uncorrected_adam, b1=chosen.b1, b2=chosen.b2)
    full = functools.partial(adam, b1=chosen.b1, b2=chosen.b2)
    bowl = [
        *descents("gradient descent", gd, fixed, chosen.curvatures, chosen),
        *descents("momentum", momentum, fixed, chosen.curvatures, chosen),
        *descents("Adam without correction", early, adaptive, chosen.curvatures, chosen),
        *descents("Adam", full, adaptive, chosen.curvatures, chosen),
    ]
    drawn = [d for d in line if d.rate in chosen.drawn_rates]
    a, b = chosen.curvatures
    return Report(
        "What does momentum do on a parabola, and an adaptive step on a paraboloid?",
        [*_parabola_findings(plain, heavy, chosen), *_paraboloid_findings(bowl, chosen)],
        [
            _table("The parabola y = x²", drawn, chosen),
            _table(f"The paraboloid z = {a:g}x² + {b:g}y²", bowl, chosen),
        ],
        [_draw_parabola(plain, heavy, chosen), _draw_paraboloid(bowl, chosen)],
        {
            "parabola": _rows(drawn),
            "paraboloid": _rows(bowl),
            "settled": [
                {"optimizer": d.optimizer, "learning_rate": d.rate, "settled": d.settled}
                for d in line
            ],
        },
    )


def _rows(ways: Sequence[Descent]) -> list[dict[str, Any]]:
    return [
        {"optimizer": d.optimizer, "learning_rate": d.rate, "step": step}
        | dict(zip("xy", x, strict=False))
        for d in ways
        for step, x in enumerate(d.path.tolist())
    ]


def _count(d: Descent) -> str:
    return f"{d.settled:.0f}" if np.isfinite(d.settled) else f"over {len(d.path) - 1}"


def _covered(d: Descent, chosen: Settings) -> np.ndarray:
    return 1 - d.path[chosen.compared_at] / chosen.start


def _table(title: str, ways: Sequence[Descent], chosen: Settings) -> Table:
    coordinates = "xy"[: ways[0].path.shape[1]]
    covered = [f"{c} covered by step {chosen.compared_at}" for c in coordinates]
    return Table(
        title,
        ["Optimizer", "Learning rate", "Settled at step", "Overshoot", "Turns at step", *covered],
        [
            [d.optimizer, f"{d.rate:g}", _count(d)]
            + ([f"{d.overshoot:.3f}", f"{d.turn}"] if d.overshoot else ["none", "–"])
            + [f"{share:.1%}" for share in _covered(d, chosen)]
            for d in ways
        ],
        f"From {' = '.join(coordinates)} = {chosen.start:g}. Settled: all within "
        f"{chosen.tolerance:g} of the minimum from there on.",
    )


def _parabola_findings(plain: Sequence[Descent], heavy: Sequence[Descent], chosen: Settings):
    def told(d):
        turn = f"overshoots by {d.overshoot:.2g}, turns at step {d.turn} and"
        return f"{turn if d.overshoot else 'never passes it and'} settles at step {_count(d)}"

    for d, m in zip(plain, heavy, strict=True):
        if d.rate in chosen.drawn_rates:
            yield (
                f"On the parabola with learning rate {d.rate:g}, gradient descent {told(d)}; "
                f"momentum {told(m)}."
            )
    sooner = [m.rate for d, m in zip(plain, heavy, strict=True) if m.settled < d.settled]
    d, m = (min(ways, key=lambda d: d.settled) for ways in (plain, heavy))
    yield (
        f"Momentum settles first at {len(sooner)} of {len(plain)} learning rates from "
        f"{plain[0].rate:g} to {plain[-1].rate:g}"
        + (f", the largest of them {sooner[-1]:g}" if sooner else "")
        + f"; at its best rate it needs {_count(m)} steps, gradient descent at its own {_count(d)}."
    )


def _paraboloid_findings(bowl: Sequence[Descent], chosen: Settings):
    covered = {d.optimizer: _covered(d, chosen) for d in bowl}
    yield f"On the paraboloid, {chosen.compared_at} steps cover " + ", ".join(
        f"{x:.1%} of the way in x and {y:.1%} in y under {name}"
        for name, (x, y) in covered.items()
    ) + "."
    apart = np.abs(np.diff(bowl[-1].path)).max()
    yield f"Under Adam x and y are never more than {apart:.1g} apart: " + (
        "it goes straight to the minimum, as if both curvatures were the same."
        if apart <= chosen.tolerance
        else "the curvatures show in its way, too."
    )
    balanced = min(bowl, key=lambda d: abs(np.subtract(*covered[d.optimizer])))
    first = min(bowl, key=lambda d: d.settled)
    yield (
        f"The most balanced way, {balanced.optimizer}'s, settles at step {_count(balanced)}; "
        f"the first to settle is {first.optimizer} at step {_count(first)}."
    )


def _draw_parabola(plain: Sequence[Descent], heavy: Sequence[Descent], chosen: Settings) -> Figure:
    figure, ((*axes, last),) = plots.subplots(len(chosen.drawn_rates) + 1)
    for ax, rate in zip(axes, chosen.drawn_rates, strict=True):
        shown = [d for d in (*plain, *heavy) if d.rate == rate]
        for d in shown:
            ax.plot(d.path, color=COLOURS[d.optimizer], label=d.optimizer)
            if d.overshoot > chosen.tolerance:
                ax.plot(d.turn, -d.overshoot, "o", color=COLOURS[d.optimizer])
                ax.annotate(
                    f"turns at step {d.turn}", (d.turn, -d.overshoot), (0, -14),
                    textcoords="offset points", ha="center", fontsize=9,
                )  # fmt: skip
        end = min(1.3 * max(d.settled for d in shown), chosen.steps)
        ax.set(title=f"learning rate {rate:g}", xlabel="step", ylabel="x", xlim=(0, end))
        ax.set_ylim(bottom=-0.4 * chosen.start)
    for ways in (plain, heavy):
        last.plot(
            [d.rate for d in ways], [d.settled for d in ways], "o-", markersize=4,
            color=COLOURS[ways[0].optimizer],
        )  # fmt: skip
    last.set(
        title=f"until |x| stays within {chosen.tolerance:g}",
        xlabel="learning rate", ylabel="steps", xscale="log", yscale="log",
    )  # fmt: skip
    axes[0].legend()
    return Figure(
        "parabola",
        figure,
        "The way down y = x² at some learning rates, and the steps until it has settled at many.",
    )


def _draw_paraboloid(bowl: Sequence[Descent], chosen: Settings) -> Figure:
    figure, ((fixed, adaptive, progress),) = plots.subplots(3)
    ends = np.array([[d.path.min(), d.path.max()] for d in bowl])
    low, high = ends.min() - 0.1 * chosen.start, ends.max() + 0.1 * chosen.start
    x, y = np.meshgrid(*2 * [np.linspace(low, high, 200)])
    a, b = chosen.curvatures
    height = a * x**2 + b * y**2
    for ax, ways, title in ((fixed, bowl[:2], "fixed step"), (adaptive, bowl[2:], "adaptive step")):
        levels = height.max() * np.linspace(0.05, 1, 10) ** 2
        ax.contour(x, y, height, levels, colors="0.8", linewidths=0.8)
        for d in ways:
            ax.plot(*d.path.T, ".-", color=COLOURS[d.optimizer], markersize=5, linewidth=1, label=d.optimizer)
        ax.plot(0, 0, "+", color=plots.BLACK)
        ax.grid(False)
        ax.set(title=title, xlabel="x", ylabel="y", aspect="equal")
        ax.legend(loc="lower right")
    for d in (bowl[0], bowl[-1]):
        for i, line in enumerate(("-", "--")):
            progress.plot(
                np.abs(d.path[:, i]), line, color=COLOURS[d.optimizer], label=f"{d.optimizer}, {'xy'[i]}"
            )
    end = min(1.1 * max(bowl[0].settled, bowl[-1].settled), chosen.steps)
    progress.set(title="distance from the minimum", xlabel="step", yscale="log", xlim=(0, end))
    progress.set_ylim(bottom=chosen.tolerance / 10)
    progress.legend()
    return Figure("paraboloid", figure, "…")

"""What does momentum change on y = x², and an adaptive step on z = 10x² + y²?

On y = x² gradient descent slows down as the slope flattens. Momentum steps along the mean of the
gradients so far, which on the way down are larger than the present one: it comes in faster, may
run past the minimum, and turns back. Does it arrive earlier for that? Both start at the same
point, with the same learning rate, over a range of rates.

On z = 10x² + y² the gradient is the vector (20x, 2y). A fixed step must suit the steep x, so y
makes slow progress; Adam divides each coordinate by the size of its own gradients. Do the two
coordinates then advance together, and is that faster?

The first figure shows the overshoot and the turn, and the rates at which momentum settles first;
the second shows the bent and the straight path to the minimum.
"""

import functools
from collections.abc import Iterator
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adamw_jax import adam, gd, momentum_gd
from experiments.harness import plots, settings
from experiments.harness.context import Context
from experiments.harness.report import Figure, Report, Table

Rate = settings.Positive
Way = tuple[str, float]  # the optimizer's name and its learning rate
Ways = dict[Way, np.ndarray]  # the paths, float32[steps + 1, coordinates]

GD, MOMENTUM, ADAM = "gradient descent", "momentum", "Adam"
COLORS = {GD: plots.BLUE, MOMENTUM: plots.ORANGE, ADAM: plots.GREEN}


class Settings(settings.Settings, frozen=True, kw_only=True):
    """The settings of `configs/surfaces.toml`."""

    start: Annotated[settings.Positive, settings.about("every coordinate at step 0")]
    tolerance: Annotated[
        settings.Positive, settings.about("settled once all coordinates stay this close to 0")
    ]
    steps: Annotated[settings.Count, settings.about("length of every descent")]
    b1: Annotated[settings.DecayRate, settings.about("decay rate of the momentum")]
    b2: Annotated[settings.DecayRate, settings.about("decay rate of the second moment")]
    drawn_rates: Annotated[
        tuple[Rate, ...], settings.SOME, settings.about("learning rates on y = x², drawn")
    ]
    timed_rates: Annotated[
        tuple[Rate, ...], settings.about("more learning rates on y = x², settling time only")
    ]
    curvatures: Annotated[
        tuple[settings.Positive, settings.Positive],
        settings.about("a and b of the paraboloid z = a x² + b y²"),
    ]
    fixed_rate: Annotated[Rate, settings.about("learning rate of the fixed steps on it")]
    adaptive_rate: Annotated[Rate, settings.about("learning rate of the adaptive steps on it")]
    compared_at: Annotated[settings.Count, settings.about("step at which x and y are compared")]


def descend(
    optimizer: optax.GradientTransformation, curvatures: jax.Array, start: float, steps: int
) -> jax.Array:
    """Minimizes Σ cᵢ xᵢ² from x = start; returns every x, float32[steps + 1, coordinates]."""
    gradient = jax.grad(lambda x: jnp.sum(curvatures * x**2))

    def step(carry: Any, _: None) -> Any:
        x, state = carry
        updates, state = optimizer.update(gradient(x), state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    first = jnp.full_like(curvatures, start)
    _, path = jax.lax.scan(step, (first, optimizer.init(first)), length=steps)
    return jnp.concatenate([first[None], path])


def settled(path: np.ndarray, tolerance: float) -> float:
    """The step from which all coordinates stay within the tolerance; infinity if there is none."""
    outside = np.flatnonzero(~(np.abs(path) <= tolerance).all(axis=1))  # a NaN is outside
    step = outside[-1] + 1 if len(outside) else 0
    return step if step < len(path) else np.inf


def run(config: Settings, context: Context) -> Report:
    """Descends both surfaces."""
    del context
    if config.compared_at > config.steps:
        raise settings.SettingsError(f"compared_at is past the last of {config.steps} steps")
    optimizers = {
        GD: gd,
        MOMENTUM: functools.partial(momentum_gd, b1=config.b1),
        ADAM: functools.partial(adam, b1=config.b1, b2=config.b2),
    }

    def paths(name, rates, curvatures):
        def path(rate):
            optimizer = optimizers[name](rate)
            return descend(optimizer, jnp.array(curvatures), config.start, config.steps)

        found = np.asarray(jax.vmap(path)(jnp.array(rates)))
        if not np.isfinite(found).all():
            raise settings.SettingsError(
                f"{name} diverges at learning rate {max(rates):g}: lower it"
            )
        return {(name, rate): path for rate, path in zip(rates, found, strict=True)}

    rates = sorted({*config.drawn_rates, *config.timed_rates})
    parabola = paths(GD, rates, [1.0]) | paths(MOMENTUM, rates, [1.0])
    times = {way: settled(path, config.tolerance) for way, path in parabola.items()}
    drawn = {(n, r): parabola[n, r] for r in config.drawn_rates for n in (GD, MOMENTUM)}
    paraboloid = (
        paths(GD, [config.fixed_rate], config.curvatures)
        | paths(MOMENTUM, [config.fixed_rate], config.curvatures)
        | paths(ADAM, [config.adaptive_rate], config.curvatures)
    )
    surfaces = {"y = x²": drawn, "z = {:g} x² + {:g} y²".format(*config.curvatures): paraboloid}
    return Report(
        "",
        [*_parabola_findings(drawn, times), *_paraboloid_findings(paraboloid, config)],
        [_table(surface, ways, config) for surface, ways in surfaces.items()],
        [_parabola_figure(drawn, times, config), _paraboloid_figure(paraboloid, config)],
        {
            "paths": [
                {"surface": surface, "optimizer": name, "learning_rate": rate, "step": step}
                | {"x": x[0], "y": x[1] if len(x) > 1 else None}
                for surface, ways in surfaces.items()
                for (name, rate), path in ways.items()
                for step, x in enumerate(path.tolist())
            ],
            "settled": [
                {"optimizer": name, "learning_rate": rate, "settled": time}
                for (name, rate), time in times.items()
            ],
        },
    )


def _table(surface: str, ways: Ways, config: Settings) -> Table:
    at = config.compared_at
    rows = [
        [name, f"{rate:g}", f"{settled(path, config.tolerance):g}"]
        + ([f"{-path.min():.3f}", f"{_turn(path)}"] if path.min() < 0 else ["none", "–"])
        + [f"{x:.4f}" for x in path[at]]
        for (name, rate), path in ways.items()
    ]
    return Table(
        f"On {surface}, from {config.start:g}",
        ["Optimizer", "α", "Settled", "Overshoot", "Turn", *(f"{x}, step {at}" for x in "xy")][
            : len(rows[0])
        ],
        rows,
        f"Settled: the step from which all coordinates stay within {config.tolerance:g} of the "
        f"minimum (inf: not in {config.steps} steps). Turn: where one is furthest past it.",
    )


def _turn(path: np.ndarray) -> int:
    return int(path.min(axis=1).argmin())


def _settling(time: float) -> str:
    return f"settles at step {time:g}" if np.isfinite(time) else "does not settle"


def _parabola_findings(drawn: Ways, times: dict[Way, float]) -> Iterator[str]:
    rates, sooner = _rates(times)
    best = {n: min(times[n, rate] for rate in rates) for n in (GD, MOMENTUM)}
    yield (
        f"On the parabola momentum settles before gradient descent at {len(sooner)} of "
        f"{len(rates)} learning rates"
        + (f", the largest of them {max(sooner):g}" if sooner else "")
        + f". Each at its best rate, gradient descent takes {best[GD]:g} steps and momentum "
        f"{best[MOMENTUM]:g}."
    )
    (name, rate), path = min(drawn.items(), key=lambda way: way[1].min())
    if path.min() < 0:
        yield (
            f"At learning rate {rate:g}, {name} runs {-path.min():.2g} past the minimum and turns "
            f"at step {_turn(path)}."
        )


def _rates(times: dict[Way, float]) -> tuple[list[float], list[float]]:
    """All learning rates, and those at which momentum settles first."""
    rates = [rate for name, rate in times if name == GD]
    return rates, [rate for rate in rates if times[MOMENTUM, rate] < times[GD, rate]]


def _paraboloid_findings(ways: Ways, config: Settings) -> Iterator[str]:
    apart = _apart(ways)
    yield f"On the paraboloid Adam's x and y are never more than {apart:.1g} apart: " + (
        "√v̂ cancels the curvatures, and it moves on a straight line, past the minimum and back."
        if apart <= config.tolerance
        else "the curvatures show in its way."
    )
    reached = (
        f"{x:.2g} and {y:.2g} with {name}, which {_settling(settled(path, config.tolerance))}"
        for (name, _), path in ways.items()
        for x, y in [path[config.compared_at]]
    )
    yield f"After {config.compared_at} steps x and y are {'; '.join(reached)}."


def _apart(ways: Ways) -> float:
    """How far x and y are apart at most under Adam, the last of the ways."""
    *_, path = ways.values()
    return np.abs(np.diff(path)).max()


def _parabola_figure(drawn: Ways, times: dict[Way, float], config: Settings) -> Figure:
    figure, ((*axes, last),) = plots.subplots(len(config.drawn_rates) + 1)
    for axis, rate in zip(axes, config.drawn_rates, strict=True):
        slowest = min(max(times[name, rate] for name in (GD, MOMENTUM)), config.steps)
        for name in (GD, MOMENTUM):
            path = drawn[name, rate]
            axis.plot(path, color=COLORS[name], label=name)
            if path.min() < 0:
                turn = _turn(path)
                axis.plot(turn, path.min(), "o", color=COLORS[name])
                side = "right" if turn > slowest / 2 else "left"
                axis.annotate(f"turns at step {turn}", (turn, path.min()), (0, -8), ha=side,
                              va="top", textcoords="offset points", color=COLORS[name])  # fmt: skip
        axis.set(title=f"x, learning rate {rate:g}", xlabel="step", xlim=(0, 1.1 * slowest))
        axis.margins(y=0.15)
    for way, time in times.items():
        last.loglog(way[1], time, "o", color=COLORS[way[0]], markersize=6)
    last.set(title=f"steps until |x| ≤ {config.tolerance:g}", xlabel="learning rate")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    rates, sooner = _rates(times)
    return Figure(
        "parabola",
        f"Down y = x² momentum settles first at {len(sooner)} of {len(rates)} learning rates",
        figure,
        "Where x is after each step, and after how many steps it stays near the minimum. Dots on a "
        "path: where it is furthest past the minimum.",
    )


def _paraboloid_figure(ways: Ways, config: Settings) -> Figure:
    figure, ((contours, progress),) = plots.subplots(2, height=4.6)
    low, high = np.min(list(ways.values())), np.max(list(ways.values()))
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    x, y = np.meshgrid(*[np.linspace(low, high, 200)] * 2)
    height = config.curvatures[0] * x**2 + config.curvatures[1] * y**2
    levels = height.max() * np.linspace(0, 1, 12)[1:] ** 2
    contours.contour(x, y, height, levels, colors="0.8", linewidths=0.8)
    contours.set(title="from above, a dot per step", xlabel="x", ylabel="y", aspect="equal")
    contours.grid(False)
    for (name, _), path in ways.items():
        contours.plot(*path.T, ".-", color=COLORS[name], label=name, linewidth=1.2)
        if name != MOMENTUM:
            progress.plot(path[:, 0], color=COLORS[name], lw=5, alpha=0.4)
            progress.plot(path[:, 1], "--", color=COLORS[name])
    slowest = min(max(settled(path, config.tolerance) for path in ways.values()), config.steps)
    progress.set(title="x (broad) and y (dashed)", xlabel="step", xlim=(0, slowest))
    figure.legend(*contours.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return Figure(
        "paraboloid",
        "Adam goes straight to the minimum, x and y together"
        if _apart(ways) <= config.tolerance
        else "Adam's x and y part on the way to the minimum",
        figure,
        "Down the paraboloid, on its contours and coordinate by coordinate. Where the dashed line "
        "lies on the broad one, x and y advance together.",
    )

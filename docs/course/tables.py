"""The tables behind the lessons' sliders, computed by sweeps.

    .venv/bin/python -m docs.course.tables

writes docs/course/tables/*.json. Two of them are small sweeps, done at once; the others are read
from the kept runs of the landscapes. `_static/sliders.js` says what a table holds.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl
from rich.console import Console

import adamw_jax as aj
from adamw_jax import sweep
from experiments import landscape
from experiments.harness import settings
from experiments.harness.context import Context
from experiments.training.arms import PER_STEP, TIMES_RATE
from experiments.training.loop import steps_per_epoch

TABLES = Path(__file__).parent / "tables"
IN_ALL = 120  # steps on the parabola
NEAR = 0.01
BIAS_STEPS = 50

Row = dict[str, Any]


def parabola() -> Row:
    """Gradient descent with momentum on y = x², from x = 1, over β₁ and α."""
    axes = {"b1": [0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99], "learning_rate": [0.02, 0.1, 0.3, 1.0]}

    def optimizer(h):
        return aj.momentum_gd(h["learning_rate"], h["b1"])

    paths = _paths(optimizer, lambda x: 2 * x, IN_ALL, axes)
    near = [_first_step_from_which(np.abs(path) < NEAR) for path in paths]
    panel = {
        "title": "x on y = x²",
        "alt": "The position over the steps, which starts at 1; the minimum is at 0.",
        "over": [0, 1],
        "x": {"name": "step", "values": list(range(IN_ALL + 1))},
        "range": [-1.2, 1.2],
        "curves": {"x": _rounded(paths)},
        "numbers": {
            "lowest x": _rounded(paths.min(1)),
            f"|x| stays below {NEAR} from step": near,
        },
    }
    return {
        "sliders": _sliders(axes, {"b1": "β₁", "learning_rate": "α"}, (4, 1)),
        "panels": [panel],
    }


def bias_correction() -> Row:
    """The length of Adam's steps with and without bias correction, where the gradient is 1."""
    axes = {"b1": [0.0, 0.5, 0.9, 0.99], "b2": [0.9, 0.99, 0.999, 0.9999]}
    kinds = {
        "with the correction": lambda h: aj.adam(1.0, h["b1"], h["b2"]),
        "without it": lambda h: aj.uncorrected_adam(1.0, h["b1"], h["b2"]),
    }
    steps = {
        name: -np.diff(_paths(make, lambda x: x * 0 + 1, BIAS_STEPS, axes))
        for name, make in kinds.items()
    }
    without = steps["without it"]
    near = [_first_step_from_which(np.abs(lengths - 1) < 0.1, 1) for lengths in without]
    panel = {
        "title": "Length of a step, in units of α",
        "alt": "The lengths of the first steps with bias correction, always 1, and without it.",
        "over": [0, 1],
        "x": {"name": "step", "values": list(range(1, BIAS_STEPS + 1))},
        "range": [0, 8],
        "curves": {name: _rounded(lengths) for name, lengths in steps.items()},
        "numbers": {
            "first step without it": _rounded(without[:, 0]),
            "longest step without it": _rounded(without.max(1)),
            "within 10 % of 1 from step": near,
        },
    }
    return {"sliders": _sliders(axes, {"b1": "β₁", "b2": "β₂"}, (2, 2)), "panels": [panel]}


def rate_and_decay() -> Row:
    """Test error of a real network over α and λ, with right and with wrong labels."""
    maps = {"right labels": "landscape", "30 % wrong labels": "landscape-wrong-labels"}
    panels = [_map(title, name, TIMES_RATE, [0, 1]) for title, name in maps.items()]
    config = _config("landscape")
    axes = {"α": config.learning_rates, "λ": config.weight_decay}
    return {"sliders": _sliders(axes, {}, (3, 0)), "panels": panels}


def conventions() -> Row:
    """Test error over α and λ where λ is multiplied by α, and where it is not."""
    name = "landscape-wrong-labels"
    panels = [
        _map("λ times α, as in PyTorch and Optax", name, TIMES_RATE, [0, 1]),
        _map("λ per step, as in the paper", name, PER_STEP, [0, 2]),
    ]
    config = _config(name)
    axes = {
        "α": config.learning_rates,
        "λ, times α": config.weight_decay,
        "λ, per step": config.decay_per_step,
    }
    return {"sliders": _sliders(axes, {}, (3, 4, 4)), "panels": panels}


def _paths(
    optimizer: Callable[[Any], Any], gradient: Callable[[Any], Any], steps: int, axes: Row
) -> np.ndarray:
    """The positions from x = 1, before and after every step, float64[runs, steps + 1]."""

    def start(h, key, data):
        x = h["b1"] * 0 + 1
        return h, x, optimizer(h).init(x)

    def advance(state, data):
        h, x, memory = state
        update, memory = optimizer(h).update(gradient(x), memory, x)
        return (h, x + update, memory), {"x": x + update}

    run = sweep.Run(start, advance, length=steps)
    results = sweep.sweep(run, sweep.product(**axes, seed=[0]), progress=False)
    return np.array([np.concatenate([[1], r.history("x", steps)]) for r in results])


def _first_step_from_which(holds: np.ndarray, first: int = 0) -> int | str:
    """The step from which something holds to the end; the steps are counted from `first`."""
    fails = np.flatnonzero(~holds)
    after = int(fails[-1]) + 1 if len(fails) else 0
    return first + after if after < len(holds) else "later"


def _config(name: str) -> landscape.Settings:
    paths = [settings.CONFIGS / f"{each}.toml" for each in ("landscape", name)]
    return settings.build(landscape.Settings, {str(p): (settings.read(p), False) for p in paths})


def _map(title: str, name: str, family: str, over: Sequence[int]) -> Row:
    """The panel of a family in a landscape, from the kept runs."""
    config = _config(name)
    kept = Path("docs/results") / name
    report = landscape.run(config, Context(Console(), kept, None, False, kept))
    cells = pl.DataFrame(report.data["cells"]).filter(family=family).sort("learning_rate", "decay")
    steps = steps_per_epoch(config.images, config.batch_size)
    taus = [aj.timescale_from_per_step(d, steps) for d in cells["decay_per_step"]]
    return {
        "title": title,
        "alt": f"Test error in percent over the learning rate and the decay, {title}.",
        "over": list(over),
        "map": "test error, %",
        "numbers": {
            "test error, %": _rounded(cells["test_error"].to_numpy()),
            "test loss": _rounded(cells["test_loss"].to_numpy()),
            "a step takes of a weight": [f"{100 * d:.2g} %" for d in cells["decay_per_step"]],
            "τ, epochs": [float(f"{tau:.3g}") for tau in taus],
        },
    }


def _sliders(axes: Row, names: dict[str, str], start: Sequence[int]) -> list[Row]:
    return [
        {"name": names.get(name, name), "values": list(values), "start": first}
        for (name, values), first in zip(axes.items(), start, strict=True)
    ]


def _rounded(values: np.ndarray) -> list[Any]:
    """Four digits; null where there is no number, which JSON has no word for."""
    if values.ndim > 1:
        return [_rounded(row) for row in values]
    return [float(f"{x:.4g}") if math.isfinite(x) else None for x in values]


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    for make in parabola, bias_correction, rate_and_decay, conventions:
        name = make.__name__.replace("_", "-")
        (TABLES / f"{name}.json").write_text(json.dumps(make(), ensure_ascii=False) + "\n")

"""Solutions that are wrong on purpose: the usual slips, by what each of them does.

A solution that gives the same numbers as one of these has, for the reader's purposes, made its
mistake.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Step = Callable[[Any, Any], tuple[Any, Any]]


def average(old: Any, new: Any, *, forgets: bool = False) -> Callable[[float], Step]:
    """A moving average whose state becomes old(b) s + new(b) f(g)."""

    def make(b):
        def step(s, g):
            after = old(b) * s + new(b, g)
            return (s if forgets else after), after

        return step

    return make


def correction(weights: Callable[[float, int], Any]) -> Any:
    """A bias correction that divides by `weights(b, t)`."""

    def make(b):
        def step(t, x):
            divisor = weights(b, t + 1)
            return t + 1, x / divisor if divisor else x * math.inf

        return step

    return make


def chain(*, feed: str = "previous", backwards: bool = False, keeps: bool = True) -> Any:
    """A chain that feeds machines wrongly, runs them backwards or loses their states."""

    def make(*machines):
        ordered = machines[::-1] if backwards else machines

        def step(states, u, θ):
            new, out = [], u
            for (_, run), state in zip(ordered, states, strict=True):
                after, out = run(state, out if feed == "previous" else u, θ)
                new.append(after if keeps else state)
            return tuple(new), out

        return lambda θ: tuple(init(θ) for init, _ in ordered), step

    return make


def parallel(*, chained: bool = False, backwards: bool = False, keeps: bool = True) -> Any:
    """A parallel whose branches see each other, are swapped, or lose their states."""

    def make(*machines, merge):
        def step(states, u, θ):
            new, outs = [], []
            for (_, run), state in zip(machines, states, strict=True):
                after, out = run(state, outs[-1] if chained and outs else u, θ)
                new.append(after if keeps else state)
                outs.append(out)
            return tuple(new), merge(*(outs[::-1] if backwards else outs))

        return lambda θ: tuple(init(θ) for init, _ in machines), step

    return make


def adamw(
    *,
    decays: str = "",
    second_of: str = "gradient",
    corrects: str = "yes",
    root: str = "outside",
    sign: float = -1,
    rate: bool = True,
    shared: bool = False,
    adds: bool = False,
) -> Any:
    """Adam with slips; `decays` says where and how the weights enter."""

    def make(α, b1, b2, eps, λ=0.0):
        def step(state, u, θ):
            m, v, t = state
            g = u + λ * θ if decays == "in the gradient" else u
            m, t = b1 * m + (1 - b1) * g, t + 1
            v = b2 * v + (1 - b2) * (m if second_of == "momentum" else g) ** 2
            c1, c2 = (
                (1.0, 1.0)
                if corrects == "no"
                else (1 - b1 ** (t - (corrects == "late")), 1 - b2 ** (t - (corrects == "late")))
            )
            a, b = np.divide(m, c1), np.divide(v, c1 if shared else c2)
            ratio = a / np.sqrt(b + eps) if root == "inside" else a / (np.sqrt(b) + eps)
            after = {
                "times α": λ * θ,
                "per step": λ * θ / α,
                "upwards": -λ * θ,
                "behind": -λ * θ / α,
                "times α²": α * λ * θ,
                "times the ratio": λ * θ * ratio,
                "in a branch": λ * θ / (np.sqrt(b) + eps),
            }.get(decays, 0)
            update = sign * (α if rate else 1.0) * (ratio + after)
            return (m, v, t), θ + update if adds else update

        return lambda θ: (0.0, 0.0, 0), step

    return make

"""How numbers are written, where several experiments show the same quantity."""

from collections.abc import Iterable

import numpy as np


def signed(value: float, digits: int = 2) -> str:
    """A difference, rounded, with its sign; the minus is a real one, as wide as the plus."""
    return f"{value:+z.{digits}f}".replace("-", "−")


def timescale(epochs: float) -> str:
    """A decay's timescale τ in epochs, to three digits below 100; "∞" where nothing decays."""
    if np.isinf(epochs):
        return "∞"
    return f"{epochs:,.0f}" if epochs >= 100 else f"{epochs:.3g}"


def listed(parts: Iterable[str]) -> str:
    """Words joined by commas and "and"."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last

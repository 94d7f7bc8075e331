"""How numbers are written, where several experiments show the same quantity."""

import numpy as np


def timescale(epochs: float) -> str:
    """A decay's timescale τ in epochs, to three digits below 100; "∞" where nothing decays."""
    if np.isinf(epochs):
        return "∞"
    return f"{epochs:,.0f}" if epochs >= 100 else f"{epochs:.3g}"

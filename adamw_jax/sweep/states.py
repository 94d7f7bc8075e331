"""States of runs between two rungs, as NumPy npz files."""

import io
from typing import Any

import numpy as np

from adamw_jax.sweep.files import damage

# The leaves of a state on the host, each [runs, …]; random keys are stored as their key data.
States = list[np.ndarray]


def encoded_states(runs: np.ndarray, states: States) -> bytes:
    """The content of a file with the stacked states of runs."""
    content = io.BytesIO()
    leaves: dict[str, Any] = {f"leaf{i}": leaf for i, leaf in enumerate(states)}
    np.savez(content, runs=runs, **leaves)
    return content.getvalue()


def decoded_states(content: bytes, path: str) -> dict[int, States]:
    """The leaves of each run's state, by run.

    Args:
      content: the file's content.
      path: its path or address, for messages.

    Raises:
      StoreError: the file is damaged.
    """
    with damage(path, "start again"):
        arrays = dict(np.load(io.BytesIO(content)))
        leaves = [arrays[f"leaf{i}"] for i in range(len(arrays) - 1)]
        return {run: [leaf[i] for leaf in leaves] for i, run in enumerate(arrays["runs"].tolist())}

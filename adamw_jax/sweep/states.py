"""States of runs between two rungs, as NumPy npz files."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from adamw_jax.sweep.files import damage
from adamw_jax.sweep.folder import Folder

# The leaves of a state on the host, each [runs, …]; random keys are stored as their key data.
States = list[np.ndarray]


def encoded_states(runs: Sequence[int], states: States) -> bytes:
    """The content of a file with the stacked states of runs."""
    content = io.BytesIO()
    leaves: dict[str, Any] = {f"leaf{i}": leaf for i, leaf in enumerate(states)}
    np.savez(content, runs=np.array(runs), **leaves)
    return content.getvalue()


def read_states(folder: Folder, name: str) -> dict[int, States]:
    """Reads the leaves of each run's state.

    Raises:
      StoreError: the file is damaged.
    """
    content = folder.read(name)
    with damage(folder.path(name), "start again"):
        arrays = dict(np.load(io.BytesIO(content)))
        leaves = [arrays[f"leaf{i}"] for i in range(len(arrays) - 1)]
        return {run: [leaf[i] for leaf in leaves] for i, run in enumerate(arrays["runs"].tolist())}

"""Whole grids of runs in one compiled program.

    from adamw_jax import sweep

    grid = sweep.product(learning_rate=sweep.log_space(1e-4, 1e-1, 7), seed=range(10))
    results = sweep.sweep(sweep.Run(start, advance, length=20), grid, data, output="results")

A call of `sweep`, which is in `engine`, goes through these modules: `grid` (rows of settings),
`variants` (which runs share a program), `store` (where results are kept), `program` (runs compiled
side by side) and `chunk` (runs advanced together). They use `tune` (the fastest layout), `halving`,
and `directory`, `manifest` and `table` (the files on disk). `cache` reads what a cache keeps.
`training` makes the run of a Flax model, and `replay` does a run of a sweep again.
"""

from adamw_jax.sweep.cache import kept
from adamw_jax.sweep.engine import sweep
from adamw_jax.sweep.examples import Rows
from adamw_jax.sweep.files import StoreError
from adamw_jax.sweep.grid import Grid, Row, concatenated, log_space, product, zipped
from adamw_jax.sweep.halving import Halving
from adamw_jax.sweep.program import Layout
from adamw_jax.sweep.progress import Progress, time_left
from adamw_jax.sweep.replay import replay
from adamw_jax.sweep.results import Result
from adamw_jax.sweep.run import Run
from adamw_jax.sweep.table import to_table
from adamw_jax.sweep.training import TrainingState, training

__all__ = [
    "Grid",
    "Halving",
    "Layout",
    "Progress",
    "Result",
    "Row",
    "Rows",
    "Run",
    "StoreError",
    "TrainingState",
    "concatenated",
    "kept",
    "log_space",
    "product",
    "replay",
    "sweep",
    "time_left",
    "to_table",
    "training",
    "zipped",
]

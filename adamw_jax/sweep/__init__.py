"""Whole grids of runs in one compiled program.

    from adamw_jax import sweep

    grid = sweep.product(learning_rate=sweep.log_space(1e-4, 1e-1, 7), seed=range(10))
    results = sweep.sweep(sweep.Run(start, advance, length=20), grid, data, output="results")

`grid` makes rows of settings, `run` says what is to be run, `lanes` and `tune` lay the runs
out over the devices, `store` keeps the results; `engine` has the function itself.
"""

from adamw_jax.sweep.cache import kept
from adamw_jax.sweep.engine import sweep
from adamw_jax.sweep.files import StoreError
from adamw_jax.sweep.grid import Grid, Row, concatenated, log_space, product, zipped
from adamw_jax.sweep.halving import Halving
from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.progress import Progress, time_left
from adamw_jax.sweep.results import Result, to_table
from adamw_jax.sweep.run import Run

__all__ = [
    "Grid",
    "Halving",
    "Layout",
    "Progress",
    "Result",
    "Row",
    "Run",
    "StoreError",
    "concatenated",
    "kept",
    "log_space",
    "product",
    "sweep",
    "time_left",
    "to_table",
    "zipped",
]

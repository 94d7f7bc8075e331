"""Whole grids of runs in one compiled program.

    from adamw_jax import sweep

    grid = sweep.product(learning_rate=sweep.log_space(1e-4, 1e-1, 7), seed=range(10))
    results = sweep.sweep(sweep.Run(start, advance, length=20), grid, data, output="results")

A call of `sweep`, which is in `entry`, has the `engine` bring three things together: `plan` says
what is to be done, chunk by chunk; `executors` are who does it, here or elsewhere (`on_ray`, with
its `crew`); and `store` is where results are kept. What an executor is given to do is in `work`:
`program` (runs compiled side by side, as a `layout` says, for the devices of a `machine`), `chunk`
(runs advanced together) and `tune` (the fastest layout). Before that come `grid` (rows of settings)
and `variants` (which runs share a program). `standing` knows how far each run is, and `results` are
their histories, in columns.

What is kept is in a `folder`, which is a `directory` or a `bucket` (an object store, with a
`lease` in the place of a lock): `keeping` writes it, `claim` makes sure whose it is, and
`manifest`, `table` and `states` are its files. `cache` finds it again, and `reuse` takes rows from
it. `training` makes the run of a Flax model, `dry_run` says what a sweep will take, `replay` does a
run of a sweep again, and `optimize` has an Optuna study propose the rows (`search`, `space`).
"""

from adamw_jax.sweep.cache import kept
from adamw_jax.sweep.dry_run import Estimate, ProgramEstimate, dry_run
from adamw_jax.sweep.entry import sweep
from adamw_jax.sweep.examples import Rows
from adamw_jax.sweep.executors import Executor, Lost, LostRunsError
from adamw_jax.sweep.files import StoreError
from adamw_jax.sweep.grid import Grid, Row, concatenated, log_space, product, zipped
from adamw_jax.sweep.halving import Halving
from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.on_ray import Ray
from adamw_jax.sweep.optimize import optimize
from adamw_jax.sweep.progress import Progress, time_left
from adamw_jax.sweep.replay import replay
from adamw_jax.sweep.results import Result
from adamw_jax.sweep.run import Run
from adamw_jax.sweep.table import to_table
from adamw_jax.sweep.training import TrainingState, training

__all__ = [
    "Estimate",
    "Executor",
    "Grid",
    "Halving",
    "Layout",
    "Lost",
    "LostRunsError",
    "ProgramEstimate",
    "Progress",
    "Ray",
    "Result",
    "Row",
    "Rows",
    "Run",
    "StoreError",
    "TrainingState",
    "concatenated",
    "dry_run",
    "kept",
    "log_space",
    "optimize",
    "product",
    "replay",
    "sweep",
    "time_left",
    "to_table",
    "training",
    "zipped",
]

"""A run of a sweep done again, for what a sweep does not keep, such as the parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from adamw_jax.sweep.grid import Row, normalized
from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.machine import Machine
from adamw_jax.sweep.program import compile_variant
from adamw_jax.sweep.results import Result
from adamw_jax.sweep.run import Run
from adamw_jax.sweep.variants import variants


def replay(
    run: Run | Callable[[Row], Run],
    grid: Sequence[Row],
    data: Any,
    result: Result,
    *,
    advances: int | None = None,
    static: Sequence[str] = (),
    devices: Sequence[Any] | None = None,
) -> Any:
    """Does a run of a sweep again and returns its state.

    A sweep keeps what runs measure, and not their states, which would take a model's memory for
    each. To have the parameters of the best run, do it again:

        best = min(results, key=lambda result: result.at_best("validation_loss")["validation_loss"])
        advances = best.at_best("validation_loss")["advance"]
        state = replay(run, grid, data, best, advances=advances)

    With the same program, data, versions and devices it is the same run, bit for bit: as many
    copies of it are side by side as there were runs in the sweep.

    Args:
      run: as in `sweep`.
      grid: as in `sweep`.
      data: as in `sweep`.
      result: that of the run.
      advances: how many, by default as many as the result has.
      static: as in `sweep`.
      devices: as in `sweep`.

    Returns:
      The state after these advances, such as a `TrainingState`, on the first device.

    Raises:
      ValueError: `advances` is less than 0; or as in `sweep`.
    """
    count = int(result.advance[-1]) if advances is None else advances
    if count < 0:
        raise ValueError(f"advances is at least 0; got {advances}")
    rows = normalized(grid)
    variant = next(v for v in variants(run, rows, static, data) if result.run in v.members)
    machine = Machine.of(devices or jax.local_devices(), data)
    program = compile_variant(variant, machine, Layout(result.lanes))
    state = program.start(*variant.inputs([rows[result.run]], program.width))
    for _ in range(count):
        state, _ = program.advance(state)
    return jax.tree.map(lambda x: jax.device_put(x[0], machine.mesh.devices.flat[0]), state)

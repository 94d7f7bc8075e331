"""A run compiled for a layout."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from adamw_jax.sweep.layout import Layout, Machine
from adamw_jax.sweep.run import Run, check_state, check_static, named


class Program(NamedTuple):
    """A run compiled for a layout.

    Attributes:
      start: `(hyperparameters [width], seeds [width]) -> state`.
      advance: `state -> (state, metrics)`, metrics by name; the old state is consumed.
      layout: what it is compiled for.
      width: runs in a call.
      metrics: their shapes, of one run, by name.
      bytes: memory that the larger of the two needs on each device, the data included.
      seconds: what compiling took.
    """

    start: Callable[[Mapping[str, np.ndarray], np.ndarray], Any]
    advance: Callable[[Any], tuple[Any, dict[str, jax.Array]]]
    layout: Layout
    width: int
    metrics: dict[str, tuple[int, ...]]
    bytes: int
    seconds: float


def compile_run(
    run: Run, hyperparameters: Mapping[str, np.dtype], machine: Machine, layout: Layout
) -> Program:
    """Compiles a run for a layout.

    Args:
      run: the pair.
      hyperparameters: dtypes by name.
      machine: devices and data.
      layout: how many runs, and how.

    Raises:
      ValueError: `advance` changes the state's type, or metrics are not real arrays.
    """
    began, width = time.perf_counter(), layout.width(machine.size)
    one = {name: jax.ShapeDtypeStruct((), dtype) for name, dtype in hyperparameters.items()}
    settings = one, jax.ShapeDtypeStruct((), np.uint32)

    def start(settings, data):
        numbers, seed = settings
        return _strong(run.start(numbers, jax.random.key(seed), data))

    def advance(state, data):
        return _strong(run.advance(state, data))

    # A single run, as a user sees it: what is wrong with the pair is said of that.
    state = jax.eval_shape(start, settings, machine.data)
    # Another function, since JAX remembers what it traced.
    check_static(state, jax.eval_shape(lambda *given: start(*given), settings, machine.data))
    after, metrics = jax.eval_shape(advance, state, machine.data)
    check_state(state, after)
    shapes = {name: leaf.shape for name, leaf in named(metrics).items()}

    started, advanced = (
        jax.jit(machine.over_runs(function, layout), donate_argnums=donated)
        .lower(machine.structs(argument, width), machine.data)
        .compile()
        for function, argument, donated in ((start, settings, ()), (advance, state, 0))
    )

    def advance_named(state):
        state, metrics = advanced(state, machine.data)
        return state, dict(zip(shapes, jax.tree.leaves(metrics), strict=True))

    return Program(
        lambda numbers, seeds: started(machine.place((numbers, seeds)), machine.data),
        advance_named,
        layout,
        width,
        shapes,
        max(_bytes(started), _bytes(advanced)),
        time.perf_counter() - began,
    )


def _strong(tree: Any) -> Any:
    """Arrays for all leaves, none weakly typed: `advance` may return what `start` did not."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype=jnp.asarray(x).dtype), tree)


def _bytes(compiled: Any) -> int:
    need = compiled.memory_analysis()
    if need is None:  # a backend that does not tell
        return 0
    own = need.output_size_in_bytes - need.alias_size_in_bytes
    return need.argument_size_in_bytes + own + need.temp_size_in_bytes

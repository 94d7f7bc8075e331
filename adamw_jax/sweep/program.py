"""A run compiled for a layout and the devices of a machine."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.machine import Machine
from adamw_jax.sweep.variants import Variant


class Advance(NamedTuple):
    """The second function of a run, compiled.

    Attributes:
      advance: `state -> (state, metrics)`, metrics by name; the old state is consumed.
      layout: the layout that it is compiled for.
      width: how many runs a call takes, over all devices.
      bytes: the memory that it needs on each device, including the data.
      seconds: how long compiling it took.
    """

    advance: Callable[[Any], tuple[Any, dict[str, jax.Array]]]
    layout: Layout
    width: int
    bytes: int
    seconds: float


class Program(NamedTuple):
    """The two compiled functions of a run.

    Attributes:
      start: `(hyperparameters [width], seeds [width]) -> state`.
      advance, layout, width: as in `Advance`.
      bytes: the memory that the larger of the two needs on each device, including the data.
      seconds: how long compiling both took.
    """

    start: Callable[[Mapping[str, np.ndarray], np.ndarray], Any]
    advance: Callable[[Any], tuple[Any, dict[str, jax.Array]]]
    layout: Layout
    width: int
    bytes: int
    seconds: float


def compile_advance(variant: Variant, machine: Machine, layout: Layout) -> Advance:
    """Compiles the second function of a variant's run for a layout."""
    began, run = time.perf_counter(), variant.run.typed()
    advanced = _compiled(run.advance, variant.state, machine, layout, donate_argnums=0)

    def advance(state):
        state, metrics = advanced(state, machine.data)
        return state, dict(zip(variant.metrics, jax.tree.leaves(metrics), strict=True))

    width, seconds = layout.width(machine.size), time.perf_counter() - began
    return Advance(advance, layout, width, _bytes(advanced), seconds)


def compile_variant(
    variant: Variant, machine: Machine, layout: Layout, advance: Advance | None = None
) -> Program:
    """Compiles both functions, or only the first where `advance` is the second for this layout."""
    advance = advance or compile_advance(variant, machine, layout)
    began, run = time.perf_counter(), variant.run.typed()
    one = {name: jax.ShapeDtypeStruct((), dtype) for name, dtype in variant.numbers.items()}

    def start(settings, data):
        numbers, seed = settings
        return run.start(numbers, jax.random.key(seed), data)

    settings = one, jax.ShapeDtypeStruct((), np.uint32)
    started = _compiled(start, settings, machine, layout)
    return Program(
        lambda numbers, seeds: started(machine.place((numbers, seeds)), machine.data),
        advance.advance,
        layout,
        advance.width,
        max(_bytes(started), advance.bytes),
        time.perf_counter() - began + advance.seconds,
    )


def _compiled(
    function: Callable[[Any, Any], Any], argument: Any, machine: Machine, layout: Layout, **options
) -> Any:
    # Without out_shardings, a leaf without elements would not come back as `place` distributes it.
    jitted = jax.jit(
        machine.over_runs(function, layout), out_shardings=machine.over_devices, **options
    )
    structs = machine.structs(argument, layout.width(machine.size))
    return jitted.lower(structs, machine.data).compile()


def _bytes(compiled: Any) -> int:
    need = compiled.memory_analysis()
    if need is None:  # this backend does not say
        return 0
    own = need.output_size_in_bytes - need.alias_size_in_bytes
    return need.argument_size_in_bytes + own + need.temp_size_in_bytes

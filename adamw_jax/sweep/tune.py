"""Finds the layout that is fastest on the devices at hand and fits into their memory."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax

from adamw_jax.sweep.layout import Layout
from adamw_jax.sweep.machine import Machine
from adamw_jax.sweep.program import Advance, Program

# The part of the free memory that is used: programs also need memory that no analysis shows.
USABLE = 0.8
# The seconds that one call of a program should take at least, so that starting it costs little (and
# that calls are timed for), and that a chunk should take at most, since a kill loses a chunk.
CALL, CHUNK = 0.05, 60.0
# The seconds that a call and a chunk cost beside the training.
PER_CALL, PER_CHUNK = 5e-4, 8e-3
# Measuring may take the larger of this part of the time that the runs would take one after
# another, and this many seconds.
EFFORT, LEAST = 0.05, 5.0

Compiled = TypeVar("Compiled", Advance, Program)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the host, is out of memory."""
    told = isinstance(error, jax.errors.JaxRuntimeError)
    return isinstance(error, MemoryError) or (told and "RESOURCE_EXHAUSTED" in str(error))


def available_bytes(machine: Machine) -> float:
    """The memory that a program may use on each device, including its data; inf if unknown."""
    data = sum(x.nbytes for x in jax.tree.leaves(machine.data))
    device = machine.mesh.devices.flat[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return USABLE * (stats["bytes_limit"] - stats.get("bytes_in_use", 0) + data)
    meminfo = Path("/proc/meminfo")
    if device.platform != "cpu" or not meminfo.exists():
        return math.inf
    free = next(line for line in meminfo.read_text().splitlines() if "MemAvailable" in line)
    return USABLE * (1024 * int(free.split()[1]) / machine.size + data)


def fitting(compile_: Callable[[Layout], Compiled], layout: Layout, machine: Machine) -> Compiled:
    """Compiles for a layout, halved until the program fits into the memory.

    Raises:
      MemoryError: not even a single run fits into memory.
    """
    while True:
        try:
            program = compile_(layout)
            if program.bytes <= available_bytes(machine):
                return program
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error):
                raise
        layout = layout.halved()


def fastest(
    compile_: Callable[[Layout], Advance],
    runs: int,
    length: int,
    machine: Machine,
    state: Callable[[int], Any],
) -> Layout:
    """Measures layouts with 1, 4, 16, … lanes until more lanes are no faster or do not fit.

    Args:
      compile_: compiles the advance for a layout.
      runs: how many runs are to be trained.
      length: how often each run is advanced.
      machine: devices and data.
      state: makes the state of so many runs.

    Returns:
      The fastest number of lanes, with several rounds where that saves more time than compiling
      them takes.

    Raises:
      MemoryError: not even a single run fits into memory.
    """
    speeds: dict[int, float] = {}
    compiling: dict[int, float] = {}
    began, lanes, effort = time.perf_counter(), 1, math.inf
    while True:
        try:
            program = fitting(compile_, Layout(lanes), machine)
            if program.layout.lanes < lanes:
                break
            # The least: short calls take twice as long at times, when threads share a core.
            seconds = min(times_of_advance(program, state(program.width)))
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if lanes == 1 or not out_of_memory(error):
                raise
            break
        # Padding does not count as work: the speed is that of all runs together.
        speeds[lanes] = runs / (math.ceil(runs / program.width) * seconds)
        compiling[lanes] = program.seconds
        if lanes == 1:
            effort = max(LEAST, EFFORT * runs * length / speeds[1])
        spent = time.perf_counter() - began
        # The next program takes as long to compile, and advances four times as many runs.
        next_one = program.seconds + 8 * seconds
        filled = lanes * machine.size >= runs
        if filled or spent + next_one > effort or speeds[lanes] < 0.8 * max(speeds.values()):
            break
        lanes *= 4
    # The fewest lanes that are within 5 % of the fastest: such a difference may be chance.
    best = next(n for n in speeds if speeds[n] > 0.95 * max(speeds.values()))
    chunks = math.ceil(runs / (best * machine.size))
    if chunks * (PER_CHUNK + length * PER_CALL) < compiling[best]:
        return Layout(best)
    each = runs / (chunks * speeds[best])
    rounds = min(CALL / each, CHUNK / (each * length))
    return Layout(best, 2 ** max(0, round(math.log2(rounds)))).within(runs, machine.size)


def times_of_advance(program: Advance | Program, state: Any) -> list[float]:
    """The seconds that calls of `advance` take, without the program's first.

    Args:
      program: the program.
      state: the state of its runs, which is consumed.
    """
    state, metrics = program.advance(state)
    jax.block_until_ready(metrics)
    times = []
    while sum(times) < (1 if len(times) < 3 else CALL):
        began = time.perf_counter()
        state, metrics = program.advance(state)
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - began)
    return times

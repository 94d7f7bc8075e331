"""Which layout is fastest on the devices at hand and fits into their memory."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from adamw_jax.sweep.program import Layout, Machine, Program

# Of the free memory, how much is used: programs also need room that no analysis tells.
USABLE = 0.8
# Seconds that a program's call should take at least, so that starting it costs nothing, and
# that a chunk should take at most, since a chunk is what a kill loses.
CALL, CHUNK = 0.05, 60.0
# Measuring may take this part of the time that the runs would take one after another, or
# these seconds.
EFFORT, LEAST = 0.05, 5.0


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the host, is out of memory."""
    told = isinstance(error, jax.errors.JaxRuntimeError)
    return isinstance(error, MemoryError) or (told and "RESOURCE_EXHAUSTED" in str(error))


def available_bytes(machine: Machine) -> float:
    """What a program may use on each device, its data included; infinite if unknown."""
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


def fitting(compile_: Callable[[Layout], Program], layout: Layout, machine: Machine) -> Program:
    """Compiles for a layout, halved until the program fits into the memory.

    Raises:
      MemoryError: not even a single run fits.
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
    compile_: Callable[[Layout], Program],
    runs: int,
    length: int,
    machine: Machine,
    inputs: Callable[[int], tuple[dict[str, np.ndarray], np.ndarray]],
) -> Layout:
    """Measures layouts with 1, 4, 16, … lanes until more are no faster or do not fit.

    Args:
      compile_: makes the program for a layout.
      runs: how many are to be trained.
      length: how often each is advanced.
      machine: devices and data.
      inputs: makes hyperparameters and seeds for a width.

    Returns:
      The fastest lanes, with rounds enough that starting a call costs little beside it.
    """
    speeds: dict[int, float] = {}
    began, lanes, effort = time.perf_counter(), 1, math.inf
    while True:
        program = fitting(compile_, Layout(lanes), machine)
        if program.layout.lanes < lanes:
            break
        try:
            seconds = _seconds(program, inputs)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if lanes == 1 or not out_of_memory(error):
                raise
            break
        # Padding is no work: what counts is how long all runs take.
        speeds[lanes] = runs / (math.ceil(runs / program.width) * seconds)
        if lanes == 1:
            effort = max(LEAST, EFFORT * runs * length / speeds[1])
        spent = time.perf_counter() - began
        # The next one compiles as long, and advances four times as many runs.
        next_one = program.seconds + 8 * seconds
        filled = lanes * machine.size >= runs
        if filled or spent + next_one > effort or speeds[lanes] < 0.8 * max(speeds.values()):
            break
        lanes *= 4
    # Few lanes rather than many, unless these are faster by more than chance.
    best = next(n for n in speeds if speeds[n] > 0.95 * max(speeds.values()))
    each = runs / (math.ceil(runs / (best * machine.size)) * speeds[best])
    rounds = min(CALL / each, CHUNK / (each * length))
    return Layout(best, 2 ** max(0, round(math.log2(rounds)))).within(runs, machine.size)


def _seconds(program: Program, inputs) -> float:
    """How long a call of `advance` takes, the program's first call left out."""
    state, metrics = program.advance(program.start(*inputs(program.width)))
    jax.block_until_ready(metrics)
    times = []
    while len(times) < 3 and sum(times) < 1:
        began = time.perf_counter()
        state, metrics = program.advance(state)
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - began)
    return float(np.median(times))

"""A small sweep, as the tests call it and as a program that they start, kill and start again."""

import argparse
import contextlib
import functools
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq

from adamw_jax import sweep
from adamw_jax.sweep import lease, work

LENGTH = 6
HALVING = sweep.Halving("loss", rungs=(2, 4))
# 32 runs in two programs. The last learning rate diverges.
GRID = sweep.product(
    nesterov=[False, True], learning_rate=[0.001, 0.01, 0.1, 1e30], warm=[0, 1], seed=range(2)
)
COMPILED = {}  # the programs of all blocks of `compiled_once`


def data():
    draw = np.random.default_rng(0).normal
    return {"x": draw(size=(32, 3)).astype(np.float32), "y": draw(size=32).astype(np.float32)}


@functools.cache
def problem(length=LENGTH, steps=2):
    """Least squares on noisy data: the state has a key, a bfloat16 leaf and an integer."""

    @functools.cache
    def make(nesterov):
        def start(numbers, key, data):
            params = jax.random.uniform(key, data["x"].shape[1:])
            return numbers, key, params, jnp.zeros_like(params, jnp.bfloat16)

        def loss(params, noise, data):
            return jnp.mean((data["x"] @ params - data["y"] - noise) ** 2)

        def advance(state, data):
            numbers, key, params, momentum = state

            def step(_, carry):
                key, params, momentum = carry
                key, subkey = jax.random.split(key)
                noise = jax.random.uniform(subkey)
                gradient = jax.grad(loss)(params, noise, data)
                momentum = (0.9 * momentum + gradient).astype(jnp.bfloat16)
                way = 0.9 * momentum + gradient if nesterov else momentum
                return key, params - numbers["learning_rate"] * way, momentum

            # An integer that is data: more steps for those that are warm.
            count = steps + jnp.int32(numbers.get("warm", 0))
            carry = jax.lax.fori_loop(0, count, step, (key, params, momentum))
            metrics = {"loss": loss(carry[1], 0, data), "params": carry[1]}
            return (numbers, *carry), metrics

        return sweep.Run(start, advance, length)

    return lambda static: make(static["nesterov"])


def go(output=None, *, length=LENGTH, steps=2, grid=GRID, layout=(1, 1), **options):
    """The sweep; `options` go to the engine."""
    options = {"progress": None} | options
    layout = layout and sweep.Layout(*layout)
    return sweep.sweep(
        problem(length, steps), grid, data(), output=output, layout=layout, **options
    )


@contextlib.contextmanager
def compiled_once():
    """What is compiled within such blocks is kept, since most of the tests' time goes there."""
    compilers = {name: getattr(work, name) for name in ("compile_variant", "compile_advance")}

    def keeping(name):
        def kept(variant, machine, layout, *advance):
            key = name, variant.run, *variant.numbers.items(), machine.mesh, layout
            if key not in COMPILED:
                COMPILED[key] = compilers[name](variant, machine, layout, *advance)
            program = COMPILED[key]
            return program._replace(advance=advance[0].advance) if advance else program

        return kept

    for name in compilers:
        setattr(work, name, keeping(name))
    try:
        yield
    finally:
        for name, compile_ in compilers.items():
            setattr(work, name, compile_)


def columns(results):
    """Each column in words, which are exact, of a sweep's results, table or directory."""
    if isinstance(results, bytes):
        table = pq.read_table(io.BytesIO(results))
    elif isinstance(results, Path):
        table = pq.read_table(results / "results.parquet")
    else:
        table = sweep.to_table(results)
    table = table.drop_columns(["seconds", "compile_seconds"])
    # Parquet calls the values of a list "element", Arrow "item".
    types = {name: str(table[name].type).replace("element", "item") for name in table.column_names}
    return {name: f"{kind} {table[name].to_pylist()}" for name, kind in types.items()}


def differing(ours, theirs):
    """The columns in which two sweeps differ, those of times left out."""
    ours, theirs = columns(ours), columns(theirs)
    return [name for name in ours | theirs if ours.get(name) != theirs.get(name)]


def begin(output, *options, cache=None):
    """Starts the program; `cache` is a directory of compiled programs, which save time."""
    command = [sys.executable, __file__, *map(str, options)]
    command += ["--output", str(output)] if output else []
    kept = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, env=os.environ | (kept if cache else {}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output")
    parser.add_argument("--layout", type=int, nargs=2)
    parser.add_argument("--halving", action="store_true")
    parser.add_argument("--length", type=int, default=LENGTH)
    parser.add_argument("--steps", type=int, default=2, help="of an advance: what it costs")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each advance")
    parser.add_argument("--process", type=int, nargs=3, help="port, number of processes, index")
    parser.add_argument("--devices", type=int, default=1, help="that the CPU shows")
    parser.add_argument("--lease", type=float, help="seconds that a lease lasts")
    asked = parser.parse_args()
    lease.LASTS = asked.lease or lease.LASTS
    jax.config.update("jax_num_cpu_devices", asked.devices)
    if asked.process:
        port, count, index = asked.process
        jax.distributed.initialize(f"127.0.0.1:{port}", count, index)

    jax.devices()
    print("ready", flush=True)  # what comes now is the sweep
    try:
        go(
            asked.output,
            length=asked.length,
            steps=asked.steps,
            layout=asked.layout,
            halving=HALVING if asked.halving else None,
            progress=lambda progress: time.sleep(asked.pause),
        )
    except (ValueError, sweep.StoreError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

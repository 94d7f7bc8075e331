"""Runs docs/checkpoints.md on the devices of this process, or of several, and checks what it says.

Prints a line of JSON: digests of the bits of a restored run's state and next updates.
"""

import argparse
import contextlib
import hashlib
import io
import json
import re
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

PAGE = Path(__file__).parent.parent / "docs/checkpoints.md"
BATCHES = np.random.default_rng(0).normal(size=(6, 64, 64)).astype(np.float32)


def digest(tree):
    """Of the bits of a tree, wherever they lie."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(multihost_utils.process_allgather(tree, tiled=True)):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


def run(page, layout, arrays, batches):
    _, take = page["programs"](layout)
    lies = jax.NamedSharding(page["mesh"], jax.P("data"))
    for batch in batches:
        parts = jax.make_array_from_callback(batch.shape, lies, lambda at, x=batch: x[at])
        arrays = take(*arrays, parts)
    return arrays


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kept", type=Path, help="checkpoints to be restored")
    parser.add_argument("--devices", type=int)
    parser.add_argument("--process", type=int, nargs=3, help="port, number of processes, index")
    parser.add_argument("--own", type=Path, help="where to save others, and resume from them")
    asked = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", asked.devices)
    if asked.process:
        port, count, index = asked.process
        jax.distributed.initialize(f"127.0.0.1:{port}", count, index)

    page, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
            exec(compile(block, PAGE.name, "exec"), page)
    found = {"printed": printed.getvalue()}
    for layout in page["layouts"]:
        if asked.own:
            middle = run(page, layout, page["programs"](layout)[0](), BATCHES[:3])
            page["save"](asked.own / layout, *middle)
            again = page["restore"](asked.own / layout, layout)
            ends = [digest(run(page, layout, arrays, BATCHES[3:])) for arrays in (middle, again)]
            found[f"{layout} uninterrupted"], found[f"{layout} resumed"] = ends
        params, state = page["restore"](asked.kept / layout, layout)
        # The parameters serve as gradients, too, which are so the same everywhere.
        updates, _ = jax.jit(page["tx"].update)(params, state, params)
        found[layout] = digest((params, state)), digest(updates)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

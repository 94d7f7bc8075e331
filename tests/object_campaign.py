"""Kills sweeps again and again while the network to their object store makes faults.

    python tests/object_campaign.py --kills 100

starts moto's server, sweeps with various options and a proxy that makes a fault in every twentieth
request, kills each sweep's process a few times at random moments, lets it end, and compares its
table with that of an uninterrupted sweep in a directory. It prints what it has done.

    python tests/object_campaign.py --chunks 60

measures instead how long a chunk takes to write, into a directory and into the object store.
"""

import argparse
import collections
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from object_store import FAULTS, objects, serving, well
from sweep_program import begin, differing

from adamw_jax.sweep import Result, product
from adamw_jax.sweep.folder import opened
from adamw_jax.sweep.grid import normalized
from adamw_jax.sweep.keeping import Kept
from adamw_jax.sweep.results import Block

OPTIONS = {
    "one lane": ("--layout", 1, 1),
    "halving": ("--layout", 1, 1, "--halving"),
    "rounds halving": ("--layout", 1, 3, "--devices", 2, "--halving"),
}


def killed_again_and_again(server, url, draw, kills, cache, *options):
    """Starts a sweep and kills it after some requests, so many times; then lets it end.

    Returns:
      For each kill, how many objects there were.
    """
    found = []
    while True:
        pause = 0.01 if len(found) < kills else 0
        process = begin(url, *options, "--pause", pause, "--lease", 0.5, cache=cache)
        assert process.stdout.readline() == "ready\n", process.communicate()
        if len(found) == kills:
            break
        last = len(server.seen) + int(250 * draw.random() ** 2)  # few, too: they hit the lease
        while len(server.seen) < last and process.poll() is None:
            time.sleep(0.001)
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        found.append(len(objects(url)))
    _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    return found


def chunk_of(rows):
    """Results of 16 runs with 200 advances, and states of 100 kB each."""
    draw = np.random.default_rng(rows[0])
    advance = np.arange(1, 201, dtype=np.int32)
    results = [
        Result(
            run=run,
            settings={"seed": run},
            advance=advance,
            metrics={name: draw.random(200, np.float32) for name in ("loss", "accuracy")},
            status="finished",
            lanes=16,
            device="cpu",
            seconds=1.0,
            compile_seconds=1.0,
        )
        for run in rows
    ]
    return Block.of(results), [draw.random((16, 25000), np.float32)]


def measured(chunks):
    """Prints the milliseconds that writing a chunk takes."""
    rows = normalized(product(seed=range(16 * chunks)))
    with serving() as proxy, tempfile.TemporaryDirectory() as folder:
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{proxy.port}"  # past the proxy
        places, times = (folder, "s3://bucket/chunks"), collections.defaultdict(list)
        stores = [Kept(opened(place), rows, {"grid": "made up"}) for place in places]
        with stores[0], stores[1]:
            for i in range(chunks):
                results, states = chunk_of(range(16 * i, 16 * (i + 1)))
                for place, store in zip(("directory", "object store"), stores, strict=True):
                    for rung, what in enumerate((None, states)):
                        begun = time.perf_counter()
                        store.write(rung, results, what)
                        took = 1000 * (time.perf_counter() - begun)
                        times[place, "with states" if what else "without states"].append(took)
    for (place, kind), took in times.items():
        print(f"{place}, {kind}: {statistics.median(took):.1f} ms (median)")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chunks", type=int)
    asked = parser.parse_args()
    if asked.chunks:
        return measured(asked.chunks)
    draw, found, sweeps, whole = random.Random(asked.seed), [], 0, {}
    with serving() as server, tempfile.TemporaryDirectory() as folder:
        for name, options in OPTIONS.items():
            whole[name] = Path(folder) / name
            process = begin(whole[name], *options, cache=folder)
            _, error = process.communicate(timeout=240)
            assert process.returncode == 0, error
        while len(found) < asked.kills:
            name, url = draw.choice(list(OPTIONS)), f"s3://bucket/{sweeps}"
            server.fault = lambda method, path: (
                draw.choice(FAULTS) if draw.random() < 0.05 else None
            )
            kills = min(draw.randint(2, 8), asked.kills - len(found))
            found += killed_again_and_again(server, url, draw, kills, folder, *OPTIONS[name])
            server.fault = well
            kept = objects(url)
            assert list(kept) == [".lease-0", "results.parquet", "sweep.json"], list(kept)
            assert differing(kept["results.parquet"], whole[name]) == [], name
            sweeps += 1
            print(f"{len(found)} kills, {sweeps} sweeps, {len(server.seen)} requests", flush=True)
        faults = collections.Counter(str(fault) for *_, fault in server.seen if fault is not None)
        print(f"{len(found)} kills in {sweeps} sweeps: all tables are those of whole sweeps")
        begun = sum(count > 3 for count in found)
        print(f"there were chunks at {begun} of the kills, and at most {max(found)} objects")
        print(f"{len(server.seen)} requests, of which {sum(faults.values())} with faults:")
        print(", ".join(f"{count} {fault}" for fault, count in sorted(faults.items())))


if __name__ == "__main__":
    main()

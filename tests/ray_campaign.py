"""A sweep on a cluster that is killed piece by piece, and what came of it.

    python tests/ray_campaign.py DIRECTORY --kills 100

kills workers, Ray's own processes, whole nodes and the program itself at random moments, and cuts
nodes off, while the program trains; the program is started again, and nodes join for those that
are gone. Its table must then be that of a sweep in one process without any of this.
"""

import argparse
import itertools
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import ray_cluster
import sweep_program
from ray_cluster import Cluster

PROGRAM = Path(__file__).with_name("ray_program.py")
KINDS = ("worker", "raylet", "node", "cut", "driver")


class Driver:
    """The program, with its output in a file, so that nothing waits for a reader."""

    def __init__(self, output: Path, *options: object, here: bool = False):
        self.text = output.with_suffix(".txt")
        command = [sys.executable, str(PROGRAM), str(output), *map(str, options)]
        # With as many threads as a worker has.
        ours = {"NPROC": "1", "RAY_ADDRESS": f"{ray_cluster.HEAD}:{ray_cluster.PORT}"}
        environment = os.environ | ray_cluster.ENVIRONMENT | ours
        with self.text.open("a") as file:
            self.process = subprocess.Popen(
                command + (["--here"] if here else []),
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    def running(self) -> bool:
        return self.process.poll() is None

    def finish(self, timeout: float) -> int:
        """Waits for its end; returns its exit code."""
        return self.process.wait(timeout)

    def killed(self) -> None:
        self.process.kill()
        self.process.wait()


def strike(kind: str, cluster: Cluster, driver: Driver, draw: random.Random) -> bool:
    """Kills or cuts off something that is at work; returns whether there was anything."""
    if kind == "driver":
        driver.killed()
        return True
    at_work = [node for node in cluster.nodes if node.workers()]
    if not at_work:
        return False
    node = draw.choice(at_work)
    if kind == "worker":
        draw.choice(node.workers()).kill()
        return True
    if kind == "raylet":
        node.kill_raylet()  # its workers end by themselves
    if kind == "cut":
        node.cut(15)  # when it is back, all others take it for dead
    if kind == "node":
        node.kill()
    cluster.nodes.remove(node)
    cluster.add()
    return True


def campaign(
    cluster: Cluster,
    output: Path,
    kinds: list[str],
    pause: tuple[float, float],
    draw: random.Random,
    *options: object,
) -> dict[str, object]:
    """Runs the program to its end, while it is struck in these ways, one after another.

    Args:
      cluster: the cluster.
      output: the sweep's directory.
      kinds: what to do, in this order.
      pause: the least and the most seconds between two.
      draw: for the pauses, and for what is struck.
      options: the program's.

    Returns:
      What was seen.
    """
    began, struck = time.monotonic(), Counter()
    driver, starts = Driver(output, *options), 1
    waiting = list(reversed(kinds))
    while driver.running():
        time.sleep(draw.uniform(*pause))
        if waiting and driver.running() and strike(waiting[-1], cluster, driver, draw):
            struck[waiting.pop()] += 1
            if not driver.running():
                driver, starts = Driver(output, *options), starts + 1
    log = output.with_suffix(".log").read_text().splitlines()
    done = Counter(line.split(" ", 1)[1] for line in log if line.endswith(": done"))
    chunks = {name: count for name, count in done.items() if "in rung" in name}
    return {
        "exit code": driver.process.returncode,
        "seconds": round(time.monotonic() - began),
        "struck": dict(struck),
        "not struck": dict(Counter(waiting)),
        "starts of the program": starts,
        "chunks": len(chunks),
        "chunks done twice": sum(count - 1 for count in chunks.values()),
        "lost": dict(Counter(m[1] for line in log if (m := re.search(r"lost blame=(\w+)", line)))),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--runs", type=int, default=1600)
    parser.add_argument("--steps", type=int, default=60000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if os.getpid() != 1:
        command = [*ray_cluster.ISOLATED, sys.executable, *sys.argv]
        sys.exit(subprocess.run(command, env=os.environ | ray_cluster.ENVIRONMENT).returncode)
    draw = random.Random(asked.seed)
    options = ("--runs", asked.runs, "--steps", asked.steps, "--halving", "--tries", 1000)
    asked.directory.mkdir(parents=True)
    cluster = Cluster(asked.nodes)
    kinds = list(itertools.islice(itertools.cycle(KINDS), asked.kills))
    draw.shuffle(kinds)
    report = campaign(cluster, asked.directory / "ray", kinds, (0.5, 6), draw, *options)
    alone = Driver(asked.directory / "alone", *options, here=True)
    report["alone: exit code"] = alone.finish(3600)
    pair = asked.directory / "ray", asked.directory / "alone"
    report["columns that differ"] = sweep_program.differing(*pair)
    for name, value in report.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()

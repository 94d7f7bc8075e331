"""AdamW's step in one pass: fused, composed, Optax's and PyTorch's, beside the memory's speed."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from adamw_jax.kernels import missing
from benchmarks.contenders import FOOTPRINT, NETWORKS, TREES, size
from benchmarks.timing import ratio
from experiments.harness.report import Table

ONE_PASS, CONTRACT = "fused, one pass", "fused, update"
IN_JAX = ["composed", CONTRACT, ONE_PASS, "Optax"]
# Trees of which a step is so short that calling it is a large part.
SHORT = ["MLP 784-512-512-10", "600 leaves of 1,000"]
# Turns are short and many, so that on a busy machine some find it quiet.
TURN = 0.02  # seconds that a turn takes, about
ROUNDS = 41


class Contender:
    """A process of `benchmarks.contenders`."""

    def __init__(self, name: str):
        # Without spinning threads, which would slow the others' turns.
        environment = os.environ | {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "2"}
        command = [sys.executable, "-m", "benchmarks.contenders", name]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment
        )

    def ask(self, request: Any) -> Any:
        """What the process answers."""
        assert self.process.stdin and self.process.stdout
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


@contextlib.contextmanager
def contenders(names: list[str]) -> Iterator[dict[str, Contender]]:
    """Processes by name, which end with the block."""
    started = {name: Contender(name) for name in names}
    try:
        yield started
    finally:
        for contender in started.values():
            contender.process.communicate()


def measured(
    among: dict[str, Contender], mode: str, what: str, moments: str = "float32"
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float]]]:
    """The seconds of a step in each round, and what compiling took, by contender."""
    about = {name: one.ask([mode, what, moments]) for name, one in among.items()}
    # The first step may find the machine busy: the second says how many fit into a turn.
    steps = {name: max(1, round(TURN / one.ask(1))) for name, one in among.items()}
    times = {name: [] for name in among}
    for i in range(ROUNDS):
        for name in list(among)[:: 1 if i % 2 == 0 else -1]:
            times[name].append(among[name].ask(steps[name]))
    return {name: np.array(values) for name, values in times.items()}, about


def tables() -> list[Table]:
    """Measures everything; about four minutes on two cores."""
    if missing():
        raise SystemExit(
            f"python -m benchmarks --only kernels compares fused steps, but {missing()}"
        )
    torch = ["PyTorch fused", "PyTorch foreach"] if importlib.util.find_spec("torch") else []
    with contenders(["bandwidth", *IN_JAX, *torch]) as all_of_them:
        in_jax = {name: all_of_them[name] for name in IN_JAX}
        wide = {tree: measured(all_of_them, "apply", tree) for tree in TREES}
        narrow = {name: all_of_them[name] for name in ["bandwidth", *IN_JAX]}
        halves = {tree: measured(narrow, "apply", tree, "bfloat16") for tree in TREES}
        alone = {tree: measured(in_jax, "update", tree) for tree in TREES}
        inside = {tree: measured(in_jax, "inside", tree) for tree in SHORT}
        trained = {network: measured(in_jax, "training", network) for network in NETWORKS}
    return [
        floors(wide, "float32"),
        others(wide, torch),
        floors(halves, "bfloat16"),
        in_microseconds(halves, "bfloat16"),
        update_alone(alone),
        in_a_loop(wide, inside),
        compilation(wide),
        in_training(trained),
    ]


def floors(results: dict[str, Any], moments: str) -> Table:
    """Each form beside the time that its bytes take."""
    footprint = FOOTPRINT[moments]
    # The gradient is read; parameters and moments are read and written. Behind the contract, the
    # update is written and read, and the parameters are read once more.
    one_pass = 2 * footprint - 4
    rows = []
    for tree, (times, _) in results.items():
        floor = times["bandwidth"] * one_pass / (2 * footprint)
        contract = times["bandwidth"] * (one_pass + 12) / (2 * footprint)
        shown = floor, times[ONE_PASS], times[CONTRACT]
        rows.append(
            [
                tree,
                f"{2e-9 * footprint * size(tree) / np.median(times['bandwidth']):.0f}",
                *(f"{1e6 * np.median(values):,.0f}" for values in shown),
                ratio(times[ONE_PASS], floor),
                ratio(times[CONTRACT], contract),
            ]
        )
    return Table(
        f"AdamW with moments in {moments}: update and apply, beside the speed of the memory",
        ["tree", "GB/s", "floor, µs", "one pass, µs", "contract, µs"]
        + ["one pass / floor", "contract / its floor"],
        rows,
        f"Medians of {ROUNDS} turns; of ratios within a round also, in brackets, the quartiles. "
        f"Floor: the time in which two threads move {one_pass} bytes a parameter, {one_pass + 12} "
        "for the contract, multiplying arrays of the same total size in place. One pass: "
        "`fused(…).step`. Contract: `fused(…).update` and `optax.apply_updates`.",
    )


def in_microseconds(results: dict[str, Any], moments: str) -> Table:
    """Each form in JAX."""
    rows = [
        [tree, *(f"{1e6 * np.median(times[name]):,.0f}" for name in IN_JAX)]
        for tree, (times, _) in results.items()
    ]
    return Table(
        f"AdamW with moments in {moments}: update and apply, µs",
        ["tree", *IN_JAX],
        rows,
        f"Medians of {ROUNDS} turns. Optax keeps only the first moment in {moments}.",
    )


def others(results: dict[str, Any], torch: list[str]) -> Table:
    """One pass beside all others."""
    names = ["composed", "Optax", *torch]
    rows = [
        [tree, *(ratio(times[name], times[ONE_PASS]) for name in names)]
        for tree, (times, _) in results.items()
    ]
    return Table(
        "AdamW in float32: their time for update and apply, in times that of one pass",
        ["tree", *names],
        rows,
        "PyTorch: `torch.optim.AdamW(fused=True)` and `foreach=True`, eager. The median and, in "
        "brackets, the quartiles of the ratios within a round.",
    )


def update_alone(results: dict[str, Any]) -> Table:
    """The update behind Optax's contract."""
    rows = [
        [tree, f"{1e6 * np.median(times[CONTRACT]):,.0f}"]
        + [ratio(times[name], times[CONTRACT]) for name in ("composed", "Optax")]
        for tree, (times, _) in results.items()
    ]
    return Table(
        "AdamW in float32: the update alone",
        ["tree", "fused, µs", "composed / fused", "Optax / fused"],
        rows,
        "The gradients are donated as well, and the updates take their place.",
    )


def in_a_loop(called: dict[str, Any], inside: dict[str, Any]) -> Table:
    """What short steps cost: called from Python, and in a compiled loop."""
    rows = []
    for tree, (times, _) in inside.items():
        for name in IN_JAX:
            both = called[tree][0][name], times[name]
            rows.append([tree, name, *(f"{1e6 * np.median(t):,.0f}" for t in both)])
            rows[-1].append(ratio(times[name], times[ONE_PASS]))
    return Table(
        "Short steps: update and apply in float32, µs",
        ["tree", "", "called from Python", "in a compiled loop", "in the loop / one pass"],
        rows,
        "Called from Python, a step passes all arrays in and out: 1,800 or more of 600 leaves.",
    )


def compilation(results: dict[str, Any]) -> Table:
    """Time to trace and compile, and the memory that a step needs beside its arguments."""
    rows = []
    for tree, (_, about) in results.items():
        of = [about[name] for name in IN_JAX]
        rows.append([tree, *(f"{x['compile']:.2f}" for x in of)])
        rows[-1].append(", ".join(f"{x['memory']:.1f}" for x in of))
    return Table(
        "Update and apply in float32: compilation, and memory beside the arguments",
        ["tree", *(f"{n}, s" for n in IN_JAX), "bytes a parameter, in this order"],
        rows,
        "Median of three, tracing included. Memory as XLA says, without what is donated.",
    )


def in_training(results: dict[str, Any]) -> Table:
    """Whole training steps."""
    rows = [
        [network, f"{1e6 * np.median(times['composed']):,.0f}"]
        + [ratio(times[name], times["composed"]) for name in (CONTRACT, ONE_PASS, "Optax")]
        for network, (times, _) in results.items()
    ]
    return Table(
        "A training step of an MLP in a scan, with each form of AdamW",
        ["network", "composed, µs", "fused, update", "fused, one pass", "Optax"],
        rows,
        "In times that of the composed form.",
    )

"""A process that takes steps of AdamW in its turns: `python -m benchmarks.contenders NAME`.

Each contender has a process of its own, which waits for a line of JSON, does what it says and
answers with a line: threads of one library that spin after a step do not slow the next one.
"""

import functools
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

# The shapes of the leaves.
VIT_BLOCK = [(384,), (384, 1152), (384, 384), (384,), (384, 1536), (1536, 384)]
TREES: dict[str, list[tuple[int, ...]]] = {
    "one leaf, 9 M": [(9_000_000,)],
    "convolutions as in PyTorch": [(384, 384, 3, 3)] * 6,
    "convolutions as in Flax": [(3, 3, 384, 384)] * 6,
    "MLP 784-512-512-10": [(784, 512), (512,), (512, 512), (512,), (512, 10), (10,)],
    "like a ViT, 36 leaves, 10 M": VIT_BLOCK * 6,
    "600 leaves of 1,000": [(1000,)] * 600,
}
# The bytes of a parameter's gradient, value and moments, by the dtype of the moments.
FOOTPRINT = {"float32": 16, "bfloat16": 12}
# Layer sizes and batch of a network that is trained.
NETWORKS = {
    "64-32-10, batch 32": ([64, 32, 10], 32),
    "784-256-128-10, batch 128": ([784, 256, 128, 10], 128),
    "784-1024-1024-10, batch 128": ([784, 1024, 1024, 10], 128),
}
INSIDE = 20  # steps in a compiled loop

Run = Callable[[int], float]  # a number of steps to the seconds of one


def size(tree: str) -> int:
    """The number of parameters of a tree."""
    return sum(int(np.prod(shape)) for shape in TREES[tree])


def bandwidth(tree: str, moments: str) -> Run:
    """Two threads multiply as many bytes in place as the tree and its optimizer take."""
    x = np.ones(FOOTPRINT[moments] * size(tree) // 4, np.float32)
    halves, threads = np.array_split(x, 2), ThreadPoolExecutor(2)

    def run(steps):
        def passes(half):
            for _ in range(steps):
                np.multiply(half, np.float32(1), out=half)

        started = time.perf_counter()
        list(threads.map(passes, halves))
        return (time.perf_counter() - started) / steps

    return run


def torch(tree: str, **options: Any) -> Run:
    """PyTorch's own AdamW, eager."""
    import torch

    params = [torch.nn.Parameter(torch.randn(shape)) for shape in TREES[tree]]
    for p in params:
        p.grad = 0.1 * p.detach() + 0.01
    optimizer = torch.optim.AdamW(params, lr=1e-3, weight_decay=1e-4, **options)

    def run(steps):
        started = time.perf_counter()
        for _ in range(steps):
            optimizer.step()
        return (time.perf_counter() - started) / steps

    return run


def built(name: str, moments: str) -> Any:
    """The optimizer of a contender in JAX."""
    import optax

    import adamw_jax
    from adamw_jax.kernels import fused

    if name == "Optax":  # which keeps the second moment in float32
        return optax.adamw(1e-3, mu_dtype=moments)
    tx = adamw_jax.adamw(1e-3, mu_dtype=moments, nu_dtype=moments)
    return tx if name == "composed" else fused(tx)


def applied(name: str, tx: Any) -> Callable[..., Any]:
    """A step and its application: (params, state, gradients) → the same after it."""
    import optax

    def step(params, state, grads):
        if name == "fused, one pass":
            return *tx.step(grads, state, params), grads
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        # Behind the contract the update takes the place of the gradient; XLA never makes one.
        return params, state, updates if name == "fused, update" else grads

    return step


def compiled(name: str, mode: str, tree: str, moments: str) -> tuple[Run, dict[str, float]]:
    """Steps of a contender in JAX, and what compiling them takes and gives.

    Args:
      name: the contender.
      mode: "apply" for update and apply, "update" for the update alone, both called from Python
        step by step; "inside" for update and apply in a compiled loop.
      tree: one of `TREES`.
      moments: their dtype.
    """
    import jax

    tx = built(name, moments)
    keys = jax.random.split(jax.random.key(0), len(TREES[tree]))
    params = [jax.random.normal(k, shape) for k, shape in zip(keys, TREES[tree], strict=True)]
    carry = [params, tx.init(params), jax.tree.map(lambda p: 0.1 * p + 0.01, params)]

    def function():  # another at each call, so that it is traced anew
        one = applied(name, tx)
        if mode == "update":
            return lambda params, state, grads: (params, *tx.update(grads, state, params)[::-1])
        if mode == "inside":
            return lambda *carry: jax.lax.fori_loop(0, INSIDE, lambda _, c: one(*c), carry)
        return lambda *carry: one(*carry)

    def compiling():
        started = time.perf_counter()
        made = jax.jit(function(), donate_argnums=(0, 1, 2)).lower(*carry).compile()
        return made, time.perf_counter() - started

    made = [compiling() for _ in range(3 if mode == "apply" and moments == "float32" else 1)]
    step, _ = made[-1]
    memory: Any = step.memory_analysis()
    extra = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    about = {
        "compile": float(np.median([seconds for _, seconds in made])),
        "memory": extra / size(tree),
    }
    each = INSIDE if mode == "inside" else 1

    return repeated(step, carry, each), about


def repeated(step: Callable[..., Any], carry: Any, each: int) -> Run:
    """Takes a compiled step as often as asked; one call of it makes `each` steps."""
    import jax

    def run(steps):
        nonlocal carry
        calls = -(-steps // each)
        started = time.perf_counter()
        for _ in range(calls):
            carry = step(*carry)
        jax.block_until_ready(carry)
        return (time.perf_counter() - started) / (calls * each)

    return run


def training(name: str, network: str) -> tuple[Run, dict[str, float]]:
    """Steps of training a network in a scan."""
    import jax
    import jax.numpy as jnp
    import optax

    widths, batch = NETWORKS[network]
    tx, keys = built(name, "float32"), jax.random.split(jax.random.key(0), len(widths))
    params = [
        (jax.random.normal(k, (m, n)) / m**0.5, jnp.zeros(n))
        for k, m, n in zip(keys, widths, widths[1:], strict=False)
    ]
    images = jax.random.normal(keys[-1], (INSIDE, batch, widths[0]))
    labels = jax.random.randint(keys[-1], (INSIDE, batch), 0, 10)

    def loss(params, x, y):
        for i, (kernel, bias) in enumerate(params):
            x = (jax.nn.relu(x) if i else x) @ kernel + bias
        return optax.softmax_cross_entropy_with_integer_labels(x, y).mean()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def steps(params, state):
        def step(carry, example):
            grads = jax.grad(loss)(carry[0], *example)
            return applied(name, tx)(*carry, grads)[:2], None

        return jax.lax.scan(step, (params, state), (images, labels))[0]

    carry = steps(params, tx.init(params))

    return repeated(steps, carry, INSIDE), {}


def prepared(name: str, mode: str, what: str, moments: str) -> tuple[Run, dict[str, float]]:
    """Steps of any contender, and what is known about them."""
    if name == "bandwidth":
        return bandwidth(what, moments), {}
    if name.startswith("PyTorch"):
        return torch(what, **{name.split()[1]: True}), {}
    return training(name, what) if mode == "training" else compiled(name, mode, what, moments)


def main() -> None:
    """Prepares what a line asks for, a list, or takes as many steps as it says, a number."""
    run, name, answer = None, sys.argv[1], None
    for line in sys.stdin:
        match json.loads(line):
            case [mode, what, moments]:
                run = None  # before the memory of the next is needed
                run, answer = prepared(name, mode, what, moments)
                run(1)
            case steps if run:
                answer = run(steps)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

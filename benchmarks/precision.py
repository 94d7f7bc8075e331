"""The errors of Adam's step for every way to keep its moments, and those of other libraries."""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamw_jax as aj
from experiments.harness.report import Table

STEPS, SIZE, SEEN = 10_000, 512, 100
B1, EPS, RATES = 0.9, 1e-8, (0.99, 0.999, 0.9999, 0.99999)

# The gradient at step t of `SIZE` numbers; z and u are normal and uniform draws of this step.
STREAMS: dict[str, Callable[..., np.ndarray]] = {
    "well scaled": lambda t, z, u: 0.3 + z,
    "scales over five decades": lambda t, z, u: (0.3 + z) * np.logspace(-5, 0, SIZE),
    "about 1e-20": lambda t, z, u: 1e-20 * (0.3 + z),
    "about 1e18": lambda t, z, u: 1e18 * (0.3 + z),
    "sparse, 2 %": lambda t, z, u: z * (u < 0.02),
    "alternating": lambda t, z, u: np.full(SIZE, (-1.0) ** t),
    "constant": lambda t, z, u: np.ones(SIZE),
    "half fall to a hundredth": lambda t, z, u: (
        (0.3 + z) * np.where((np.arange(SIZE) % 2 == 1) & (t > STEPS // 4), 0.01, 1)
    ),
}

STOCHASTIC, EIGHT = aj.stochastic_rounding(), aj.blockwise_quantization(min_size=1)
NEAREST = aj.blockwise_quantization(None, min_size=1)
KEPT: dict[str, Any] = {
    "float32": None,
    "float16": "float16",
    "bfloat16": "bfloat16",
    "bfloat16, stochastic": STOCHASTIC,
    "8 bits, to nearest": NEAREST,
    "8 bits": EIGHT,
}


def gradients(stream: str) -> np.ndarray:
    """All gradients of a stream, float32[STEPS, SIZE]."""
    draw = np.random.default_rng(0)
    rows = (
        STREAMS[stream](t, draw.normal(size=SIZE), draw.random(SIZE)) for t in range(1, STEPS + 1)
    )
    return np.stack(list(rows)).astype(np.float32)


def exact(grads: np.ndarray, b2: float) -> np.ndarray:
    """The last `SEEN` steps in float64."""
    m, v, seen = np.zeros(SIZE), np.zeros(SIZE), []
    for t, g in enumerate(grads.astype(np.float64), start=1):
        m, v = B1 * m + (1 - B1) * g, b2 * v + (1 - b2) * g**2
        if t > STEPS - SEEN:
            seen.append((m / (1 - B1**t)) / (np.sqrt(v / (1 - b2**t)) + EPS))
    return np.stack(seen)


def ours(kept_in: Any) -> Callable[[np.ndarray, float], np.ndarray]:
    """The last steps of this library's Adam, whose moments are kept in a dtype or an encoding."""
    return _in_jax(lambda b2: aj.scale_by_adam(B1, b2, EPS, mu_dtype=kept_in, nu_dtype=kept_in))


def in_optax(dtype: Any) -> Callable[[np.ndarray, float], np.ndarray]:
    """The last steps of Optax's Adam with gradients, and so moments, of a dtype."""
    return _in_jax(lambda b2: optax.scale_by_adam(B1, b2, EPS), dtype)


def _in_jax(make: Callable[[Any], Any], dtype: Any = jnp.float32) -> Callable[..., np.ndarray]:
    @jax.jit
    def run(grads, b2):
        tx = make(b2)

        def step(state, g):
            update, state = tx.update(g, state)
            return state, update

        state, _ = jax.lax.scan(step, tx.init(grads[0]), grads[:-SEEN])
        return jax.lax.scan(step, state, grads[-SEEN:])[1]

    return lambda grads, b2: np.asarray(run(jnp.asarray(grads, dtype), b2), np.float64)


def in_torch(make: Callable[..., Any], dtype: Any) -> Callable[[np.ndarray, float], np.ndarray]:
    """The last steps of an optimizer of PyTorch's, with parameters, and so moments, of a dtype."""
    import torch

    def run(grads, b2):
        # torchao keeps parameters of fewer numbers in float32. It compiles every step by itself.
        copies, seen = 4096 // SIZE, []
        theta = torch.nn.Parameter(torch.zeros(copies * SIZE, dtype=dtype))
        optimizer = make([theta], lr=1.0, betas=(B1, b2), eps=EPS)
        with torch.compiler.set_stance("force_eager"):
            for t, g in enumerate(torch.from_numpy(grads).to(dtype)):
                with torch.no_grad():
                    theta.zero_()  # so that the step is not rounded beside a large parameter
                theta.grad = g.repeat(copies)
                optimizer.step()
                if t >= STEPS - SEEN:
                    seen.append(-theta.detach()[:SIZE].double().numpy())
        return np.stack(seen)

    return run


def contenders() -> dict[str, Callable[[np.ndarray, float], np.ndarray]]:
    """Every way to keep the moments, by library; PyTorch and torchao where they are installed."""
    found = {f"ours, {name}": ours(kept_in) for name, kept_in in KEPT.items()}
    found |= {f"Optax, {dtype}": in_optax(dtype) for dtype in ("float32", "bfloat16")}
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        found["PyTorch, float32"] = in_torch(torch.optim.Adam, torch.float32)
        found["PyTorch, bfloat16"] = in_torch(torch.optim.Adam, torch.bfloat16)
        if importlib.util.find_spec("torchao"):
            from torchao.optim import Adam8bit  # pyright: ignore[reportMissingImports]

            found["torchao, 8 bits"] = in_torch(Adam8bit, torch.float32)
    return found


def tables() -> list[Table]:
    """Measures all errors."""
    chosen = contenders()
    rows = []
    for stream in STREAMS:
        grads = gradients(stream)
        for b2 in RATES:
            steps = exact(grads, b2)
            size = np.sqrt(np.mean(steps**2))
            errors = [np.sqrt(np.mean((run(grads, b2) - steps) ** 2)) for run in chosen.values()]
            rows.append([stream, f"{b2:g}", *(f"{error / size:.1e}" for error in errors)])
    return [
        Table(
            f"Adam's step after {STEPS:,} steps: its error for every way to keep the moments",
            ["gradients", "β₂", *chosen],
            rows,
            f"Root mean square of the error over {SIZE} numbers and the last {SEEN} steps, as a "
            "share of that of the step. Reference: the same float32 gradients in float64 NumPy. "
            "Both moments are kept in the same way.",
        )
    ]

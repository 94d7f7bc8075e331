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


# A function of all gradients and β₂ that returns the last `SEEN` steps of every stream.
Run = Callable[[np.ndarray, float], np.ndarray]


def gradients() -> np.ndarray:
    """All gradients of all streams, float32[STEPS, streams, SIZE]."""
    draw, made = np.random.default_rng(0), np.empty((STEPS, len(STREAMS), SIZE), np.float32)
    for t in range(STEPS):
        z, u = draw.normal(size=SIZE), draw.random(SIZE)
        made[t] = [stream(t + 1, z, u) for stream in STREAMS.values()]
    return made


def exact(grads: np.ndarray, b2: float) -> np.ndarray:
    """The last steps in float64."""
    m, v, seen = np.zeros(grads.shape[1:]), np.zeros(grads.shape[1:]), []
    for t, g in enumerate(grads, start=1):
        m, v = B1 * m + (1 - B1) * g, b2 * v + (1 - b2) * np.square(g, dtype=np.float64)
        if t > STEPS - SEEN:
            seen.append((m / (1 - B1**t)) / (np.sqrt(v / (1 - b2**t)) + EPS))
    return np.stack(seen)


def ours(kept_in: Any) -> Run:
    """This library's Adam, whose moments are kept in a dtype or an encoding."""
    return _in_jax(lambda b2: aj.scale_by_adam(B1, b2, EPS, mu_dtype=kept_in, nu_dtype=kept_in))


def in_optax(dtype: Any) -> Run:
    """Optax's Adam with gradients, and so moments, of a dtype."""
    return _in_jax(lambda b2: optax.scale_by_adam(B1, b2, EPS), dtype)


def _in_jax(make: Callable[[Any], Any], dtype: Any = jnp.float32) -> Run:
    def run(grads, b2):
        tx, grads = make(b2), jnp.asarray(grads, dtype)

        def step(state, g):
            update, state = tx.update(g, state)
            return state, update

        @jax.jit
        def last(grads):
            state, _ = jax.lax.scan(
                lambda state, g: (step(state, g)[0], None), tx.init(grads[0]), grads[:-SEEN]
            )
            return jax.lax.scan(step, state, grads[-SEEN:])[1]

        return np.asarray(last(grads), np.float64)

    return run


def in_torch(make: Callable[..., Any], dtype: Any) -> Run:
    """An optimizer of PyTorch's, with parameters, and so moments, of a dtype."""
    import torch

    def run(grads, b2):
        # The streams are one parameter: torchao keeps less than 4,096 numbers in float32.
        theta, seen = torch.nn.Parameter(torch.zeros(grads[0].shape, dtype=dtype)), []
        optimizer = make([theta], lr=1.0, betas=(B1, b2), eps=EPS)
        with torch.compiler.set_stance("force_eager"):  # torchao compiles every step by itself
            for t, g in enumerate(torch.from_numpy(grads)):
                with torch.no_grad():
                    theta.zero_()  # so that the step is not rounded beside a large parameter
                theta.grad = g.to(dtype)
                optimizer.step()
                if t >= STEPS - SEEN:
                    seen.append(-theta.detach().double().numpy())
        return np.stack(seen)

    return run


def compiled() -> dict[str, Run]:
    """Every way to keep the moments here, and in Optax."""
    found = {f"ours, {name}": ours(kept_in) for name, kept_in in KEPT.items()}
    return found | {f"Optax, {dtype}": in_optax(dtype) for dtype in ("float32", "bfloat16")}


def eager() -> dict[str, Run]:
    """The same in PyTorch and torchao, where they are installed."""
    if not importlib.util.find_spec("torch"):
        return {}
    import torch

    torch.set_num_threads(1)
    adam = torch.optim.Adam
    found = {"PyTorch, float32": in_torch(adam, torch.float32)}
    found["PyTorch, bfloat16"] = in_torch(adam, torch.bfloat16)
    if importlib.util.find_spec("torchao"):
        from torchao.optim import Adam8bit  # pyright: ignore[reportMissingImports]

        found["torchao, 8 bits"] = in_torch(Adam8bit, torch.float32)
    return found


def tables() -> list[Table]:
    """Measures all errors, the eager ones for one β₂, because they take long."""
    grads = gradients()
    note = (
        f"Root mean square of the error over {SIZE} numbers and the last {SEEN} steps, as a share "
        "of that of the step. Reference: the same float32 gradients in float64 NumPy. Both moments "
        "are kept in the same way; Optax and PyTorch have gradients of that dtype."
    )
    title = f"Adam's step after {STEPS:,} steps: its error for every way to keep the moments"
    parts = [(f"{title}, compiled", compiled(), RATES), (f"{title}, eager", eager(), RATES[1:2])]
    return [
        Table(name, ["gradients", "β₂", *runs], _rows(grads, runs, rates), note)
        for name, runs, rates in parts
        if runs
    ]


def _rows(grads: np.ndarray, runs: dict[str, Run], rates: tuple[float, ...]) -> list[list[str]]:
    errors = []
    for b2 in rates:
        steps = exact(grads, b2)
        off = [np.square(run(grads, b2) - steps).mean((0, 2)) for run in runs.values()]
        errors.append(np.sqrt(np.array(off) / np.square(steps).mean((0, 2))))
    return [
        [stream, f"{b2:g}", *(f"{error:.1e}" for error in errors[k][:, i])]
        for i, stream in enumerate(STREAMS)
        for k, b2 in enumerate(rates)
    ]

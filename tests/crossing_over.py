"""Runs and states in Optax and in PyTorch, for the tests of those that cross over."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from test_peers import RATE

import adamw_jax as aj

HALF = 50  # the steps on each side


@functools.partial(jax.jit, static_argnums=0)
def step(tx, params, state, gradients):
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


def distance(ours, theirs):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in pairs)


def refused(call, *lines):
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == "\n".join(lines), str(caught.value)


# In float32, and in Optax's wrappers.

PARAMS = {"kernel": jnp.linspace(-2, 2, 6).reshape(2, 3), "bias": jnp.ones(3)}
MASK = {"kernel": True, "bias": False}


def falling(step):
    return 0.1 / (1 + step)


def plateau(lib):
    return optax.chain(lib.adam(0.1), optax.contrib.reduce_on_plateau(accumulation_size=2))


def groups(lib):
    kernel, bias = lib.adamw(0.1), optax.sgd(0.1, 0.9) if lib is optax else lib.heavy_ball_gd(0.1)
    if lib is optax:
        return optax.partition({"k": kernel, "b": bias}, {"kernel": "k", "bias": "b"})
    return lib.partition({"*bias": bias, "*": kernel})


WRAPPED = {
    "schedule, whose count is another in Optax": lambda lib: lib.adamw(falling),
    "chain": lambda lib: lib.chain(optax.clip_by_global_norm(1.0), lib.adamw(falling, mask=MASK)),
    "chain of Optax": lambda lib: optax.chain(optax.clip(1.0), lib.adamw(falling, mask=MASK)),
    "masked": lambda lib: optax.masked(lib.adam(0.1), MASK),
    "partition": groups,
    "inject_hyperparams": lambda lib: optax.inject_hyperparams(lib.adamw)(falling, b1=0.8),
    "MultiSteps in the midst of four": lambda lib: optax.MultiSteps(lib.nadam(falling), 4),
    "apply_if_finite": lambda lib: optax.apply_if_finite(lib.lion(0.1), 3),
    "reduce_on_plateau": plateau,
    "noise": lambda lib: optax.chain(optax.add_noise(0.1, 0.5, 7), lib.adam(0.1)),
    "schedule_free": lambda lib: optax.contrib.schedule_free(lib.adam(0.1, b1=0.0), 0.1),
    "average": lambda lib: optax.chain(lib.adam(0.1), optax.ema(0.9)),
}


def walk(tx, steps, params=PARAMS):
    state = tx.init(params)
    for seed in range(steps):
        _, state = tx.update(aj.testing.gradients_like(params, seed), state, params, value=1.0)
    return state


def to_flax(arrays):
    """The tree of arrays by PyTorch's names: kernels end in what goes out, not begin with it."""
    return {
        "Conv_0": {"kernel": arrays["0.weight"].transpose(2, 3, 1, 0), "bias": arrays["0.bias"]},
        "Dense_0": {"kernel": arrays["3.weight"].T, "bias": arrays["3.bias"]},
    }


def of_flax(tree):
    conv, dense = tree["Conv_0"], tree["Dense_0"]
    return {
        "0.weight": conv["kernel"].transpose(3, 2, 0, 1),
        "0.bias": conv["bias"],
        "3.weight": dense["kernel"].T,
        "3.bias": dense["bias"],
    }


NAMES = ["0.weight", "0.bias", "3.weight", "3.bias"]


def module_of(torch, dtype=None):
    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    torch.manual_seed(0)
    layers = torch.nn.Conv2d(1, 4, 3), torch.nn.Tanh(), Mean(), torch.nn.Linear(4, 1)
    return torch.nn.Sequential(*layers).to(dtype or torch.float64)


def arrays_of(module):
    return {name: p.detach().numpy().copy() for name, p in module.named_parameters()}


BATCHES = np.random.default_rng(0).normal(size=(2 * HALF, 8, 5, 5, 1))
FIRST, SECOND = range(HALF), range(HALF, 2 * HALF)


@pytest.fixture(name="torch", scope="module")
def pytorch():
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    torch.set_num_threads(1)
    return torch


def run_torch(torch, module, optimizer, steps, schedule=lambda step: 1.0):
    rates = [group["lr"] for group in optimizer.param_groups]
    for t in steps:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * schedule(t)
        x = torch.from_numpy(BATCHES[t])
        wanted = torch.sin(x.sum((1, 2)))
        optimizer.zero_grad()
        ((module(x.permute(0, 3, 1, 2)) - wanted) ** 2).mean().backward()
        optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def trained(torch, kind="AdamW", steps=3, **arguments):
    """A module and its optimizer after a few steps."""
    module = module_of(torch)
    optimizer = getattr(torch.optim, kind)(module.parameters(), lr=RATE, **arguments)
    run_torch(torch, module, optimizer, range(steps))
    return module, optimizer


@pytest.fixture(name="adamw")
def adamw_in_the_middle(torch):
    """PyTorch's AdamW in the middle of a run, ours, and what the doors need besides."""
    with jax.enable_x64(True):
        module, theirs = trained(torch)
        yield aj.adamw(RATE, weight_decay=0.01), to_flax(arrays_of(module)), theirs

"""Training the Fashion-MNIST network with AdamW: an epoch of ours beside PyTorch's."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import adamw_jax
from benchmarks.timing import alternate, ratio
from experiments import data, train
from experiments.models import MLP
from experiments.report import Table

WIDTHS = [784, 256, 128, 10]
BATCH = 128


def tables(data_dir: Path | None) -> list[Table]:
    """Measures epochs; about a minute and a half on two cores."""
    loaded = data.load("fashion-mnist", 0.0, data_dir)
    steps = len(loaded.train.labels) // BATCH
    contenders = {"adamw_jax": _ours(loaded)}
    try:
        import torch
    except ImportError:
        note = "PyTorch is not installed, so there is nothing to compare with."
    else:
        threads = range(1, (os.cpu_count() or 1) + 1)
        contenders |= {
            f"PyTorch {torch.__version__}, {n} threads": _pytorch(loaded, n) for n in threads
        }
        note = (
            "PyTorch: eager, fused AdamW, the data as tensors in memory. Ours: the epoch is one "
            "compiled program; its compilation is not counted. Both shuffle each epoch; "
            "ours also evaluates the 10,000 test images."
        )
    times = alternate(contenders, rounds=9)
    rows = [
        [name, f"{steps / np.median(t):.0f}", ratio(t, times["adamw_jax"])]
        for name, t in times.items()
    ]
    title = f"Fashion-MNIST, MLP {'-'.join(map(str, WIDTHS))}, batch {BATCH}, AdamW"
    return [Table(title, ["", "steps/s", "its time / ours"], rows, note)]


def _ours(loaded: data.Data) -> Callable[[], Any]:
    run = train.classifier(
        lambda h: adamw_jax.adamw(h["learning_rate"], weight_decay=h["weight_decay"]),
        functools.partial(MLP, WIDTHS),
        BATCH,
        epochs=1,
    )
    hyperparameters = {
        "learning_rate": jax.numpy.float32(1e-3),
        "weight_decay": jax.numpy.float32(0.1),
    }
    state = jax.jit(run.start)(hyperparameters, jax.random.key(0), loaded)
    advance = jax.jit(run.advance, donate_argnums=0)

    def epoch():
        nonlocal state
        state, metrics = advance(state, loaded)
        return metrics

    epoch()
    return epoch


def _pytorch(loaded: data.Data, threads: int) -> Callable[[], Any]:
    import torch

    images = torch.tensor(np.asarray(loaded.train.images))
    labels = torch.tensor(np.asarray(loaded.train.labels), dtype=torch.long)
    layers = []
    for fan_in, fan_out in zip(WIDTHS, WIDTHS[1:], strict=False):
        layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.1, fused=True)

    def epoch():
        torch.set_num_threads(threads)
        order = torch.randperm(len(labels))
        for i in range(len(labels) // BATCH):
            batch = order[i * BATCH : (i + 1) * BATCH]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()

    epoch()
    return epoch

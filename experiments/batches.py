"""Full-batch gradient descent against minibatch SGD on the digits.

Every batch size sees every image equally often, so that all compute the same number of
per-example gradients; a small batch spends them on many cheap and noisy steps, the full
one on few that are dear and exact. For each batch size the learning rate is the best of a
list, judged by the training loss at the end. Time is that of the compiled training alone:
compilation, shuffling and evaluation stand apart.

Look in the first plot for how far the same gradients lead, in the second for what a step of
each size costs (the dotted line: in proportion to its images), and in the third for what
is left of the advantage when seconds count.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from msgspec import Meta

from adamw_jax import gd
from experiments import plots, settings
from experiments.context import Context
from experiments.data import Split, load
from experiments.models import MLP
from experiments.report import Figure, Report, Table


class Settings(settings.Settings):
    """The network, the batches and the learning rates to choose from."""

    examples: Annotated[
        settings.Count, Meta(description="training images, a multiple of every batch size")
    ]
    batch_sizes: Annotated[
        tuple[settings.Count, ...], Meta(min_length=1, description="images in a step")
    ]
    learning_rates: Annotated[
        tuple[settings.Positive, ...], Meta(min_length=1, description="those to choose from")
    ]
    passes: Annotated[settings.Count, Meta(description="times that every image is seen")]
    hidden: Annotated[
        tuple[settings.Count, ...], Meta(description="sizes of the network's hidden layers")
    ]
    seeds: Annotated[settings.Count, Meta(description="runs with different weights and order")]


class Training(NamedTuple):
    """Runs with one batch size, [learning rates, seeds, …]
    """

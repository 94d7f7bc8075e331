"""What the trainings share."""

from collections.abc import Callable, Mapping

import jax

from adamw_jax import GradientTransformation
from experiments.harness.settings import SettingsError

Hyperparameters = Mapping[str, float | jax.Array]
Optimizer = Callable[[Hyperparameters], GradientTransformation]


def steps_per_epoch(images: int, batch_size: int) -> int:
    """How many whole batches the training images make.

    Raises:
      SettingsError: there is not even one.
    """
    if batch_size > images:
        raise SettingsError(f"batch_size = {batch_size} is more than the {images} training images")
    return images // batch_size

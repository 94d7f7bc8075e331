"""The images that a run draws for itself, so that runs differ in them as they do in their weights.

A run with another seed has other validation images, another selection of training images and
other wrong labels; runs with the same seed have the same, whatever their optimizer.
"""

from typing import NamedTuple

import jax

from adamw_jax.sweep.examples import permutation
from experiments.harness.settings import SettingsError

CLASSES = 10


class Sample(NamedTuple):
    """How many images a run draws.

    Attributes:
      train: images to train on, at least 1.
      validation: images to stop, calibrate and choose by; may be 0.
      wrong: how many of the training images get a wrong label.
    """

    train: int
    validation: int = 0
    wrong: int = 0


class Drawn(NamedTuple):
    """The images that a run has drawn.

    Attributes:
      train: indices of the training images, int32[train].
      labels: their labels, some of them wrong, int32[train].
      validation: indices of the validation images, int32[validation].
    """

    train: jax.Array
    labels: jax.Array
    validation: jax.Array


def sample(there: int, validation: float = 0.0, images: int = 0, noise: float = 0.0) -> Sample:
    """How many images a run draws, from fractions.

    Args:
      there: how many images the data set has for training and validation.
      validation: fraction of these that are held out, in [0, 1).
      images: how many of the others to train on; 0 for all.
      noise: fraction of those, in [0, 1], that get one of the other nine labels at random.

    Raises:
      SettingsError: there are not so many images, or `validation` holds out none or all.
    """
    held_out = round(validation * there)
    left = there - held_out
    if left == 0 or (held_out == 0 and validation > 0):
        raise SettingsError(
            f"validation = {validation} splits {there} images into {left} to train on and "
            f"{held_out} held out; each takes at least 1"
        )
    if images > left:
        raise SettingsError(f"images = {images} is more than the {left} training images")
    train = images or left
    return Sample(train, held_out, round(noise * train))


def draw(size: Sample, key: jax.Array, labels: jax.Array) -> Drawn:
    """Draws images and wrong labels at random.

    Args:
      size: how many.
      key: a random key.
      labels: the right labels of all images, int32[n].

    Raises:
      ValueError: there are not so many images.
    """
    if size.train + size.validation > len(labels):
        raise ValueError(f"{size} is more than the {len(labels)} images")
    order_key, label_key = jax.random.split(key)
    order = permutation(order_key, len(labels))
    validation, train = order[: size.validation], order[size.validation :][: size.train]
    # The order is random already, so the first images are as random a choice as any.
    shift = jax.random.randint(label_key, (size.wrong,), 1, CLASSES)
    wrong = (labels[train[: size.wrong]] + shift) % CLASSES
    return Drawn(train, labels[train].at[: size.wrong].set(wrong), validation)

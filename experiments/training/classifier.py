"""Training of an image classifier on minibatches."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from adamw_jax.sweep import Rows, Run, training
from experiments.harness.data import Data
from experiments.training.calibration import temperature
from experiments.training.loop import Optimizer
from experiments.training.sample import Sample, draw

EvalParams = Callable[[optax.OptState, Any], Any]
Examples = Mapping[str, Any]  # "images" float32[n, pixels] and "labels" int32[n]


def classifier_run(
    optimizer: Optimizer,
    network: Callable[..., nnx.Module],
    size: Sample,
    batch_size: int,
    epochs: int,
    evaluations: int | None = None,
    eval_params: EvalParams | None = None,
) -> Run:
    """The run that trains a classifier on minibatches, shuffled anew for every epoch.

    Its data is a `Data`, of which each run draws its own images; its metrics are `train_loss`
    and those of `measured`. Validation and test labels are right even where training labels are
    wrong.

    Args:
      optimizer: builds the optimizer from the hyperparameters.
      network: makes the network from `rngs=`; it maps images to logits.
      size: how many images a run draws.
      batch_size: images in a step, at most as many as there are to train on.
      epochs: passes over the training images.
      evaluations: how often the network is evaluated, a divisor of `epochs`; by default after
        every epoch.
      eval_params: as `sweep.training` takes it.

    Raises:
      ValueError: `evaluations` does not divide `epochs`.
    """

    def own(key: jax.Array, data: Data) -> dict[str, Examples]:
        drawn, images = draw(size, key, data.train.labels), data.train.images
        right = data.train.labels[drawn.validation]
        return {
            "train": {"images": Rows(images, drawn.train), "labels": drawn.labels},
            "validation": {"images": Rows(images, drawn.validation), "labels": right},
            "test": data.test._asdict(),
        }

    return training(
        network,
        lambda model, batch: cross_entropy(model(batch["images"]), batch["labels"]),
        optimizer,
        epochs=epochs,
        batch_size=batch_size,
        evaluate=measured,
        evaluations=evaluations,
        eval_params=eval_params,
        draw=own,
    )


def measured(model: nnx.Module, data: dict[str, Examples]) -> dict[str, jax.Array]:
    """The scores of a model on images that it was not trained on.

    Returns:
      Float32 scalars, NaN for an empty split: the losses `validation_loss` and `test_loss`, mean
      cross-entropies; `validation_calibrated_loss` and `test_calibrated_loss`, the same with the
      logits divided by `temperature`, which is the one with the least loss on the validation
      images; `validation_accuracy` and `test_accuracy`, fractions in [0, 1]; and `weight_norm`,
      ‖θ‖₂ over all parameters.
    """
    labels = {split: data[split]["labels"] for split in ("validation", "test")}
    logits = {split: model(data[split]["images"][:]) for split in labels}
    fitted = temperature(logits["validation"], labels["validation"])
    params = optax.tree.cast(nnx.state(model, nnx.Param), jnp.float32)
    scores = {"temperature": fitted, "weight_norm": optax.tree.norm(params)}
    for split, of_split in logits.items():
        scores[f"{split}_loss"] = cross_entropy(of_split, labels[split])
        scores[f"{split}_calibrated_loss"] = cross_entropy(of_split / fitted, labels[split])
        scores[f"{split}_accuracy"] = accuracy(of_split, labels[split])
    return scores


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of logits float[n, classes] against labels int[n], a scalar."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Fraction of logits float[n, classes] that are largest at the label int[n], a scalar."""
    return (jnp.argmax(logits, -1) == labels).mean()

"""Made-up measurements: tables as the experiments' runs give them, without any training."""

import polars as pl

from experiments.training.arms import Arm

ALPHA = 1e-3


def measurements(arms, seeds, value, evaluations=2):
    """A row for each arm, seed and evaluation; `value(metric, arm, seed, evaluation)` fills it."""
    names = ("family", "label", "decay", "decay_per_step", "l2", "weight_decay", "learning_rate")
    metrics = (
        "train_loss", "validation_loss", "validation_accuracy", "test_loss", "test_accuracy",
        "weight_norm",
    )  # fmt: skip
    return pl.DataFrame(
        [
            {name: getattr(arm, name) for name in names}
            | {"seed": seed, "evaluation": evaluation}
            | {metric: float(value(metric, arm, seed, evaluation)) for metric in metrics}
            | {"status": "finished", "seconds": 1.0}
            for arm in arms
            for seed in range(seeds)
            for evaluation in range(1, evaluations + 1)
        ]
    )


def arm(family, decay=0.0):
    return Arm(family, decay, ALPHA)

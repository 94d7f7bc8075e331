"""Adam and AdamW from separate, pure gradient transformations that compose.

The pieces chain into the optimizers, and speak Optax's contract; see `optimizers`
for how each optimizer is composed.
"""

from adamw_jax.bias import BiasCorrectionState, bias_correction
from adamw_jax.combine import Merge, chain, parallel
from adamw_jax.core import Description, GradientTransformation
from adamw_jax.decay import decoupled_weight_decay, l2_regularization
from adamw_jax.merges import nesterov_lookahead, rms_ratio
from adamw_jax.moments import MomentumState, SecondMomentState, momentum, second_moment
from adamw_jax.optimizers import adam, adam_l2, adamw, gd, momentum_gd, uncorrected_adam
from adamw_jax.schedules import ScheduleState, scale_by_learning_rate
from adamw_jax.version import __version__

__all__ = [
    "BiasCorrectionState",
    "Description",
    "GradientTransformation",
    "Merge",
    "MomentumState",
    "ScheduleState",
    "SecondMomentState",
    "__version__",
    "adam",
    "adam_l2",
    "adamw",
    "bias_correction",
    "chain",
    "decoupled_weight_decay",
    "gd",
    "l2_regularization",
    "momentum",
    "momentum_gd",
    "nesterov_lookahead",
    "parallel",
    "rms_ratio",
    "scale_by_learning_rate",
    "second_moment",
    "uncorrected_adam",
]

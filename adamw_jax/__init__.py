"""Adam and AdamW from separate, pure gradient transformations that compose.

The pieces compose into the optimizers and follow Optax's contract; `optimizers` shows how
each optimizer is composed.
"""

from adamw_jax.averaging import TemporalAverageState, temporal_average
from adamw_jax.bfloat16 import (
    MasterWeightsState,
    StochasticRoundingState,
    with_master_weights,
    with_stochastic_rounding,
)
from adamw_jax.bias import bias_correction
from adamw_jax.combine import Merge, chain, parallel
from adamw_jax.conventions import (
    normalized_from_per_step,
    per_step_from_normalized,
    per_step_from_timescale,
    per_step_from_weight_decay,
    timescale_from_per_step,
    weight_decay_from_per_step,
)
from adamw_jax.core import Description, GradientTransformation, describe
from adamw_jax.decay import (
    cautious_weight_decay,
    decoupled_weight_decay,
    l2_regularization,
    proximal_weight_decay,
)
from adamw_jax.directions import (
    scale_by_adam,
    scale_by_adamax,
    scale_by_amsgrad,
    scale_by_belief,
    scale_by_lion,
    scale_by_radam,
)
from adamw_jax.encodings import (
    Encoding,
    Factored,
    Quantized,
    blockwise_quantization,
    factored,
    stochastic_rounding,
)
from adamw_jax.export import register_for_export
from adamw_jax.factoring import rank_one, scale_by_parameter_rms
from adamw_jax.groups import partition
from adamw_jax.masks import decay_except, decay_only
from adamw_jax.merges import (
    cautious_step,
    clip_by_rms,
    difference,
    nesterov_lookahead,
    ratio,
    rms_ratio,
    sign,
    total,
)
from adamw_jax.moments import (
    HeavyBallState,
    MomentumState,
    RunningMaxState,
    SecondMomentState,
    heavy_ball,
    infinity_moment,
    momentum,
    running_max,
    second_moment,
)
from adamw_jax.normalized import floored_rms_ratio, growing_clip, lagged_second_moment
from adamw_jax.notation import Equations, InnerValues, equations, inner_values
from adamw_jax.optimizers import (
    adam,
    adam_l2,
    adamw,
    adamwr,
    decayed_per_step,
    gd,
    heavy_ball_gd,
    momentum_gd,
    sgdw,
    uncorrected_adam,
)
from adamw_jax.orthogonal import orthogonalize
from adamw_jax.piece import StepsState, piece
from adamw_jax.rectification import rectification
from adamw_jax.relatives import (
    adabelief,
    adam_prox,
    adamax,
    adamaxw,
    amsgrad,
    amsgradw,
    cautious_adamw,
    lion,
    nadam,
    nadamw,
    radam,
    rmsprop,
    stable_adamw,
)
from adamw_jax.reports.decay import decay_report
from adamw_jax.reports.decay_table import DecayOverRun, DecayReport, DecayRow
from adamw_jax.reports.memory import MemoryReport, MemoryRow, memory_report
from adamw_jax.reports.rotation import rotation_report
from adamw_jax.reports.rotation_table import RotationReport, RotationRow
from adamw_jax.reports.scaling import ScalingReport, scaling_report
from adamw_jax.reports.scaling_rules import ScalingRule, TunedRun
from adamw_jax.rules import kind, path
from adamw_jax.schedule_free import (
    AverageWeightState,
    ScheduleFreeState,
    schedule_free,
    schedule_free_eval_params,
)
from adamw_jax.schedules import (
    cosine_warm_restarts,
    half_life_warmup,
    renormalized_decay,
    rising_decay,
    scale_by_learning_rate,
)
from adamw_jax.second_generation import (
    adafactor,
    ademamix,
    adopt,
    c_adamw,
    muon,
    schedule_free_adamw,
)
from adamw_jax.version import __version__

__all__ = [
    "AverageWeightState",
    "DecayOverRun",
    "DecayReport",
    "DecayRow",
    "Description",
    "Encoding",
    "Equations",
    "Factored",
    "GradientTransformation",
    "HeavyBallState",
    "InnerValues",
    "MasterWeightsState",
    "MemoryReport",
    "MemoryRow",
    "Merge",
    "MomentumState",
    "Quantized",
    "RotationReport",
    "RotationRow",
    "RunningMaxState",
    "ScalingReport",
    "ScalingRule",
    "ScheduleFreeState",
    "SecondMomentState",
    "StepsState",
    "StochasticRoundingState",
    "TemporalAverageState",
    "TunedRun",
    "__version__",
    "adabelief",
    "adafactor",
    "adam",
    "adam_l2",
    "adam_prox",
    "adamax",
    "adamaxw",
    "adamw",
    "adamwr",
    "ademamix",
    "adopt",
    "amsgrad",
    "amsgradw",
    "bias_correction",
    "blockwise_quantization",
    "c_adamw",
    "cautious_adamw",
    "cautious_step",
    "cautious_weight_decay",
    "chain",
    "clip_by_rms",
    "cosine_warm_restarts",
    "decay_except",
    "decay_only",
    "decay_report",
    "decayed_per_step",
    "decoupled_weight_decay",
    "describe",
    "difference",
    "equations",
    "factored",
    "floored_rms_ratio",
    "gd",
    "growing_clip",
    "half_life_warmup",
    "heavy_ball",
    "heavy_ball_gd",
    "infinity_moment",
    "inner_values",
    "kind",
    "l2_regularization",
    "lagged_second_moment",
    "lion",
    "memory_report",
    "momentum",
    "momentum_gd",
    "muon",
    "nadam",
    "nadamw",
    "nesterov_lookahead",
    "normalized_from_per_step",
    "orthogonalize",
    "parallel",
    "partition",
    "path",
    "per_step_from_normalized",
    "per_step_from_timescale",
    "per_step_from_weight_decay",
    "piece",
    "proximal_weight_decay",
    "radam",
    "rank_one",
    "ratio",
    "rectification",
    "register_for_export",
    "renormalized_decay",
    "rising_decay",
    "rms_ratio",
    "rmsprop",
    "rotation_report",
    "running_max",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_amsgrad",
    "scale_by_belief",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_parameter_rms",
    "scale_by_radam",
    "scaling_report",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "second_moment",
    "sgdw",
    "sign",
    "stable_adamw",
    "stochastic_rounding",
    "temporal_average",
    "timescale_from_per_step",
    "total",
    "uncorrected_adam",
    "weight_decay_from_per_step",
    "with_master_weights",
    "with_stochastic_rounding",
]

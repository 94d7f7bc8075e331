"""The formula of every piece and merge, as lines of Python.

    momentum          m = m + (1 - b1) * (g - m)
    bias_correction   ĝ = g / (1 - b**t)
    rms_ratio         m / (sqrt(v) + eps)

A formula reads what comes in, under the names that it gives to it, the arguments of the
piece's constructor, the parameter θ and the step t = 1, 2, … A name that it reads before it
assigns it is the piece's memory, which starts at zero. The value that goes out is that of the
one expression that is not an assignment; where there is none, that of the last assignment. An
assignment that stands after the expression is made after the step.

A name made of a name that comes in, with a hat, a bar or a suffix, is made of whatever comes
in: the bias correction of m is m̂.
"""

from collections.abc import Callable, Hashable
from typing import Any

import jax.numpy as jnp
import optax

from adamw_jax.averaging import temporal_average
from adamw_jax.bias import bias_correction
from adamw_jax.core import Description
from adamw_jax.decay import (
    cautious_weight_decay,
    decoupled_weight_decay,
    l2_regularization,
    proximal_weight_decay,
)
from adamw_jax.factoring import scale_by_parameter_rms
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
from adamw_jax.moments import heavy_ball, infinity_moment, momentum, running_max, second_moment
from adamw_jax.normalized import floored_rms_ratio, growing_clip, lagged_second_moment
from adamw_jax.rectification import rectification
from adamw_jax.schedule_free import schedule_free
from adamw_jax.schedules import scale_by_learning_rate

# What comes in, then the formula.
Formula = tuple[str, str]


def _momentum(nesterov: bool, previous: bool, **others: Any) -> Formula:
    average = "m + (1 - b1) * (g - m)"
    if previous:
        return "g", f"m; m = {average}"
    return "g", f"m = {average}" + f"; {average}" * nesterov


def _heavy_ball(nesterov: bool, **others: Any) -> Formula:
    return "g", "m = b1 * m + g" + "; b1 * m + g" * nesterov


def _bias_correction(ahead: int, **others: Any) -> Formula:
    return "g", "ĝ = g / (1 - b**t)" if not ahead else f"ĝ = g / (1 - b**(t + {ahead}))"


def _rms_ratio(eps_root: Any, **others: Any) -> Formula:
    is_zero = isinstance(eps_root, int | float) and not eps_root
    square = "v" if is_zero else "v + eps_root"
    return "m v", f"m / (sqrt({square}) + eps)"


def _scale(learning_rate: Any, flip_sign: bool) -> Formula:
    is_one = isinstance(learning_rate, int | float) and learning_rate == 1
    scaled = "u" if is_one else "learning_rate * u"
    return "u", f"-({scaled})" if flip_sign else scaled


RECTIFICATION = """
ρ_inf = 2 / (1 - b2) - 1
ρ = ρ_inf - 2 * t * b2**t / (1 - b2**t)
r = sqrt((ρ - 4) * (ρ - 2) * ρ_inf / ((ρ_inf - 4) * (ρ_inf - 2) * ρ))
v_rect = v / r**2 if ρ > threshold else 1
"""

AGREES = "indicator(u * g > 0)"
SCHEDULE_FREE = """
s = s + learning_rate**2
c = learning_rate**2 / s
-(c * b1 / (1 - b1) * e + (1 - b1 + b1 * c) * learning_rate * u)
e = (1 - c) * (e + (1 - b1) * learning_rate * u)
"""

# One for each constructor, or a function that makes it of the constructor's arguments. A piece of
# your own gets its formula by an entry here.
FORMULAS: dict[Hashable, Formula | Callable[..., Formula]] = {
    momentum: _momentum,
    heavy_ball: _heavy_ball,
    second_moment: ("g", "v = v + (1 - b2) * (g**2 - v)"),
    lagged_second_moment: ("g", "v; v = v + (1 - b2) * (g**2 - v) if t > 1 else g**2"),
    infinity_moment: ("g", "u = max(b2 * u, abs(g))"),
    running_max: ("v", "v_max = max(v_max, v)"),
    bias_correction: _bias_correction,
    rectification: ("v", RECTIFICATION),
    rms_ratio: _rms_ratio,
    floored_rms_ratio: ("g v", "g / max(sqrt(v), eps)"),
    ratio: ("m u", "m / (u + eps)"),
    nesterov_lookahead: ("m g", "b1 * m + (1 - b1) * g"),
    difference: ("g m", "g - m"),
    total: ("a b", "a + b"),
    sign: ("u", "sign(u)"),
    growing_clip: ("u", "clip(u, (t - 1)**power)"),
    cautious_step: ("u g", f"u * {AGREES} / max(mean({AGREES}), eps)"),
    clip_by_rms: ("u g v", "u / max(1, sqrt(mean(g**2 / max(v, eps**2))))"),
    decoupled_weight_decay: ("u", "u + weight_decay * θ"),
    l2_regularization: ("g", "g_reg = g + l2 * θ"),
    cautious_weight_decay: ("u", "u + weight_decay * indicator(u * θ >= 0) * θ"),
    proximal_weight_decay: ("u", "(θ + u) / (1 + decay_per_step) - θ"),
    scale_by_parameter_rms: ("u", "max(floor, sqrt(mean(θ**2))) * u"),
    scale_by_learning_rate: _scale,
    schedule_free: ("u", SCHEDULE_FREE),
    optax.apply_updates: ("u", "θ + u"),
    jnp.add: ("a b", "a + b"),
    jnp.subtract: ("a b", "a - b"),
    jnp.multiply: ("a b", "a * b"),
    temporal_average: ("x", "θ̄ = θ̄ + (1 - b2) * (x - θ̄) / (1 - b2**t)"),
}


def formula(made_by: Any, arguments: dict[str, Any]) -> Formula | None:
    """The formula of a call, which had these arguments, or of a function; None if unknown."""
    made_by = made_by.constructor if isinstance(made_by, Description) else made_by
    found = FORMULAS.get(made_by) if isinstance(made_by, Hashable) else None
    if found is None:
        return None
    inputs, body = found(**arguments) if callable(found) else found
    if arguments.get("mask") is not None and "mask" not in body:
        rate = next(iter(arguments))  # which is zero where the mask is False
        body = body.replace(rate, f"{rate} * indicator(mask)")
    return inputs, body

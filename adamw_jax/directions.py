"""The directions of the optimizers: their updates without learning rate, sign and decay.

They have Optax's names, arguments and defaults, and are meant for composing. `adam` is
`chain(scale_by_adam(…), scale_by_learning_rate(α))`, and its relatives are built in the same
way. The pieces' docstrings say what the hyperparameters mean; see `optimizers`.
"""

from typing import Any

import jax

from adamw_jax.bias import bias_correction
from adamw_jax.combine import chain, parallel
from adamw_jax.core import GradientTransformation
from adamw_jax.encodings import dtype_or_encoding
from adamw_jax.hyperparameters import decay_rate, flag, non_negative
from adamw_jax.merges import difference, nesterov_lookahead, ratio, rms_ratio, sign
from adamw_jax.moments import infinity_moment, momentum, running_max, second_moment
from adamw_jax.rectification import rectification

Number = jax.typing.ArrayLike


def mean(b1: Number, mu_dtype: Any = None, nesterov: bool = False) -> GradientTransformation:
    """The corrected first moment m̂, or with `nesterov` NAdam's look-ahead of it."""
    average = momentum(b1, accumulator_dtype=dtype_or_encoding("mu_dtype", mu_dtype))
    if not flag("nesterov", nesterov):
        return chain(average, bias_correction(b1))
    next_mean = chain(average, bias_correction(b1, ahead=1))
    return parallel(next_mean, bias_correction(b1), merge=nesterov_lookahead(b1))


def mean_square(b2: Number, nu_dtype: Any = None) -> GradientTransformation:
    """The corrected second moment v̂."""
    kept = dtype_or_encoding("nu_dtype", nu_dtype)
    return chain(second_moment(b2, accumulator_dtype=kept), bias_correction(b2))


def scale_by_adam(
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """The direction of `adam`, m̂ / (√v̂ + eps), or with `nesterov` that of `nadam`."""
    first, second = mean(b1, mu_dtype, nesterov), mean_square(b2, nu_dtype)
    return parallel(first, second, merge=rms_ratio(eps, eps_root))


def scale_by_amsgrad(
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    mu_dtype: Any = None,
    *,
    max_before_correction: bool = False,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """The direction of `amsgrad`, m̂ / (√max v̂ + eps)."""
    kept = dtype_or_encoding("nu_dtype", nu_dtype)
    square = second_moment(b2, accumulator_dtype=kept)
    largest = running_max(accumulator_dtype=kept)
    if flag("max_before_correction", max_before_correction):
        second = chain(square, largest, bias_correction(b2))
    else:
        second = chain(square, bias_correction(b2), largest)
    return parallel(mean(b1, mu_dtype), second, merge=rms_ratio(eps, eps_root))


def scale_by_adamax(
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    *,
    mu_dtype: Any = None,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """The direction of `adamax`, m̂ / (u + eps)."""
    largest = infinity_moment(b2, accumulator_dtype=dtype_or_encoding("nu_dtype", nu_dtype))
    return parallel(mean(b1, mu_dtype), largest, merge=ratio(eps))


def scale_by_radam(
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    threshold: Number = 5.0,
    *,
    nesterov: bool = False,
    mu_dtype: Any = None,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """The direction of `radam`: m̂ in the first steps, then rₜ m̂ / √v̂."""
    second = chain(mean_square(b2, nu_dtype), rectification(b2, threshold))
    return parallel(mean(b1, mu_dtype, nesterov), second, merge=rms_ratio(eps, eps_root))


def scale_by_belief(
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-16,
    eps_root: Number = 1e-16,
    *,
    nesterov: bool = False,
    mu_dtype: Any = None,
    nu_dtype: Any = None,
) -> GradientTransformation:
    """The direction of `adabelief`, m̂ / (√ŝ + eps)."""
    average = momentum(b1, accumulator_dtype=dtype_or_encoding("mu_dtype", mu_dtype))
    surprise = parallel(chain(), average, merge=difference())
    first, second = mean(b1, mu_dtype, nesterov), chain(surprise, mean_square(b2, nu_dtype))
    # The paper adds eps_root at every step; after correction that is always eps_root/(1 − b2).
    merge = rms_ratio(eps, non_negative("eps_root", eps_root) / (1 - b2))
    return parallel(first, second, merge=merge)


def scale_by_lion(
    b1: Number = 0.9, b2: Number = 0.99, mu_dtype: Any = None
) -> GradientTransformation:
    """The direction of `lion`, sign(b1 m + (1 − b1) g)."""
    decay_rate("b2", b2)  # checked here, because momentum would call it b1
    memory = dtype_or_encoding("mu_dtype", mu_dtype)
    before = momentum(b2, previous=True, accumulator_dtype=memory)
    mixture = parallel(before, chain(), merge=nesterov_lookahead(b1))
    return parallel(mixture, merge=sign())

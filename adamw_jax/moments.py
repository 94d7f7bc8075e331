"""What is remembered of the gradients: their mean, their mean square, the largest of them.

With `bias_correction` and `rms_ratio` the first two rebuild Adam; `momentum` alone before
`scale_by_learning_rate` is gradient descent with momentum, `second_moment` in a
`parallel` with `chain()`, the identity, is RMSprop; `running_max` turns Adam into AMSGrad,
and `infinity_moment` instead of `second_moment` turns it into AdaMax.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamw_jax import numerics
from adamw_jax.core import GradientTransformation, describe
from adamw_jax.encodings import Encoding, dtype_or_encoding, zeros_in
from adamw_jax.hyperparameters import decay_rate, decay_rate_or_schedule, flag
from adamw_jax.piece import piece


class MomentumState(NamedTuple):
    """State of `momentum`.

    Attributes:
      mu: the average m, shaped like the parameters, as `accumulator_dtype` says.
    """

    mu: optax.Updates


class HeavyBallState(NamedTuple):
    """State of `heavy_ball`.

    Attributes:
      trace: the sum m, shaped like the parameters, as `accumulator_dtype` says.
    """

    trace: optax.Updates


class SecondMomentState(NamedTuple):
    """State of `second_moment`, and of `infinity_moment`, which takes its place.

    Attributes:
      nu: the average v, shaped like the parameters; real, in working precision or as
        `accumulator_dtype` says.
    """

    nu: optax.Updates


class RunningMaxState(NamedTuple):
    """State of `running_max`.

    Attributes:
      nu_max: the maximum, shaped like the parameters; real, in working precision or as
        `accumulator_dtype` says.
    """

    nu_max: optax.Updates


def momentum(
    b1: jax.typing.ArrayLike | optax.Schedule,
    *,
    nesterov: bool = False,
    previous: bool = False,
    accumulator_dtype: jax.typing.DTypeLike | Encoding | None = None,
) -> GradientTransformation:
    """Averages the gradients: m ← m + (1 − b1)(g − m), from m = 0.

    This is the average of Adam's Algorithm 1 (arXiv 1412.6980), whose weights sum to
    1 − b1ᵗ. `heavy_ball` is the sum, whose weights sum to 1/(1 − b1) in the limit, so that
    it needs another learning rate.

    Args:
      b1: decay rate in [0, 1), a number, a 0-d array or a schedule (step → number); the
        average remembers about 1/(1 − b1) gradients, and b1 = 0 makes this the identity.
      nesterov: whether to return what the average would be if the same gradient came
        once more, m + (1 − b1)(g − m) with the new m. The state is the same.
      previous: whether to return the average from before this gradient, which Lion mixes
        with the gradient at another rate. The state is the same.
      accumulator_dtype: dtype in which m is kept, or an encoding such as
        `stochastic_rounding()`. By default it is the parameter's own dtype, but float32 for
        half-precision parameters: with bfloat16's 8 significant bits an average stalls.

    Returns:
      A transformation with state `MomentumState`, and a `StepsState` for a schedule.

    Raises:
      ValueError: b1 is outside [0, 1), nesterov and previous are both True, or
        accumulator_dtype is not floating-point or complex, nor an encoding; or, at `init`, a
        parameter is not floating-point or complex, or only one of it and accumulator_dtype
        is complex.
    """
    nesterov, previous = flag("nesterov", nesterov), flag("previous", previous)
    if nesterov and previous:
        raise ValueError("momentum looks ahead (nesterov) or back (previous), not both")
    kept = dtype_or_encoding("accumulator_dtype", accumulator_dtype)
    kwargs = {"nesterov": nesterov, "previous": previous, "accumulator_dtype": kept}
    arithmetic = _average_ahead if nesterov else _average_before if previous else _average
    description = describe(momentum, b1, **kwargs)
    rates = (decay_rate_or_schedule("b1", b1),)
    return _remembering(description, arithmetic, rates, MomentumState, kept)


def heavy_ball(
    b1: jax.typing.ArrayLike,
    *,
    nesterov: bool = False,
    accumulator_dtype: jax.typing.DTypeLike | Encoding | None = None,
) -> GradientTransformation:
    """Sums the gradients with fading weights: m ← b1 m + g, from m = 0.

    This is the momentum of PyTorch's SGD and of `optax.trace`. It is `momentum` divided by
    1 − b1, so that gradient descent with it takes steps 1/(1 − b1) times as long, ten
    times for b1 = 0.9.

    Args:
      b1: decay rate in [0, 1), as in `momentum`.
      nesterov: whether to return b1 m + g with the new m. The state is the same.
      accumulator_dtype: dtype in which m is kept, as in `momentum`.

    Returns:
      A transformation with state `HeavyBallState`.

    Raises:
      ValueError: as `momentum`.
    """
    kept = dtype_or_encoding("accumulator_dtype", accumulator_dtype)
    arithmetic = _fading_sum_ahead if flag("nesterov", nesterov) else _fading_sum
    description = describe(heavy_ball, b1, nesterov=nesterov, accumulator_dtype=kept)
    return _remembering(description, arithmetic, (decay_rate("b1", b1),), HeavyBallState, kept)


def second_moment(
    b2: jax.typing.ArrayLike | optax.Schedule,
    *,
    accumulator_dtype: jax.typing.DTypeLike | Encoding | None = None,
) -> GradientTransformation:
    """Averages the squared gradients: v ← v + (1 − b2)(|g|² − v), from v = 0.

    This is the uncentred second moment of Adam's Algorithm 1 (arXiv 1412.6980). It is kept in
    float32 for half-precision parameters: a bfloat16 v stalls at half its value. Where a
    square overflows (|g| > 1.8e19 in float32), v is infinite from then on, and an adaptive
    optimizer no longer moves that parameter, as in Optax.

    Args:
      b2: decay rate in [0, 1), a number, a 0-d array or a schedule (step → number).
      accumulator_dtype: real dtype in which v is kept, or an encoding. bfloat16 stalls, and
        float16 is too narrow: a v below 3e-8 becomes zero, and the step huge. With
        `stochastic_rounding()` or `blockwise_quantization()` v follows its gradients.

    Returns:
      A transformation with state `SecondMomentState`, and a `StepsState` for a schedule. The
      updates keep their dtype: if they are complex, v is returned as a complex number with
      imaginary part 0.

    Raises:
      ValueError: b2 is outside [0, 1), accumulator_dtype is neither a dtype nor an encoding; or,
        at `init`, a parameter is not floating-point or complex, or accumulator_dtype is
        complex.
    """
    kept = dtype_or_encoding("accumulator_dtype", accumulator_dtype)
    description = describe(second_moment, b2, accumulator_dtype=kept)
    rates = (decay_rate_or_schedule("b2", b2),)
    return _remembering(description, _average_square, rates, SecondMomentState, kept, signed=False)


def infinity_moment(
    b2: jax.typing.ArrayLike, *, accumulator_dtype: jax.typing.DTypeLike | Encoding | None = None
) -> GradientTransformation:
    """Keeps the largest gradient, which fades: u ← max(b2 u, |g|), from u = 0.

    This is AdaMax's moment, of order p for p → ∞ (arXiv 1412.6980, §7.1). It needs no bias
    correction. PyTorch and Optax use |g| + eps for |g|; here eps is in `ratio`.

    Args:
      b2: decay rate in [0, 1), a number or 0-d array.
      accumulator_dtype: as in `second_moment`.

    Returns:
      A transformation with state `SecondMomentState`, whose nu is u. The updates keep
      their dtype, as in `second_moment`.

    Raises:
      ValueError: as `second_moment`.
    """
    kept = dtype_or_encoding("accumulator_dtype", accumulator_dtype)
    description = describe(infinity_moment, b2, accumulator_dtype=kept)
    rates = (decay_rate("b2", b2),)
    return _remembering(description, _fading_max, rates, SecondMomentState, kept, signed=False)


def running_max(
    *, accumulator_dtype: jax.typing.DTypeLike | Encoding | None = None
) -> GradientTransformation:
    """Returns the largest update so far: v ← max(v, u), from v = 0.

    The updates must be ≥ 0, as second moments are. In AMSGrad (arXiv 1904.09237) it keeps
    the steps from growing again. Its place matters: after `bias_correction` it takes the
    maximum of v̂ (as in Optax), before it that of v (as in PyTorch).

    Args:
      accumulator_dtype: as in `second_moment`.

    Returns:
      A transformation with state `RunningMaxState`. Of complex updates it takes the
      real part.

    Raises:
      ValueError: as `second_moment`.
    """
    kept = dtype_or_encoding("accumulator_dtype", accumulator_dtype)
    description = describe(running_max, accumulator_dtype=kept)
    return _remembering(description, _max, (), RunningMaxState, kept, signed=False)


def _remembering(description, arithmetic, rates, state, kept_in, *, signed=True):
    """A piece whose memory is kept in a dtype or an encoding."""
    encoding = kept_in if isinstance(kept_in, Encoding) else None
    start = zeros_in(kept_in, signed=signed)
    return piece(description, arithmetic, rates, state=state, start=start, encoding=encoding)


# The functions below return (the new update, the new state).


def _average(b1):
    average = numerics.average(b1)

    def step(g, m):
        m = average(m, g)
        return m, m

    return step


def _average_ahead(b1):
    average = numerics.average(b1)

    def step(g, m):
        m = average(m, g)
        return average(m, g), m

    return step


def _average_before(b1):
    average = numerics.average(b1)
    return lambda g, m: (m, average(m, g))


def _fading_sum(b1):
    def step(g, m):
        m = (1 - b1.complement) * m + g
        return m, m

    return step


def _fading_sum_ahead(b1):
    def step(g, m):
        m = (1 - b1.complement) * m + g
        return (1 - b1.complement) * m + g, m

    return step


def _average_square(b2):
    average = numerics.average(b2)

    def step(g, v):
        v = average(v, square(g))
        return v, v

    return step


def square(g: jax.Array) -> jax.Array:
    """|g|², which is real."""
    return jnp.square(g.real) + jnp.square(g.imag) if jnp.iscomplexobj(g) else g * g


def _fading_max(b2):
    def step(g, u):
        # Not b2·u: the rounding error of a float32 b2 near 1 is not small beside 1 − b2.
        faded = jax.lax.select(jax.lax.is_finite(u), u - b2.complement.real * u, u)
        u = jnp.maximum(faded, jnp.abs(g))
        return u, u

    return step


def _max():
    def step(u, largest):
        largest = jnp.maximum(u.real, largest)
        return largest, largest

    return step

"""Moving averages of the gradient: its mean and its square.

With `bias_correction` and `rms_ratio` they rebuild Adam; `momentum` alone before
`scale_by_learning_rate` is gradient descent with momentum, and `second_moment` in a
`parallel` with `chain()`, the identity, is RMSprop.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from adamw_jax import numerics
from adamw_jax.core import GradientTransformation, describe, jitted
from adamw_jax.hyperparameters import decay_rate, floating_dtype


class MomentumState(NamedTuple):
    """State of `momentum`.

    Attributes:
      mu: the average m, shaped like the parameters, in `accumulator_dtype`.
    """

    mu: optax.Updates


class SecondMomentState(NamedTuple):
    """State of `second_moment`.

    Attributes:
      nu: the average v, shaped like the parameters; real, in working precision.
    """

    nu: optax.Updates


def momentum(
    b1: jax.typing.ArrayLike,
    *,
    nesterov: bool = False,
    accumulator_dtype: jax.typing.DTypeLike | None = None,
) -> GradientTransformation:
    """Averages the gradients: m ← m + (1 − b1)(g − m), from m = 0.

    This is the average of Adam's Algorithm 1 (arXiv 1412.6980), whose weights sum to
    1 − b1ᵗ. The *heavy-ball* form m ← b1 m + g, whose weights sum to 1/(1 − b1) in the
    end, is `optax.trace`; with it the learning rate means something else.

    Args:
      b1: decay rate in [0, 1), a number or 0-d array; the average remembers about
        1/(1 − b1) gradients, and at 0 it is the identity.
      nesterov: whether to put out what the average would be if the same gradient came
        once more, m + (1 − b1)(g − m) with the new m. The state is the same.
      accumulator_dtype: dtype in which m is kept. By default the parameter's own, but
        float32 for half-precision parameters: with 8 bits an average stalls.

    Returns:
      A transformation with state `MomentumState`.

    Raises:
      ValueError: b1 is outside [0, 1), accumulator_dtype is not floating-point or
        complex, or (at `init`) a parameter is not, or only one of the two is complex.
    """
    operand, dtype = decay_rate("b1", b1), floating_dtype("accumulator_dtype", accumulator_dtype)

    def accumulator(p):
        if dtype is None:
            return numerics.working_dtype(p)
        if jnp.iscomplexobj(p) != jnp.issubdtype(dtype, jnp.complexfloating):
            raise ValueError(
                f"accumulator_dtype {dtype} does not fit parameters of {jnp.result_type(p)}: "
                "both must be real, or both complex"
            )
        return dtype

    def init(params):
        return MomentumState(numerics.zeros(params, accumulator))

    def update(updates, state, params=None, **extra_args):
        del params, extra_args
        return _momentum(operand, updates, state, nesterov=nesterov)

    kwargs = {"nesterov": nesterov, "accumulator_dtype": dtype}
    return GradientTransformation(init, update, describe(momentum, b1, **kwargs))


@functools.partial(jitted, static_argnames="nesterov")
def _momentum(b1, updates, state, *, nesterov):
    average = numerics.average(b1)

    def step(g, m):
        return average(m, g)

    mu = numerics.map_leaves(step, updates, state.mu)
    out = numerics.map_leaves(step, updates, mu) if nesterov else mu
    return numerics.cast_like(out, updates), MomentumState(numerics.cast_like(mu, state.mu))


def second_moment(b2: jax.typing.ArrayLike) -> GradientTransformation:
    """Averages the squared gradients: v ← v + (1 − b2)(|g|² − v), from v = 0.

    The uncentred second moment of Adam's Algorithm 1 (arXiv 1412.6980). It is kept in
    float32 for half-precision parameters: a bfloat16 v stalls at half its value.

    Args:
      b2: decay rate in [0, 1), a number or 0-d array.

    Returns:
      A transformation with state `SecondMomentState`. The updates keep their dtype: for
      complex ones v comes out as a complex number without imaginary part.

    Raises:
      ValueError: b2 is outside [0, 1), or (at `init`) a parameter is not
        floating-point or complex.
    """
    operand = decay_rate("b2", b2)

    def init(params):
        return SecondMomentState(numerics.zeros(params, numerics.real_dtype))

    def update(updates, state, params=None, **extra_args):
        del params, extra_args
        return _second_moment(operand, updates, state)

    return GradientTransformation(init, update, describe(second_moment, b2))


@jitted
def _second_moment(b2, updates, state):
    average = numerics.average(b2)

    def step(g, v):
        # A square that overflows counts as the largest number: an infinite v would turn
        # into NaN at the next step, a finite one decays.
        square = jnp.square(g.real) + jnp.square(g.imag) if jnp.iscomplexobj(g) else g * g
        return average(v, jnp.minimum(square, jnp.finfo(square.dtype).max))

    nu = numerics.map_leaves(step, updates, state.nu)
    return numerics.cast_like(nu, updates), SecondMomentState(numerics.cast_like(nu, state.nu))

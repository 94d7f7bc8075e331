"""How an optimizer's updates follow gradients that are noise, measured."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

FIRST, STEPS = 1024, 4096
LENGTH, SIDE = 256, 16  # of a vector and of an axis of larger arrays, at most


class Response(NamedTuple):
    """How the updates of one parameter follow noise.

    Attributes:
      persistence: S = E‖∑u‖² / ∑E‖u‖² over many steps, which is the sum of the updates'
        autocorrelations over all lags: 1 without memory, (1 + b1)/(1 − b1) with `momentum`.
      degree: p, where updates grow as the p-th power of the gradients: 1 for gradient descent,
        0 for Adam.
      follows_weights: whether updates grow with the parameters, as LAMB's and Adafactor's.
    """

    persistence: float
    degree: float
    follows_weights: bool


def small(shape: Any) -> jax.ShapeDtypeStruct:
    """An array of the same rank that is large enough to be measured."""
    side = LENGTH if len(shape.shape) == 1 else SIDE
    return jax.ShapeDtypeStruct([min(n, side) for n in shape.shape], shape.dtype)


def noise_responses(
    optimizer: optax.GradientTransformation, shapes: optax.Params
) -> list[Response]:
    """How an optimizer's updates follow independent gradients from N(0, 1).

    It takes 1,024 steps and then 4,096 that count, so that what it remembers must be much shorter,
    with parameters that stay 0, where nothing decays. ∑u is split into what is proportional to
    ∑g, whose mean square is known, and a rest, which leaves less to chance: arrays of 256 numbers
    are enough for about a percent.

    Args:
      optimizer: any Optax transformation.
      shapes: the parameters' shapes and dtypes.

    Returns:
      For each parameter; NaN where the updates are zero.
    """
    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), shapes)
    zeros, structure = jax.tree.flatten(zeros)
    ends = [int(end) for end in np.cumsum([z.size for z in zeros])]

    @jax.jit
    def run(size, at):
        params = structure.unflatten([z + at.astype(z.dtype) for z in zeros])

        def step(carry, numbered):
            state, us, gs, squares = carry
            t, key = numbered
            counts = (t >= FIRST).astype(float)
            noise = jnp.split(size * jax.random.normal(key, (ends[-1],)), ends[:-1])
            pairs = zip(noise, zeros, strict=True)
            g = [n.reshape(z.shape).astype(z.dtype) for n, z in pairs]
            updates, state = optimizer.update(structure.unflatten(g), state, params)
            u = jax.tree.leaves(updates)

            def added(totals, more):
                pairs = zip(totals, more, strict=True)
                return [total + counts.astype(x.dtype) * x for total, x in pairs]

            return (state, added(us, u), added(gs, g), added(squares, [x**2 for x in u])), None

        keys = jax.random.split(jax.random.key(0), FIRST + STEPS)
        start = optimizer.init(params), zeros, zeros, zeros
        (_, *sums), _ = jax.lax.scan(step, start, (jnp.arange(len(keys)), keys))
        return sums

    runs = [run(*map(jnp.float32, at)) for at in ((1, 0), (2, 0), (1, 1), (1, 2))]
    return [
        _response(*parameter)
        for parameter in zip(*(zip(*r, strict=True) for r in runs), strict=True)
    ]


def _response(*runs):
    """From the sums of u, g and u²: gradients of size 1 and 2 at 0, then of size 1 at 1 and 2."""
    runs = [[np.ravel(np.asarray(x, np.float64)) for x in sums] for sums in runs]
    u, g, _ = runs[0]
    mean_squares = [np.mean(squares) / STEPS for *_, squares in runs]
    once, twice, *_ = mean_squares
    if not once > 0:
        return Response(math.nan, math.nan, False)
    along = u @ g / (g @ g)
    square = along**2 * STEPS + np.mean((u - along * g) ** 2)
    degree = math.log2(twice / once) / 2
    # At 1 and 2 there is decay, which is the mean.
    (at_one, at_two) = (
        mean_square - np.mean((total / STEPS) ** 2)
        for mean_square, (total, *_) in zip(mean_squares[2:], runs[2:], strict=True)
    )
    return Response(float(square / STEPS / once), degree, bool(at_two > 2 * at_one))

"""Every transformation that the library exports, in one table, and what runs them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import adamw_jax as aj
from adamw_jax.testing import gradients_like, mixed_params, walk  # noqa: F401  for all tests


@dataclasses.dataclass(frozen=True)
class Case:
    """A transformation with all its numeric hyperparameters, and its peer in Optax.

    Attributes:
      name: how the case is called; it opens with the name of the export.
      make: makes ours from the hyperparameters by name.
      numbers: the numeric hyperparameters.
      peer: makes Optax's from the same, where Optax has one.
      scheduled: the hyperparameters that may be schedules.
      covers: other exports that it is made of, and that have no row of their own.
    """

    name: str
    make: Callable[..., optax.GradientTransformation]
    numbers: dict[str, float] = dataclasses.field(default_factory=dict)
    peer: Callable[..., optax.GradientTransformation] | None = None
    scheduled: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()

    def tx(self, **changed: Any) -> optax.GradientTransformation:
        return self.make(**{**self.numbers, **changed})

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def heavy_ball_peer(b1, nesterov=False):
    """The average as Optax's heavy ball of scaled gradients."""
    return optax.chain(optax.scale(1 - b1), optax.trace(b1, nesterov=nesterov))


def squares_peer(b2):
    def square(updates, params):
        del params
        return jax.tree.map(lambda g: (g * jnp.conj(g)).real.astype(jnp.result_type(g)), updates)

    return optax.chain(optax.stateless(square), optax.ema(b2, debias=False))


def decays_matrices(tree):
    return jax.tree.map(lambda x: jnp.ndim(x) > 1, tree)


def sgdw_peer(learning_rate, b1, decay_per_step, schedule):
    rates = [
        rate if callable(rate) else optax.constant_schedule(rate)
        for rate in (decay_per_step, schedule)
    ]
    return optax.chain(
        optax.scale_by_learning_rate(learning_rate, flip_sign=False),
        optax.scale_by_learning_rate(schedule, flip_sign=False),
        optax.trace(b1),
        optax.add_decayed_weights(lambda step: rates[0](step) * rates[1](step)),
        optax.scale(-1.0),
    )


def paper_adamw_peer(learning_rate, decay_per_step, schedule, **adam):
    return optax.chain(
        optax.scale_by_adam(**adam),
        optax.scale(learning_rate),
        optax.add_decayed_weights(decay_per_step),
        optax.scale_by_learning_rate(schedule),
    )


def rmsprop_peer(learning_rate, b2, eps):
    return optax.rmsprop(learning_rate, b2, eps, eps_in_sqrt=False)


def amsgradw_peer(learning_rate, weight_decay, **adam):
    return optax.chain(
        optax.scale_by_amsgrad(**adam),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def adamwr_peer(normalized_decay, **adam):
    """Optax's AdamW with joined cosine cycles of 2, 4, 8, … steps."""
    lengths = [2**n for n in range(1, 12)]
    ends = np.cumsum(lengths)[:-1].tolist()
    cosines = [optax.cosine_decay_schedule(1.0, n) for n in lengths]
    decays = [optax.constant_schedule(normalized_decay / n**0.5) for n in lengths]
    decay, schedule = (optax.join_schedules(parts, ends) for parts in (decays, cosines))
    return paper_adamw_peer(decay_per_step=decay, schedule=schedule, **adam)


MOMENTS = {"b1": 0.8, "b2": 0.99, "eps": 1e-6}
ADAM = {"learning_rate": 0.02} | MOMENTS
RATE, ROOT, TINY = {"learning_rate": 0.02}, {"eps_root": 1e-10}, {"eps": 1e-14}
DECAY, RATE_AND_DECAY = {"weight_decay": 0.1}, ("learning_rate", "weight_decay")

CASES = [
    Case("chain", aj.chain, {}, optax.identity),
    Case(
        "chain momentum bias_correction",
        lambda b1: aj.chain(aj.momentum(b1), aj.bias_correction(b1)),
        {"b1": 0.8},
        lambda b1: optax.ema(b1, debias=True),
    ),
    Case(
        "parallel",
        lambda b1, b2: aj.parallel(aj.momentum(b1), aj.momentum(b2), merge=jnp.subtract),
        {"b1": 0.8, "b2": 0.99},
    ),
    Case("momentum", aj.momentum, {"b1": 0.8}, heavy_ball_peer),
    Case(
        "momentum nesterov",
        lambda b1: aj.momentum(b1, nesterov=True),
        {"b1": 0.8},
        lambda b1: heavy_ball_peer(b1, nesterov=True),
    ),
    Case("second_moment", aj.second_moment, {"b2": 0.99}, squares_peer),
    Case("bias_correction", aj.bias_correction, {"b": 0.99}),
    Case("bias_correction ahead", lambda b: aj.bias_correction(b, ahead=1), {"b": 0.99}),
    Case(
        "rms_ratio",
        lambda b2, eps: aj.parallel(aj.chain(), aj.second_moment(b2), merge=aj.rms_ratio(eps)),
        {"b2": 0.99, "eps": 1e-6},
        lambda b2, eps: optax.scale_by_rms(b2, eps, eps_in_sqrt=False),
    ),
    Case(
        "nesterov_lookahead",
        lambda b1: aj.parallel(aj.momentum(b1), aj.chain(), merge=aj.nesterov_lookahead(b1)),
        {"b1": 0.8},
        lambda b1: heavy_ball_peer(b1, nesterov=True),
    ),
    Case(
        "decoupled_weight_decay",
        aj.decoupled_weight_decay,
        {"weight_decay": 0.1},
        optax.add_decayed_weights,
        ("weight_decay",),
    ),
    Case(
        "l2_regularization",
        aj.l2_regularization,
        {"l2": 0.1},
        lambda l2: optax.add_decayed_weights(l2),
        ("l2",),
    ),
    Case(
        "scale_by_learning_rate",
        aj.scale_by_learning_rate,
        RATE,
        optax.scale_by_learning_rate,
        ("learning_rate",),
    ),
    Case("momentum previous", lambda b1: aj.momentum(b1, previous=True), {"b1": 0.8}),
    Case("heavy_ball", aj.heavy_ball, {"b1": 0.8}, lambda b1: optax.trace(b1)),
    Case(
        "heavy_ball nesterov",
        lambda b1: aj.heavy_ball(b1, nesterov=True),
        {"b1": 0.8},
        lambda b1: optax.trace(b1, nesterov=True),
    ),
    Case("infinity_moment", aj.infinity_moment, {"b2": 0.99}),
    Case(
        "running_max",
        lambda b2: aj.chain(aj.second_moment(b2), aj.running_max()),
        {"b2": 0.99},
    ),
    Case(
        "rectification",
        lambda b2, threshold: aj.chain(
            aj.second_moment(b2), aj.bias_correction(b2), aj.rectification(b2, threshold)
        ),
        {"b2": 0.99, "threshold": 5.0},
    ),
    Case(
        "ratio",
        lambda b2, eps: aj.parallel(aj.chain(), aj.infinity_moment(b2), merge=aj.ratio(eps)),
        {"b2": 0.99, "eps": 1e-6},
    ),
    Case(
        "difference",
        lambda b1: aj.parallel(aj.chain(), aj.momentum(b1), merge=aj.difference()),
        {"b1": 0.8},
    ),
    Case("sign", lambda: aj.parallel(aj.chain(), merge=aj.sign()), {}, optax.scale_by_sign),
    Case(
        "clip_by_rms",
        lambda b2, eps: aj.parallel(
            aj.chain(), aj.chain(), aj.second_moment(b2), merge=aj.clip_by_rms(eps)
        ),
        {"b2": 0.99, "eps": 1e-6},
    ),
    Case(
        "cautious_weight_decay",
        aj.cautious_weight_decay,
        {"weight_decay": 0.1},
        None,
        ("weight_decay",),
    ),
    Case(
        "proximal_weight_decay",
        aj.proximal_weight_decay,
        {"decay_per_step": 0.1},
        None,
        ("decay_per_step",),
    ),
    Case("temporal_average", aj.temporal_average, {"b2": 0.99}, lambda b2: optax.identity()),
    Case(
        "partition",
        lambda b1: aj.partition({"*": aj.momentum(b1)}),
        {"b1": 0.8},
        heavy_ball_peer,
    ),
    Case("scale_by_adam", aj.scale_by_adam, MOMENTS | ROOT, optax.scale_by_adam),
    Case("scale_by_amsgrad", aj.scale_by_amsgrad, MOMENTS | ROOT, optax.scale_by_amsgrad),
    Case("scale_by_adamax", aj.scale_by_adamax, MOMENTS | TINY, optax.scale_by_adamax),
    Case("scale_by_radam", aj.scale_by_radam, MOMENTS | TINY, optax.scale_by_radam),
    Case("scale_by_belief", aj.scale_by_belief, MOMENTS | ROOT, optax.scale_by_belief),
    Case("scale_by_lion", aj.scale_by_lion, {"b1": 0.8, "b2": 0.99}, optax.scale_by_lion),
    Case("gd", aj.gd, RATE, optax.sgd, ("learning_rate",)),
    Case(
        "momentum_gd",
        aj.momentum_gd,
        RATE | {"b1": 0.8},
        lambda learning_rate, b1: optax.chain(heavy_ball_peer(b1), optax.sgd(learning_rate)),
        ("learning_rate",),
    ),
    Case("uncorrected_adam", aj.uncorrected_adam, ADAM | ROOT, None, ("learning_rate",)),
    Case("adam", aj.adam, ADAM | ROOT, optax.adam, ("learning_rate",)),
    Case(
        "adam nesterov",
        lambda **numbers: aj.adam(**numbers, nesterov=True),
        ADAM,
        lambda **numbers: optax.adam(**numbers, nesterov=True),
        ("learning_rate",),
    ),
    Case(
        "adam_l2",
        aj.adam_l2,
        ADAM | {"l2": 0.1},
        lambda l2, **numbers: optax.chain(optax.add_decayed_weights(l2), optax.adam(**numbers)),
        ("learning_rate", "l2"),
    ),
    Case(
        "adamw",
        aj.adamw,
        ADAM | ROOT | {"weight_decay": 0.1},
        optax.adamw,
        ("learning_rate", "weight_decay"),
    ),
    Case(
        "adamw masked nesterov",
        lambda **numbers: aj.adamw(**numbers, mask=decays_matrices, nesterov=True),
        ADAM | {"weight_decay": 0.1},
        lambda **numbers: optax.adamw(**numbers, mask=decays_matrices, nesterov=True),
        ("learning_rate",),
    ),
    Case(
        "heavy_ball_gd",
        aj.heavy_ball_gd,
        RATE | {"b1": 0.8},
        lambda learning_rate, b1: optax.sgd(learning_rate, b1),
        ("learning_rate",),
    ),
    Case(
        "heavy_ball_gd nesterov",
        lambda **numbers: aj.heavy_ball_gd(**numbers, nesterov=True),
        RATE | {"b1": 0.8},
        lambda learning_rate, b1: optax.sgd(learning_rate, b1, nesterov=True),
        ("learning_rate",),
    ),
    Case(
        "sgdw",
        aj.sgdw,
        RATE | {"b1": 0.8, "decay_per_step": 2e-3, "schedule": 0.5},
        sgdw_peer,
        ("learning_rate", "decay_per_step", "schedule"),
    ),
    Case("rmsprop", aj.rmsprop, {"learning_rate": 0.02, "b2": 0.99, "eps": 1e-6}, rmsprop_peer),
    Case("nadam", aj.nadam, ADAM | ROOT, optax.nadam, ("learning_rate",)),
    Case("nadamw", aj.nadamw, ADAM | ROOT | DECAY, optax.nadamw, RATE_AND_DECAY),
    Case("amsgrad", aj.amsgrad, ADAM | ROOT, optax.amsgrad, ("learning_rate",)),
    Case(
        "amsgrad max_before_correction",
        lambda **numbers: aj.amsgrad(**numbers, max_before_correction=True),
        ADAM | ROOT,
        None,
        ("learning_rate",),
    ),
    Case("amsgradw", aj.amsgradw, ADAM | ROOT | DECAY, amsgradw_peer, RATE_AND_DECAY),
    # Where eps stands differs from Optax in AdaMax and RAdam; so small it does not matter.
    Case("adamax", aj.adamax, ADAM | TINY, optax.adamax, ("learning_rate",)),
    Case("adamaxw", aj.adamaxw, ADAM | TINY | DECAY, optax.adamaxw, RATE_AND_DECAY),
    Case("radam", aj.radam, ADAM | TINY | {"threshold": 5.0}, optax.radam, ("learning_rate",)),
    Case(
        "radam nesterov",
        lambda **numbers: aj.radam(**numbers, nesterov=True),
        ADAM | TINY,
        lambda **numbers: optax.radam(**numbers, nesterov=True),
        ("learning_rate",),
    ),
    Case("adabelief", aj.adabelief, ADAM | ROOT, optax.adabelief, ("learning_rate",)),
    Case(
        "adabelief nesterov",
        lambda **numbers: aj.adabelief(**numbers, nesterov=True),
        ADAM | ROOT,
        lambda **numbers: optax.adabelief(**numbers, nesterov=True),
        ("learning_rate",),
    ),
    Case("lion", aj.lion, RATE | {"b1": 0.8, "b2": 0.99} | DECAY, optax.lion, RATE_AND_DECAY),
    Case("adam_prox", aj.adam_prox, ADAM | ROOT | DECAY, None, RATE_AND_DECAY),
    Case("cautious_adamw", aj.cautious_adamw, ADAM | ROOT | DECAY, None, RATE_AND_DECAY),
    Case("stable_adamw", aj.stable_adamw, ADAM | DECAY, None, RATE_AND_DECAY),
    # The second generation, each with the pieces that no other member has.
    Case(
        "schedule_free_adamw",
        aj.schedule_free_adamw,
        ADAM | DECAY,
        None,
        RATE_AND_DECAY,
        ("schedule_free",),
    ),
    Case(
        "ademamix",
        aj.ademamix,
        ADAM | ROOT | DECAY | {"b3": 0.9, "alpha": 2.0},
        None,
        (*RATE_AND_DECAY, "b3", "alpha"),
        ("total",),
    ),
    Case(
        "adopt",
        aj.adopt,
        ADAM | DECAY,
        None,
        RATE_AND_DECAY,
        ("lagged_second_moment", "floored_rms_ratio", "growing_clip"),
    ),
    Case("c_adamw", aj.c_adamw, ADAM | ROOT | DECAY, None, RATE_AND_DECAY, ("cautious_step",)),
    Case(
        "adafactor",
        lambda **numbers: aj.adafactor(**numbers, min_axis=2),
        RATE | DECAY | {"power": 0.8, "eps": 1e-3, "floor": 1e-2},
        None,
        RATE_AND_DECAY,
        ("rank_one", "scale_by_parameter_rms"),
    ),
    Case(
        "muon",
        aj.muon,
        RATE | DECAY | {"b1": 0.8, "eps": 1e-3},
        None,
        RATE_AND_DECAY,
        ("orthogonalize",),
    ),
    Case(
        "decayed_per_step",
        lambda decay_per_step, schedule, **adam: aj.decayed_per_step(
            aj.adam(**adam), decay_per_step, schedule
        ),
        ADAM | {"decay_per_step": 2e-3, "schedule": 0.5},
        paper_adamw_peer,
        ("decay_per_step", "schedule"),
    ),
    Case(
        "adamwr",
        lambda **numbers: aj.adamwr(**numbers, first_cycle=2, cycle_mult=2),
        ADAM | ROOT | {"normalized_decay": 0.05},
        adamwr_peer,
    ),
]


@dataclasses.dataclass(frozen=True)
class Problem:
    """Noisy quadratics, one per coordinate: the gradient at step t is slope·θ + noise[t].

    The slopes and the noise span five decades over the coordinates, so that the
    adaptive methods have something to adapt to.
    """

    start: dict[str, np.ndarray]
    slope: dict[str, np.ndarray]
    noise: dict[str, np.ndarray]

    @property
    def steps(self) -> int:
        return len(self.noise["bias"])

    def reference(self, algorithm, **hyperparameters):
        """The end of the run in float64, leaf by leaf."""

        def leaf(name):
            slope, noise = self.slope[name], self.noise[name]

            def gradient(θ, t):
                return slope * θ + noise[t - 1]

            return algorithm(self.start[name], gradient, self.steps, **hyperparameters)

        return {name: leaf(name) for name in self.start}

    def descend(self, tx, dtype=jnp.float32):
        """The end of the run with an optimizer, in one scan."""
        return self.last(tx, dtype)[0]

    def last(self, tx, dtype=jnp.float32):
        """The parameters at the end of the run, and the optimizer's state."""
        trees = self.start, self.slope, self.noise
        trees = jax.tree.map(lambda x: jnp.asarray(x, dtype), trees)
        return jax.tree.map(np.asarray, _descend(tx, *trees))


@jax.jit(static_argnums=0)
def _descend(tx, params, slope, noise):
    def step(carry, noise):
        params, state = carry
        gradients = jax.tree.map(lambda s, θ, n: s * θ + n, slope, params, noise)
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), noise)[0]


def problem(steps, seed=0, complex_=False):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape) + (1j * rng.normal(size=shape) if complex_ else 0)

    shapes = {"kernel": (4, 3), "bias": (5,)}
    scale = {name: 10 ** rng.uniform(-3, 2, shape) for name, shape in shapes.items()}
    return Problem(
        {name: normal(*shape) for name, shape in shapes.items()},
        scale,
        {name: scale[name] * normal(steps, *shape) for name, shape in shapes.items()},
    )


def error(actual, expected):
    """The largest deviation, as a share of the range of the expected values."""
    range_ = max(np.max(np.abs(x)) for x in expected.values())
    return max(np.max(np.abs(actual[k] - x)) for k, x in expected.items()) / range_

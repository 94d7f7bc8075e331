"""Which arrays have no scale, on networks where it is known; how fast they turn, as they do."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import adamw_jax as aj
from adamw_jax.parameters import parameters
from adamw_jax.reports.invariance import scale_invariance

IMAGES = jax.random.normal(jax.random.key(0), (16, 6, 6, 4))
LABELS = jnp.arange(16) % 5
OPTIMIZER = aj.adamw(1e-2, weight_decay=0.1)


def cross_entropy(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()


NORMS = {
    "layer": lambda n, rngs: nnx.LayerNorm(n, rngs=rngs),
    "batch": lambda n, rngs: nnx.BatchNorm(n, rngs=rngs),
    "group": lambda n, rngs: nnx.GroupNorm(n, num_groups=2, rngs=rngs),
}


class Branch(nnx.Module):
    def __init__(self, kind, norm, bias, rngs):
        if kind == "linear":
            self.hidden = nnx.Linear(4, 8, use_bias=bool(bias), rngs=rngs)
        else:
            self.hidden = nnx.Conv(4, 8, (3, 3), use_bias=bool(bias), rngs=rngs)
        self.norm = NORMS[norm](8, rngs)
        self.head = nnx.Linear(8, 5, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.norm(self.hidden(x))).mean((1, 2)))


class Branches(nnx.Module):
    def __init__(self, cases):
        rngs = nnx.Rngs(0)
        self.branches = nnx.Dict({"-".join(case): Branch(*case, rngs) for case in cases})

    def __call__(self, x):
        return sum(branch(x) for branch in self.branches.values())


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        batch = nn.Conv(8, (3, 3), name="a")(x)
        batch = nn.BatchNorm(use_running_average=False, name="after_a")(batch)
        group = nn.Conv(8, (3, 3), name="b")(x)
        group = nn.GroupNorm(num_groups=2, name="after_b")(group)
        joined = jnp.concatenate([batch, group], -1)
        return nn.Dense(5, name="head")(nn.relu(joined).mean((1, 2)))


# By what stands before which norm, and the bias: the scale of the kernel, and of the bias.
TRUTH = {
    ("linear", "layer", "bias"): ("jointly", "jointly"),
    ("linear", "batch", "bias"): ("alone", "no effect"),
    ("conv", "group", ""): ("alone", None),
}


def test_arrays_without_a_scale_are_found_in_nnx():
    graph, params, rest = nnx.split(Branches(TRUTH), nnx.Param, ...)
    report = aj.rotation_report(
        OPTIMIZER, params, lambda p: cross_entropy(nnx.merge(graph, p, rest, copy=True)(IMAGES))
    )
    found = {row.path: row.scale_invariant for row in report.rows}
    for case, truth in TRUTH.items():
        path = f"branches/{'-'.join(case)}/hidden/"
        assert (found.pop(path + "kernel"), found.pop(path + "bias", None)) == truth
    assert set(found.values()) == {"no"} and len(found) == 12  # the norms' and the heads'
    for row in report.rows:
        turns = row.scale_invariant in ("alone", "jointly")
        assert math.isnan(row.angle) != turns and math.isnan(row.settles_in) != turns
    check_table(report)


def check_table(report):
    lines = str(report).splitlines()
    assert lines[0].split("  ")[0] == "parameter" and "angle per step" in lines[0]
    assert [note.split(",")[0] for note in lines[-2:]] == [
        "Where the loss does not depend on the scale",
        "jointly: with the arrays beside it",
    ]


def test_arrays_without_a_scale_are_found_in_linen():
    network = Linen()
    variables = network.init(jax.random.key(0), IMAGES)

    def loss(params):
        logits, _ = network.apply({**variables, "params": params}, IMAGES, mutable=["batch_stats"])
        return cross_entropy(logits)

    params = variables["params"]
    paths = [p.path for p in parameters(params)]
    modules = [[i for i, path in enumerate(paths) if path.startswith(m)] for m in ("a/", "b/")]
    assert dict(zip(paths, scale_invariance(loss, params, modules), strict=True)) == {
        **{"a/bias": "no effect", "a/kernel": "alone", "b/bias": "jointly", "b/kernel": "jointly"},
        **{path: "no" for path in paths if path[:2] not in ("a/", "b/")},
    }


def test_small_biases_that_do_next_to_nothing_are_told_from_no_scale():
    # Their effect is linear, and the gradient of some is by chance almost orthogonal to them.
    params = [1e-3 * jax.random.normal(jax.random.key(i), (4,)) for i in range(20)]
    targets = jax.random.normal(jax.random.key(99), (4,))
    assert set(scale_invariance(lambda p: jnp.sum((sum(p) - targets) ** 2), params, [])) == {"no"}


def test_the_scale_matters_in_a_logarithm_though_its_gradient_halves():
    params = {"direction": jnp.float32([3, -1]), "log": jnp.float32([1, 2])}

    def loss(p):
        return p["direction"][0] / jnp.linalg.norm(p["direction"]) + jnp.log(p["log"] @ p["log"])

    assert scale_invariance(loss, params, []) == ["alone", "no"]


# How fast they turn: optimizers, and the square of the angle by hand.

RATE, DECAY, STEPS = 2e-2, 1e-3, 4000
TURNING = {
    "adamw": (aj.adamw(RATE, b2=0.9, weight_decay=DECAY / RATE), 2 * DECAY / 19),
    "optax": (optax.adamw(RATE, 0.5, weight_decay=DECAY / RATE), 2 * DECAY / 3),
    "lion": (aj.lion(RATE / 4, weight_decay=4 * DECAY / RATE), None),
    "muon": (aj.muon(RATE, weight_decay=DECAY / RATE), None),
    "sgdw": (aj.sgdw(RATE, 0.9, decay_per_step=DECAY), 2 * DECAY / 19),
    "l2_under_momentum": (
        optax.chain(optax.add_decayed_weights(1e-4 / RATE), optax.sgd(RATE, 0.9)),
        2 * 1e-4 / (1 + 0.9),
    ),
}


def together(optimizers):
    """One optimizer for a tree of weights by name, the weights, and a loss without their scale."""
    weights = {
        name: jax.random.normal(jax.random.key(i), (16, 16)) for i, name in enumerate(optimizers)
    }
    return (
        aj.partition(optimizers),
        weights,
        lambda params: 1 + sum(w[0, 0] / jnp.linalg.norm(w) for w in params.values()),
    )


@pytest.fixture(scope="module")
def predicted_and_walked():
    """The rows of the report; and the angles and squared norms of weights that get noise."""
    tx, weights, loss = together({name: tx for name, (tx, _) in TURNING.items()})
    rows = {row.path: row for row in aj.rotation_report(tx, weights, loss).rows}

    def gradient(key, w):
        noise, norm = jax.random.normal(key, w.shape), jnp.linalg.norm(w)
        return (noise - w * jnp.vdot(w, noise) / norm**2) / norm

    def step(carry, key):
        params, state = carry
        keys = dict(zip(params, jax.random.split(key, len(params)), strict=True))
        updates, state = tx.update(jax.tree.map(gradient, keys, params), state, params)
        new = optax.apply_updates(params, updates)
        return (new, state), jax.tree.map(turned, params, new)

    def turned(old, new):
        norm = jnp.linalg.norm(old)
        off = new - old * jnp.vdot(old, new) / norm**2
        return {"angle": jnp.linalg.norm(off) / norm, "square": norm**2}

    keys = jax.random.split(jax.random.key(2), STEPS)
    walked = jax.jit(lambda w: jax.lax.scan(step, (w, tx.init(w)), keys)[1])(weights)
    return rows, jax.tree.map(np.asarray, walked)


@pytest.mark.parametrize("name", TURNING)
def test_a_random_walk_turns_by_the_angle(predicted_and_walked, name):
    rows, walked = predicted_and_walked
    square, angle = TURNING[name][1], rows[name].angle
    assert rows[name].scale_invariant == "alone"
    if square:
        np.testing.assert_allclose(angle, square**0.5, rtol=0.02)
    angles = walked[name]["angle"][-1500:]
    np.testing.assert_allclose(np.sqrt(np.mean(angles**2)), angle, rtol=0.06)


@pytest.mark.parametrize("name, times", [("adamw", 1), ("sgdw", 2)])
def test_the_norm_settles_in_its_time(predicted_and_walked, name, times):
    rows, walked = predicted_and_walked
    settles = rows[name].settles_in
    np.testing.assert_allclose(settles, 1 / (2 * DECAY) / times, rtol=1e-3)
    # This power falls exponentially from wherever it begins.
    power = walked[name]["square"] ** times
    off = power / np.mean(power[-1500:]) - 1
    begin = int(np.argmax(off < 3))
    np.testing.assert_allclose(off[begin + round(settles)] / off[begin], math.exp(-1), atol=0.06)


# What has no equilibrium, and what is refused

W = {"w": jnp.ones((2, 2)).at[0].set(2)}


def no_scale(params):
    return 1 + params["w"][0, 0] / jnp.linalg.norm(params["w"])


def test_an_empty_tree_has_a_report():
    assert aj.rotation_report(OPTIMIZER, {}, lambda p: 1.0).rows == ()


def test_an_optimizer_may_hold_arrays_of_the_parameters_shapes():
    start = {"w": jnp.ones((4, 20)).at[0].set(2)}
    held = optax.stateless(lambda u, p: jax.tree.map(lambda u, c: u + 0 * c, u, start))
    stages = held, aj.decoupled_weight_decay(0.1), aj.scale_by_learning_rate(1e-2)
    tx = aj.chain(aj.scale_by_adam(0.5), *stages, aj.temporal_average(0.9))
    (row,) = aj.rotation_report(tx, start, no_scale).rows
    np.testing.assert_allclose(row.angle, (2 * 1e-3 / 3) ** 0.5, rtol=0.03)


def test_no_angle_where_nothing_settles():
    to_one = optax.stateless_with_tree_map(lambda u, w: u + w - 1)
    optimizers = {
        "no_decay": aj.adam(1e-2),
        "follows_weights": optax.lamb(1e-2, weight_decay=0.1),
        "to_one": aj.chain(aj.scale_by_adam(), to_one, aj.gd(0.1)),
        "not_a_fraction": aj.adam_l2(1e-2, l2=0.1),
    }
    for row in aj.rotation_report(*together(optimizers)).rows:
        assert row.scale_invariant == "alone"
        assert math.isnan(row.angle) and math.isnan(row.settles_in)


@pytest.mark.parametrize(
    "params, loss, options, message",
    [
        (
            jax.eval_shape(lambda: W),
            no_scale,
            {},
            "evaluates the loss, so it needs the parameters'",
        ),
        (W, lambda p: p["w"], {}, r"loss must return a number, got an array of shape \(2, 2\)"),
        (W, lambda p: jnp.nan, {}, "loss must return a finite number, got nan"),
        ({"w": 1j * W["w"]}, no_scale, {}, "takes real parameters"),
        (W, no_scale, {"step": -1}, "step must be a whole number"),
    ],
)
def test_what_cannot_be_measured_is_refused(params, loss, options, message):
    with pytest.raises(ValueError, match=message):
        aj.rotation_report(OPTIMIZER, params, loss, **options)

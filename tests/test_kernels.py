"""Fused steps: the composition's numbers in its state, whatever JAX makes of the function."""

import itertools
import re
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

import adamw_jax as aj
from adamw_jax import sweep, testing
from adamw_jax.kernels import fused, library, missing

needs_loop = pytest.mark.skipif(missing() is not None, reason=str(missing()))
warmup = optax.linear_schedule(1e-2, 1e-1, 5)

# Everything of Adam's shape: moments, corrections, decays in both conventions, masks, schedules.
COMPOSITIONS = {
    "adam": lambda: aj.adam(0.1),
    "adam, long averages": lambda: aj.adam(0.1, b1=0.99, b2=0.99999, eps_root=1e-6),
    "adam, short averages": lambda: aj.adam(0.1, b1=0.3, b2=0.2),
    "adam, no averages": lambda: aj.adam(0.1, b1=0.0, b2=0.0),
    "adamw": lambda: aj.adamw(warmup, weight_decay=warmup),
    "adamw, masked": lambda: aj.adamw(warmup, weight_decay=0.3, mask=aj.decay_except("*/1")),
    "adam_l2": lambda: aj.adam_l2(0.1, l2=warmup, mask={"a": True, "b": False, "c": True}),
    "decayed_per_step": lambda: aj.decayed_per_step(aj.adam(0.1), 0.1, warmup),
    "adamwr": lambda: aj.adamwr(0.1, 3, 2),
    "uncorrected_adam": lambda: aj.uncorrected_adam(0.1),
    "rmsprop": lambda: aj.rmsprop(0.1),
    "momentum_gd": lambda: aj.momentum_gd(0.1),
    "scheduled average": lambda: aj.momentum(aj.half_life_warmup(0.5, 0.9, 4)),
    "direction": aj.scale_by_adam,
    "stages everywhere": lambda: aj.chain(
        aj.scale_by_learning_rate(2.0, flip_sign=False),
        aj.l2_regularization(warmup, mask=aj.decay_only("a")),
        aj.chain(aj.l2_regularization(0.2)),
        aj.parallel(aj.momentum(0.9), aj.second_moment(0.9), merge=aj.rms_ratio(1e-3)),
        aj.decoupled_weight_decay(warmup, mask=aj.decay_only("b/*")),
        aj.scale_by_learning_rate(warmup),
        aj.decoupled_weight_decay(0.1),
    ),
}
every_composition = pytest.mark.parametrize("make", COMPOSITIONS.values(), ids=COMPOSITIONS)
TRACED = {"learning_rate": 0.02, "b1": 0.8, "b2": 0.99, "eps": 1e-6, "weight_decay": 0.1}


def draw(seed, *dtypes):
    """A tree whose leaves need several blocks, a part of a vector, and nothing."""
    rng, dtype = np.random.default_rng(seed), itertools.cycle(dtypes or ["float32"])
    shapes = {"a": (70_001, 2), "b": [(), (3, 17)], "c": (0, 2)}
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), next(dtype)),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def close(actual, expected, rtol=3e-6):
    """Equal but for rounding, relative to the largest number of the leaf."""

    def leaf(a, b):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        tolerance = {"bfloat16": 2e-2, "float16": 2e-3}.get(b.dtype.name, rtol)
        a, b = (np.asarray(x, np.complex128 if jnp.iscomplexobj(x) else np.float64) for x in (a, b))
        np.testing.assert_allclose(a, b, tolerance, tolerance * np.abs(b).max(initial=0))

    jax.tree.map(leaf, actual, expected)


def check_steps(tx, params, grads, rtol=3e-6):
    """At each step of the composition, both doors of the fused form lead to the same place."""
    fast, state = fused(tx), tx.init(params)
    assert jax.tree.structure(fast.init(params)) == jax.tree.structure(state)

    @jax.jit
    def doors(grads, state, params):
        updates, after = fast.update(grads, state, params)
        return (updates, after), fast.step(grads, state, params)

    for gradient in grads:
        updates, after = jax.jit(tx.update)(gradient, state, params)
        moved = optax.apply_updates(params, updates)
        update, step = doors(gradient, state, params)
        close(update, (updates, after), rtol)
        close(step, (moved, after), rtol)
        params, state = moved, after
    return doors.lower(grads[0], state, params).as_text()


@needs_loop
@every_composition
def test_equals_the_composition(make):
    text = check_steps(make(), draw(9), [draw(i) for i in range(3)])
    assert text.count(f"call @{library.TARGET}") + text.count(f"@{library.TARGET}(") >= 2


@needs_loop
@pytest.mark.parametrize(
    "dtypes", [("bfloat16",), ("float16",), ("float32", "bfloat16", "complex64", "float16")]
)
@pytest.mark.parametrize("kept", [None, "bfloat16", "float16"], ids=str)
def test_equals_it_for_leaves_of_every_dtype(dtypes, kept):
    if kept and "complex64" in dtypes:
        dtypes = dtypes[:2]
    tx = aj.adamw(0.1, weight_decay=0.3, mu_dtype=kept, nu_dtype=kept)
    check_steps(tx, draw(9, *dtypes), [draw(i, *dtypes) for i in range(2)])


@needs_loop
def test_equals_it_in_double_precision():
    with jax.enable_x64(True):
        dtypes = "float64", "float32"
        text = check_steps(
            aj.adamw(0.1, weight_decay=0.3), draw(9, *dtypes), [draw(1, *dtypes)], 1e-6
        )
        tx, params = aj.adam(0.1), draw(9, "float64")
        check_steps(tx, params, [draw(i, "float64") for i in range(3)], 1e-13)
    assert "f64" in text


@needs_loop
def test_equals_it_for_numbers_that_overflow_vanish_or_are_none():
    special = [0.0, -0.0, 1e-30, 1e-10, 1.0, 1e18, 1e20, 3e38, np.inf, -np.inf, np.nan]
    for tx in aj.adamw(0.1, weight_decay=0.3), aj.adam(0.1, b1=0.2, b2=0.3), aj.adam_l2(0.1):
        params = jnp.asarray(np.tile([1.0, np.inf, 0.0], 11 * 11).astype(np.float32))
        grads = [jnp.asarray(np.repeat(special, 33).astype(np.float32))]
        grads += [jnp.asarray(np.tile(np.repeat(special, 3), 11).astype(np.float32))]
        state, fast, seen = tx.init(params), fused(tx), []
        for gradient in [*grads, grads[0] * 0]:
            expected = tx.update(gradient, state, params)
            actual = fast.update(gradient, state, params)
            for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, b, rtol=3e-6, atol=1e-37)
            seen.append(expected[0])
            state = expected[1]
        assert not np.isfinite(seen).all()


@needs_loop
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_what_does_not_decay_comes_into_no_sum(dtype):
    mask, ones, odd = {"a": True, "b": False}, jnp.ones(3, dtype), [np.inf, 1, np.nan]
    cases = [
        (aj.adamw(0.1, weight_decay=0.3, mask=mask), {"a": ones, "b": jnp.asarray(odd, dtype)}),
        (aj.adam_l2(0.1, l2=0.3, mask=mask), {"a": ones, "b": jnp.asarray(odd, dtype)}),
    ]
    if dtype == "float32":  # an infinite complex product has parts that are NaN
        infinite = jnp.float32(np.inf)
        cases += [
            (aj.adamw(0.1, weight_decay=infinite, mask=mask), {"a": ones, "b": ones}),
            (aj.adam(infinite), {"a": ones}),
        ]
    for tx, params in cases:
        grads, state = jax.tree.map(jnp.ones_like, params), tx.init(params)
        expected, actual = tx.update(grads, state, params), fused(tx).update(grads, state, params)
        for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a.real, b.real, rtol=1e-6)
        moved, _ = fused(tx).step(grads, state, params)
        np.testing.assert_allclose(moved["a"].real, (params["a"] + actual[0]["a"]).real, rtol=1e-6)


@needs_loop
def test_a_call_takes_many_leaves():
    params = [jnp.ones(5)] * 300
    tx = fused(aj.adamw(0.1))
    lowered = jax.jit(tx.step).lower(params, tx.init(params), params)
    assert len(re.findall(rf"custom_call @{library.TARGET}", lowered.as_text())) == 3


def trained(numbers, params, make=fused, steps=3):
    """Parameters after a few steps in a scan, from traced hyperparameters."""
    tx = make(aj.adamw(**numbers))

    def step(carry, seed):
        params, state = carry
        grads = jax.tree.map(lambda p: jnp.sin(p + seed), params)
        if make is fused:
            return tx.step(grads, state, params), None
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(1.0, steps + 1))[0]


@needs_loop
def test_lanes_have_their_own_hyperparameters():
    lanes = {name: x * jnp.float32([1, 0.5, 0.1]) for name, x in TRACED.items()}
    params = draw(9)  # the same for all: they have no axis of lanes at first
    together = jax.jit(jax.vmap(trained, in_axes=(0, None)))(lanes, params)
    for i in range(3):
        numbers = {name: x[i] for name, x in lanes.items()}
        lane = jax.tree.map(lambda x, i=i: x[i], together)
        close(lane, jax.jit(trained)(numbers, params), 1e-6)
        close(lane, jax.jit(trained, static_argnums=2)(numbers, params, lambda tx: tx), 1e-5)


@needs_loop
def test_has_the_derivative_of_the_composition():
    params = {"a": jnp.float32([1.0, -2.0, 0.5]), "b": jnp.float32(3.0)}

    def loss(make, numbers, params):
        moved, _ = trained(numbers, params, make)
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(moved))

    for differentiate in jax.grad, jax.jacfwd:
        of = [
            jax.jit(differentiate(lambda *args, m=m: loss(m, *args), (0, 1)))(
                jax.tree.map(jnp.float32, TRACED), params
            )
            for m in (fused, lambda tx: tx)
        ]
        close(*of, 1e-4)
        assert all(jnp.all(x != 0) for x in jax.tree.leaves(of))


@needs_loop
@pytest.mark.parametrize("law", testing.LAWS, ids=lambda law: law.__name__)
def test_obeys(law):
    law(lambda **numbers: fused(aj.adamw(**numbers)), TRACED)


@needs_loop
def test_each_device_moves_its_own_part():
    mesh = jax.make_mesh((2, 2), ("x", "y"))
    specs = {"a": PartitionSpec("x", "y"), "b": PartitionSpec("y"), "c": PartitionSpec()}
    shardings = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
    params = {"a": jnp.ones((4, 6)), "b": jnp.ones((2, 3)), "c": jnp.ones(())}
    grads = jax.tree.map(lambda p: 0.1 * p, params)
    tx = fused(aj.adamw(0.1, weight_decay=0.3))
    expected = jax.jit(tx.step)(grads, tx.init(params), params)

    sharded = jax.device_put((grads, params), (shardings, shardings))
    step = jax.jit(tx.step).lower(sharded[0], tx.init(sharded[1]), sharded[1]).compile()
    moved = step(sharded[0], tx.init(sharded[1]), sharded[1])
    close(moved, expected)
    assert jax.tree.all(
        jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), moved[0], shardings)
    )
    assert not re.search("all-gather|all-to-all|collective-permute", step.as_text())

    lanes = jax.vmap(lambda g, p: tx.step(g, tx.init(p), p)[0])
    many = jax.device_put(jnp.ones((4, 3)), NamedSharding(mesh, PartitionSpec("x")))
    assert jax.jit(lanes)(many, many).sharding.is_equivalent_to(many.sharding, 2)

    def local(grads, params):
        return tx.step(grads, tx.init(params), params)[0]

    mapped = jax.shard_map(local, mesh=mesh, in_specs=(specs, specs), out_specs=specs)
    close(jax.jit(mapped)(*sharded), expected[0])


def test_stays_the_composition_where_there_is_no_loop(monkeypatch):
    monkeypatch.setattr("adamw_jax.kernels.transformation.missing", lambda: "there is no compiler")
    tx, params, grads = aj.adamw(0.1), draw(9), draw(1)
    state = tx.init(params)
    updates, after = tx.update(grads, state, params)
    testing._assert_equal(fused(tx).update(grads, state, params), (updates, after))
    moved = optax.apply_updates(params, updates), after
    testing._assert_equal(fused(tx).step(grads, state, params), moved)


def test_says_why_there_is_no_loop(monkeypatch):
    monkeypatch.setattr(library, "EXTENSION_SUFFIXES", [".none"])
    assert "C++ compiler" in library._load.__wrapped__()


REFUSED = {
    "nesterov_lookahead(0.9)": aj.nadam(0.1),
    "running_max()": aj.amsgrad(0.1),
    "momentum(0.9, accumulator_dtype=stochastic_rounding())": aj.adam(
        0.1, mu_dtype=aj.stochastic_rounding()
    ),
    "cautious_weight_decay(0.0001)": aj.cautious_adamw(0.1),
    "<optax": optax.adam(0.1),
    "it has no moment": aj.gd(0.1),
}


@pytest.mark.parametrize("named", REFUSED)
def test_refuses_other_shapes_and_names_what_does_not_fit(named):
    with pytest.raises(ValueError, match="fused takes optimizers of Adam's shape") as error:
        fused(REFUSED[named])
    assert named in str(error.value)


def test_complains_as_the_composition_does():
    tx = fused(aj.adamw(0.1))
    params = {"a": jnp.ones(2)}
    with pytest.raises(ValueError, match="weight decay needs the parameters"):
        tx.update(params, tx.init(params))
    with pytest.raises(ValueError, match="it is the state of another optimizer"):
        tx.update(params, aj.adam_l2(0.1, l2=warmup).init(params)[:1], params)
    with pytest.raises(ValueError, match="every update must be floating-point"):
        tx.update({"a": jnp.ones(2, int)}, tx.init(params), params)


@needs_loop
def test_stands_in_chains_and_needs_no_parameters_without_decay():
    params, grads = draw(9), draw(1)
    clip = optax.clip_by_global_norm(1.0)
    inside, plain = (aj.chain(clip, f(aj.adam(0.1))) for f in (fused, lambda tx: tx))
    close(inside.update(grads, inside.init(params))[0], plain.update(grads, plain.init(params))[0])


@needs_loop
def test_trains_the_lanes_of_a_sweep_in_one_pass():
    def optimizer(make):
        return lambda h: make(aj.adamw(h["learning_rate"], weight_decay=0.1))

    def loss(model, batch):
        return jnp.mean((model(batch["x"]) - batch["y"]) ** 2)

    x = jnp.linspace(-1, 1, 32)[:, None]
    data = {"train": {"x": x, "y": x**2}}
    rows = sweep.product(learning_rate=[0.1, 0.01, 0.001])
    losses = []
    for make in fused, lambda tx: tx:
        run = sweep.training(
            lambda rngs: nnx.Linear(1, 1, rngs=rngs), loss, optimizer(make), epochs=3, batch_size=8
        )
        results = sweep.sweep(run, rows, data, progress=False)
        losses.append([result.metrics["train_loss"] for result in results])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_the_guides_example_runs():
    page = (Path(__file__).parent.parent / "docs/kernels.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(compile(block, "kernels.md", "exec"), names)
    assert (names["params"]["bias"] < 1).all()


@needs_loop
def test_export_takes_the_composition_or_the_name_of_the_call():
    tx, params = aj.adamw(0.1), {"a": jnp.ones(3)}
    state = tx.init(params)
    aj.register_for_export(state)
    step = jax.jit(fused(tx).step)
    with pytest.raises(ValueError, match=library.TARGET):
        jax.export.export(step)(params, state, params)
    allowed = [jax.export.DisabledSafetyCheck.custom_call(library.TARGET)]
    exported = jax.export.export(step, disabled_checks=allowed)(params, state, params)
    again = jax.export.deserialize(exported.serialize())
    testing._assert_equal(again.call(params, state, params), step(params, state, params))
    # The states are the same, so the composition's step takes over where there is no loop.
    jax.export.export(jax.jit(tx.update))(params, state, params)

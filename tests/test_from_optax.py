"""Runs that begin in Optax and go on here, and the other way round."""

import functools
from typing import Any, NamedTuple

import chex
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import orbax.checkpoint as ocp
import pytest
from cases import ADAM, CASES, Case, mixed_params
from flax import nnx
from flax.training.train_state import TrainState

import adamw_jax as aj
from adamw_jax.interchange import from_earlier_version, from_optax, to_optax

HALF = 50
# Where Optax's optimizer counts and ours does not.
STEPS = {"count": HALF}


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        dense = functools.partial(nn.Dense, param_dtype=x.dtype)
        x = nn.LayerNorm(param_dtype=x.dtype)(dense(8)(x))
        return dense(1)(jnp.tanh(x))


def loss(params, x):
    wanted = jnp.sin(x.sum(axis=1, keepdims=True))
    return jnp.mean((Network().apply({"params": params}, x) - wanted) ** 2)


gradient = jax.jit(jax.grad(loss))


@pytest.fixture(scope="module")
def problem():
    """The first parameters, and one batch for each step, in float64."""
    with jax.enable_x64(True):
        batches = jnp.asarray(np.random.default_rng(0).normal(size=(2 * HALF, 16, 3)))
        return jax.jit(Network().init)(jax.random.key(0), batches[0])["params"], batches


@functools.partial(jax.jit, static_argnums=0)
def step(tx, params, state, gradients):
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


def run(tx, params, state, batches):
    for x in batches:
        params, state = step(tx, params, state, gradient(params, x))
    return params, state


def distance(ours, theirs):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in pairs)


def is_member(case):
    constructor = getattr(aj, case.name.split()[0])
    # Optax has the average as `ema`, or as a sum of scaled gradients, which is `heavy_ball`.
    composed = constructor.__module__ in ("adamw_jax.optimizers", "adamw_jax.relatives")
    return composed and case.peer and constructor is not aj.momentum_gd


MEMBERS = [case for case in CASES if is_member(case)]
MEMBERS += [
    Case("adopt", aj.adopt, ADAM, optax.contrib.adopt),
    Case("schedule_free_adamw", aj.schedule_free_adamw, ADAM, optax.contrib.schedule_free_adamw),
]
# Whose states hold other numbers in Optax.
CONVERTED = "adabelief", "schedule_free_adamw"
# Where both do the same arithmetic.
SAME_BITS = "gd", "heavy_ball_gd", "lion"
# At first, Optax's rectification is a small difference of large numbers.
TOLERANCES = {"radam": 1e-12, "adamax": 1e-12, "adamaxw": 1e-12}


@pytest.mark.parametrize("case", MEMBERS, ids=str)
def test_a_run_crosses_over_and_lands_where_it_would_have_landed(case, problem):
    params, batches = problem
    name = case.name.split()[0]
    tolerance = 0 if name in SAME_BITS else TOLERANCES.get(name, 1e-14)
    with jax.enable_x64(True):
        ours, theirs = case.tx(), case.peer(**case.numbers)
        for first, second in (theirs, ours), (ours, theirs):
            middle, state = run(first, params, first.init(params), batches[:HALF])
            expected, _ = run(first, middle, state, batches[HALF:])
            if first is theirs:
                taken_over = from_optax(ours, middle, state)
                back = to_optax(ours, middle, taken_over, theirs, **STEPS)
            else:
                taken_over = to_optax(ours, middle, state, theirs, **STEPS)
                back = from_optax(ours, middle, taken_over)
            if name in CONVERTED:
                chex.assert_trees_all_close(back, state, rtol=1e-12)
            else:
                chex.assert_trees_all_equal(back, state)
            chex.assert_trees_all_equal_structs(taken_over, second.init(params))
            chex.assert_trees_all_equal_dtypes(taken_over, second.init(params))
            end, _ = run(second, middle, taken_over, batches[HALF:])
            assert distance(end, expected) <= tolerance
            if jax.tree.leaves(state):
                forgetful, _ = run(second, middle, second.init(params), batches[HALF:])
                assert distance(forgetful, expected) > 1e-2


# In float32, and in Optax's wrappers.

PARAMS = {"kernel": jnp.linspace(-2, 2, 6).reshape(2, 3), "bias": jnp.ones(3)}
MASK = {"kernel": True, "bias": False}


def falling(step):
    return 0.1 / (1 + step)


def plateau(lib):
    return optax.chain(lib.adam(0.1), optax.contrib.reduce_on_plateau(accumulation_size=2))


def groups(lib):
    kernel, bias = lib.adamw(0.1), optax.sgd(0.1, 0.9) if lib is optax else lib.heavy_ball_gd(0.1)
    if lib is optax:
        return optax.partition({"k": kernel, "b": bias}, {"kernel": "k", "bias": "b"})
    return lib.partition({"*bias": bias, "*": kernel})


WRAPPED = {
    "schedule, whose count is another in Optax": lambda lib: lib.adamw(falling),
    "chain": lambda lib: lib.chain(optax.clip_by_global_norm(1.0), lib.adamw(falling, mask=MASK)),
    "chain of Optax": lambda lib: optax.chain(optax.clip(1.0), lib.adamw(falling, mask=MASK)),
    "masked": lambda lib: optax.masked(lib.adam(0.1), MASK),
    "partition": groups,
    "inject_hyperparams": lambda lib: optax.inject_hyperparams(lib.adamw)(falling, b1=0.8),
    "MultiSteps in the midst of four": lambda lib: optax.MultiSteps(lib.nadam(falling), 4),
    "apply_if_finite": lambda lib: optax.apply_if_finite(lib.lion(0.1), 3),
    "reduce_on_plateau": plateau,
    "noise": lambda lib: optax.chain(optax.add_noise(0.1, 0.5, 7), lib.adam(0.1)),
    "schedule_free": lambda lib: optax.contrib.schedule_free(lib.adam(0.1, b1=0.0), 0.1),
    "average": lambda lib: optax.chain(lib.adam(0.1), optax.ema(0.9)),
}


def walk(tx, steps, params=PARAMS):
    state = tx.init(params)
    for seed in range(steps):
        _, state = tx.update(aj.testing.gradients_like(params, seed), state, params, value=1.0)
    return state


@pytest.mark.parametrize("make", WRAPPED.values(), ids=WRAPPED)
def test_a_wrapper_takes_its_state_along(make):
    ours, theirs = make(aj), make(optax)
    state = walk(theirs, 6)
    taken_over = from_optax(ours, PARAMS, state)
    chex.assert_trees_all_equal_structs(taken_over, ours.init(PARAMS))
    chex.assert_trees_all_equal(to_optax(ours, PARAMS, taken_over, theirs, count=6), state)
    gradients = aj.testing.gradients_like(PARAMS, 7)
    next_steps = [
        tx.update(gradients, state, PARAMS, value=1.0)[0]
        for tx, state in ((ours, taken_over), (theirs, state))
    ]
    chex.assert_trees_all_close(*next_steps, rtol=1e-4, atol=1e-6)


def test_an_nnx_optimizer_goes_on():
    model = nnx.Sequential(
        nnx.Linear(3, 4, rngs=nnx.Rngs(0)), jnp.tanh, nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    )
    old = nnx.Optimizer(model, optax.adamw(falling), wrt=nnx.Param)
    twin = nnx.clone(model)
    gradients = nnx.grad(lambda m, x: jnp.mean((m(x) - 1) ** 2))
    x = jnp.linspace(-1, 1, 12).reshape(4, 3)
    for _ in range(5):
        old.update(model, gradients(model, x))
        nnx.update(twin, nnx.state(model))

    new = nnx.Optimizer(twin, aj.adamw(falling), wrt=nnx.Param)
    params = nnx.as_pure(nnx.state(twin, nnx.Param))
    state = from_optax(new.tx, params, nnx.as_pure(old.opt_state))
    nnx.update(new.opt_state, nnx.state(state))
    new.step[...] = old.step[...]

    chex.assert_trees_all_equal(
        to_optax(new.tx, params, nnx.as_pure(new.opt_state), old.tx), nnx.as_pure(old.opt_state)
    )
    for _ in range(5):
        old.update(model, gradients(model, x))
        new.update(twin, gradients(twin, x))
    chex.assert_trees_all_close(nnx.state(twin), nnx.state(model), rtol=1e-4, atol=1e-5)
    assert new.step[...] == old.step[...] == 10


def test_a_linen_train_state_goes_on():
    network = Network()
    x = jnp.linspace(-1, 1, 12).reshape(4, 3)
    params = network.init(jax.random.key(0), x)["params"]
    tx = optax.adamw(falling)
    old = TrainState.create(apply_fn=network.apply, params=params, tx=tx)
    for _ in range(5):
        old = old.apply_gradients(grads=gradient(old.params, x))

    tx = aj.adamw(falling)
    new = old.replace(tx=tx, opt_state=from_optax(tx, old.params, old.opt_state))

    for _ in range(5):
        old = old.apply_gradients(grads=gradient(old.params, x))
        new = new.apply_gradients(grads=gradient(new.params, x))
    chex.assert_trees_all_close(new.params, old.params, rtol=1e-5, atol=1e-6)
    assert new.step == old.step == 10


class Layer(NamedTuple):
    """Parameters of which a state must not be taken for a part of its own."""

    mu: Any
    count: Any


AWKWARD = {
    "named tuples": Layer(jnp.ones(2), jnp.float32(3.0)),
    "named tuples deep inside": {"layer": [Layer(jnp.ones(2), jnp.float32(3.0)), jnp.ones(1)]},
    "names of moments": {"mu": jnp.ones(2), "nu": {"count": jnp.float32(3.0)}},
    "a list": [jnp.ones(2), jnp.float32(3.0)],
    "one array": jnp.ones(2),
    "one number": jnp.float32(2.0),
    "None": {"kernel": jnp.ones(2), "bias": None},
}


@pytest.mark.parametrize("params", AWKWARD.values(), ids=AWKWARD)
def test_parameters_may_have_any_structure(params):
    ours, theirs = (lib.chain(optax.clip(1.0), lib.adamw(falling)) for lib in (aj, optax))
    state = walk(theirs, 3, params)
    taken_over = from_optax(ours, params, state)
    chex.assert_trees_all_equal(
        optax.tree.get(taken_over, "mu", filtering=lambda path, _: len(path) == 2),
        state[1][0].mu,
    )
    chex.assert_trees_all_equal_structs(taken_over, ours.init(params))
    chex.assert_trees_all_equal(to_optax(ours, params, taken_over, theirs), state)


def test_half_precision_is_widened_and_narrowed_only_if_told():
    params = mixed_params()["bfloat16"]
    ours, theirs = aj.adamw(0.1), optax.adamw(0.1)
    state = walk(theirs, 3, params)
    taken_over = from_optax(ours, params, state)
    chex.assert_trees_all_equal_dtypes(taken_over, ours.init(params))
    fewer = "bfloat16, which has fewer digits .narrow=True rounds to it.: mu, nu"
    with pytest.raises(ValueError, match=f"dtypes float32 and {fewer}"):
        to_optax(ours, params, taken_over, theirs)
    chex.assert_trees_all_equal(to_optax(ours, params, taken_over, theirs, narrow=True), state)


def test_a_dtype_that_was_asked_for_is_rounded_to_only_if_told():
    ours = aj.adam(0.1, mu_dtype=jnp.bfloat16)
    state = walk(optax.adam(0.1), 3)
    with pytest.raises(ValueError, match="dtypes float32 and bfloat16, which has fewer digits"):
        from_optax(ours, PARAMS, state)
    rounded = optax.tree.get(from_optax(ours, PARAMS, state, narrow=True), "mu")
    expected = jax.tree.map(lambda x: x.astype(jnp.bfloat16), optax.tree.get(state, "mu"))
    chex.assert_trees_all_equal(rounded, expected)
    # Of float64 nothing is lost in silence, though JAX would make float32 of it.
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64) if x.ndim else x, state)
    with pytest.raises(ValueError, match="dtypes float64 and float32, which has fewer digits"):
        from_optax(aj.adam(0.1), PARAMS, wide)


def test_moments_in_8_bits_are_decoded_and_rounded_to_only_if_told():
    params = {"kernel": jnp.linspace(-1, 1, 64 * 128).reshape(64, 128), "bias": jnp.ones(4)}
    codes = aj.blockwise_quantization()
    ours, theirs = aj.adam(0.1, mu_dtype=codes, nu_dtype=codes), optax.adam(0.1)
    state = walk(theirs, 3, params)
    refused(
        lambda: from_optax(ours, params, state),
        "mu and nu would be kept in 8 bits or in factors: narrow=True rounds to that",
    )
    taken_over = from_optax(ours, params, state, narrow=True)
    chex.assert_trees_all_equal_structs(taken_over, ours.init(params))
    chex.assert_trees_all_equal_shapes_and_dtypes(taken_over, ours.init(params))
    back = to_optax(ours, params, taken_over, theirs)
    # Of a code, nothing is lost, and of a small parameter's moments neither.
    chex.assert_trees_all_equal(from_optax(ours, params, back, narrow=True), taken_over)
    chex.assert_trees_all_equal(from_earlier_version(ours, params, taken_over), taken_over)
    for name in "mu", "nu":
        got, expected = (optax.tree.get(s, name) for s in (back, state))
        chex.assert_trees_all_equal(got["bias"], expected["bias"])
        largest = float(jnp.max(jnp.abs(expected["kernel"])))
        np.testing.assert_allclose(got["kernel"], expected["kernel"], atol=0.03 * largest)


def test_a_second_moment_is_factored_only_if_told_and_comes_back_as_a_matrix_of_rank_one():
    params = {"kernel": jnp.linspace(-1, 1, 12).reshape(3, 4), "bias": jnp.ones(4)}
    ours, theirs = aj.adam(0.1, nu_dtype=aj.factored(min_axis=2)), optax.adam(0.1)
    state = walk(theirs, 3, params)
    refused(
        lambda: from_optax(ours, params, state),
        "nu would be kept in 8 bits or in factors: narrow=True rounds to that",
    )
    taken_over = from_optax(ours, params, state, narrow=True)
    chex.assert_trees_all_equal_shapes_and_dtypes(taken_over, ours.init(params))
    back, nu = to_optax(ours, params, taken_over, theirs), optax.tree.get(state, "nu")
    expected = {"kernel": aj.rank_one(min_axis=2)(nu["kernel"]), "bias": nu["bias"]}
    chex.assert_trees_all_close(optax.tree.get(back, "nu"), expected, rtol=1e-5)


def test_a_schedule_free_state_is_converted_with_the_parameters_and_their_warm_up():
    def warm_up(step):
        return 0.1 * jnp.minimum(1.0, (step + 1.0) / 8)

    ours = aj.schedule_free_adamw(warm_up)
    theirs = optax.contrib.schedule_free_adamw(0.1, warmup_steps=8)
    state = walk(theirs, 3)
    taken_over = from_optax(ours, PARAMS, state)
    averaged = aj.schedule_free_eval_params(taken_over, PARAMS)
    expected = optax.contrib.schedule_free_eval_params(state, PARAMS)
    chex.assert_trees_all_close(averaged, expected, rtol=1e-5)
    chex.assert_trees_all_close(to_optax(ours, PARAMS, taken_over, theirs), state, rtol=1e-5)
    shapes = jax.eval_shape(lambda: PARAMS)
    refused(
        lambda: from_optax(ours, shapes, state),
        "a schedule-free state is converted with the parameters, not their shapes",
    )
    refused(
        lambda: from_optax(aj.schedule_free_adamw(0.1, b1=0.0), PARAMS, state),
        "with b1=0 Optax's state does not hold the average",
    )


def test_arrays_stay_where_they_are():
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    lies = jax.NamedSharding(mesh, jax.P("x"))
    state = optax.adam(0.1).init(jax.device_put({"kernel": jnp.ones((2, 3))}, lies))
    params = {"kernel": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
    for moment in jax.tree.leaves(from_optax(aj.adam(0.1), params, state)):
        assert moment.ndim == 0 or moment.sharding == lies


def test_second_moments_of_complex_parameters_are_real_here():
    params = mixed_params()["complex64"]
    ours, theirs = aj.adamw(0.1), optax.adamw(0.1)
    state = walk(theirs, 3, params)
    taken_over = from_optax(ours, params, state)
    chex.assert_trees_all_equal_dtypes(taken_over, ours.init(params))
    again = to_optax(ours, params, taken_over, theirs)
    chex.assert_trees_all_equal(*(optax.tree.get(s, "nu") for s in (again, state)))
    nonsense = optax.tree.set(state, nu=optax.tree.get(state, "mu"))
    with pytest.raises(ValueError, match="complex64 and float32, and some imaginary parts are not"):
        from_optax(ours, params, nonsense)


# A development version kept Adam's state so.
class BiasCorrectionState(NamedTuple):
    count: Any


def test_a_state_that_a_development_version_nested_is_read():
    ours = aj.adamw(falling)
    now = walk(ours, 4)
    mu, nu, count = (optax.tree.get(now, name) for name in ("mu", "nu", "count"))
    before = (
        (
            (aj.MomentumState(mu), BiasCorrectionState(count)),
            (aj.SecondMomentState(nu), BiasCorrectionState(count)),
        ),
        optax.EmptyState(),
        BiasCorrectionState(count),
    )
    chex.assert_trees_all_equal(from_earlier_version(ours, PARAMS, before), now)


@pytest.mark.parametrize(
    "ours", [aj.adabelief(0.1), aj.amsgrad(0.1, max_before_correction=True), WRAPPED["chain"](aj)]
)
def test_what_an_earlier_version_remembered_means_the_same_wherever_it_stood(ours):
    now = walk(ours, 4)
    before = [[part] for part in reversed(now)]
    chex.assert_trees_all_equal(from_earlier_version(ours, PARAMS, before), now)
    without = [part for part in before if not hasattr(part[0], "mu")]
    refused(
        lambda: from_earlier_version(ours, PARAMS, without),
        "the earlier state does not fit this optimizer's:",
        "  only in this optimizer's state: mu/bias and 1 more of mu",
    )


def with_orbax(state, tmp_path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(tmp_path / "state")


def with_flax(state, tmp_path):
    del tmp_path
    return flax.serialization.msgpack_restore(flax.serialization.to_bytes(state))


@pytest.mark.parametrize("restored", [with_orbax, with_flax])
@pytest.mark.parametrize("wrapper", ["chain", "partition", "inject_hyperparams"])
def test_a_checkpoint_can_be_read_without_optaxs_optimizer(restored, wrapper, tmp_path):
    ours, theirs = (WRAPPED[wrapper](lib) for lib in (aj, optax))
    state = walk(theirs, 3)
    plain = restored(state, tmp_path)
    chex.assert_trees_all_equal(from_optax(ours, PARAMS, plain), from_optax(ours, PARAMS, state))


# What is refused, with all that is said.


def refused(call, *lines):
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == "\n".join(lines)


def test_moments_that_are_missing_or_left_over_are_refused():
    adam, ball = aj.adam(0.1), aj.heavy_ball_gd(0.1)
    refused(
        lambda: from_optax(ball, PARAMS, walk(optax.adamw(0.1), 2)),
        "Optax's state does not fit this optimizer's:",
        "  only in Optax's state: mu/bias and 1 more of mu, nu/bias and 1 more of nu",
        "  only in this optimizer's state: trace/bias and 1 more of trace",
    )
    refused(
        lambda: to_optax(adam, PARAMS, walk(adam, 2), optax.amsgrad(0.1)),
        "this optimizer's state does not fit Optax's:",
        "  only in Optax's state: nu_max/bias and 1 more of nu_max",
    )
    masked = walk(optax.masked(optax.adam(0.1), MASK), 2)
    refused(
        lambda: from_optax(adam, PARAMS, masked),
        "Optax's state does not fit this optimizer's:",
        "  only in this optimizer's state: mu/bias, nu/bias",
    )
    wrapped = walk(optax.MultiSteps(optax.adam(0.1), 2), 2)
    with pytest.raises(ValueError, match="only in Optax's state: mini_step, gradient_step, inner"):
        from_optax(adam, PARAMS, wrapped)
    from_optax(adam, PARAMS, wrapped.inner_opt_state)


def test_other_shapes_are_refused():
    state = walk(optax.adam(0.1), 2)
    other = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(3)}
    refused(
        lambda: from_optax(aj.adam(0.1), other, state),
        "Optax's state does not fit this optimizer's:",
        "  shapes [2, 3] and [3, 2]: mu/kernel, nu/kernel",
    )
    lanes = jax.vmap(lambda params: optax.adam(0.1).init(params))(
        jax.tree.map(lambda x: x[None], PARAMS)
    )
    refused(
        lambda: from_optax(aj.adam(0.1), PARAMS, lanes),
        "Optax's state does not fit this optimizer's:",
        "  shapes [1, 3] and [3]: mu/bias, nu/bias",
        "  shapes [1, 2, 3] and [2, 3]: mu/kernel, nu/kernel",
        "  shapes [1] and []: count",
    )


def test_counts_that_disagree_and_moments_that_are_there_twice_are_refused():
    adam, schedule = walk(optax.adam(falling), 3)
    late = adam, schedule._replace(count=jnp.int32(2))
    ours = aj.adam(falling)
    refused(
        lambda: from_optax(ours, PARAMS, late),
        "Optax's state counts 3 steps in one place and 2 in another, and a whole optimizer has "
        "one count",
    )
    refused(
        lambda: from_optax(ours, PARAMS, (adam, adam)),
        "Optax's state has mu/bias twice: it cannot be told which is which",
    )
    refused(
        lambda: from_optax(ours, PARAMS, (adam, schedule), count=4),
        "count is 4, and Optax's state counts 3 steps",
    )


def test_steps_that_one_of_them_does_not_count_must_be_given():
    ours, theirs = aj.lion(0.1), optax.lion(0.1)
    state = walk(theirs, 3)
    taken_over = from_optax(ours, PARAMS, state)
    refused(
        lambda: to_optax(ours, PARAMS, taken_over, theirs),
        "this optimizer's state does not fit Optax's:",
        "  only in Optax's state: count",
        "  if you know how many steps were taken, pass count=",
    )
    chex.assert_trees_all_equal(to_optax(ours, PARAMS, taken_over, theirs, count=3), state)


def test_the_maximum_of_amsgrad_is_after_the_correction_in_optax():
    before, after = (aj.amsgrad(0.1, max_before_correction=b) for b in (True, False))
    theirs = optax.amsgrad(0.1)
    name = "nu_max (max_before_correction)"
    refused(
        lambda: from_optax(before, PARAMS, walk(theirs, 2)),
        "Optax's state does not fit this optimizer's:",
        "  only in Optax's state: nu_max/bias and 1 more of nu_max",
        f"  only in this optimizer's state: {name}/bias and 1 more of {name}",
    )
    hidden = optax.chain(optax.clip(1.0), after)
    refused(
        lambda: from_optax(hidden, PARAMS, walk(theirs, 2)),
        "whether nu_max/bias is the maximum before or after the bias correction cannot be seen in "
        f"{hidden!r}: convert the state of the optimizer inside",
    )
    both = aj.partition({"kernel": before, "*": after})
    with pytest.raises(ValueError, match="cannot be seen in partition"):
        to_optax(both, PARAMS, walk(both, 2), theirs)


def test_adabelief_in_a_partition_is_refused():
    ours = aj.partition({"kernel": aj.adabelief(0.1), "*": aj.adam(0.1)})
    with pytest.raises(ValueError, match="convert each group's state with its own optimizer"):
        to_optax(ours, PARAMS, walk(ours, 2), optax.adam(0.1))

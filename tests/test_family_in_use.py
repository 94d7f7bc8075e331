"""Every optimizer where optimizers are used: Flax loops, JAX's transforms, Optax's wrappers."""

import functools
import inspect
import pickle

import chex
import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from cases import ADAM, CASES, Case, gradients_like
from flax import nnx
from flax.training.train_state import TrainState

import adamw_jax as aj

# All optimizers of the table: what takes a learning rate and is no piece. Of those that can
# be made in several ways the first will do, the others differ in a piece only.
FIRST = {case.name.split()[0]: case for case in reversed(CASES) if "learning_rate" in case.numbers}
FAMILY = [case for name, case in FIRST.items() if name != "scale_by_learning_rate"]
FAMILY += [
    Case(
        "adam temporal_average",
        lambda average, **adam: aj.chain(aj.adam(**adam), aj.temporal_average(average)),
        ADAM | {"average": 0.9},
    )
]
every_member = pytest.mark.parametrize("case", FAMILY, ids=str)

PARAMS = {"kernel": jnp.linspace(1, 2, 6).reshape(3, 2), "bias": jnp.float32([-1.5, 1.5])}
X = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
Y = X.sum(axis=1, keepdims=True) + 1


def fields(case):
    """The names of the arrays in its state."""
    state = jax.eval_shape(case.tx().init, PARAMS)
    paths = (jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state))
    return frozenset(path.split(".")[-1] for path in paths)


# Loops and wrappers carry a state that they know nothing of; many members have the same.
every_kind_of_state = pytest.mark.parametrize(
    "case", {fields(case): case for case in FAMILY}.values(), ids=str
)


def test_the_family_is_there():
    names = {case.name.split()[0] for case in FAMILY}
    modules = [f"adamw_jax.{name}" for name in ("optimizers", "relatives", "second_generation")]
    exports = [getattr(aj, name) for name in aj.__all__]
    assert names == {f.__name__ for f in exports if getattr(f, "__module__", None) in modules}


def stepped(tx, params, gradients):
    """The parameters and the state after one step for each of the gradients, in a scan."""

    def step(carry, gradients):
        params, state = carry
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), gradients)[0]


def stacked_gradients(params, steps):
    trees = [gradients_like(params, seed) for seed in range(steps)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def differs(tree, other):
    pairs = zip(*map(jax.tree.leaves, (tree, other)), strict=True)
    return not all(np.allclose(x, y, rtol=1e-4) for x, y in pairs)


# In Flax's loops


@every_kind_of_state
def test_trains_in_an_nnx_optimizer(case):
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.Linear(3, 4, rngs=rngs),
        nnx.tanh,
        nnx.LayerNorm(4, rngs=rngs),
        nnx.Linear(4, 1, rngs=rngs),
    )
    optimizer = nnx.Optimizer(model, case.tx(), wrt=nnx.Param)
    chex.clear_trace_counter()

    @nnx.jit
    @chex.assert_max_traces(1)
    def step(model, optimizer):
        loss, gradients = nnx.value_and_grad(lambda model: jnp.mean((model(X) - Y) ** 2))(model)
        optimizer.update(model, gradients)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]


NETWORK = nn.Sequential([nn.Dense(4), nn.tanh, nn.LayerNorm(), nn.Dense(1)])
START = jax.jit(NETWORK.init)(jax.random.key(0), X)["params"]


@every_kind_of_state
def test_trains_in_a_linen_train_state(case):
    state = TrainState.create(apply_fn=NETWORK.apply, params=START, tx=case.tx())

    @jax.jit
    def step(state):
        def loss(params):
            return jnp.mean((state.apply_fn({"params": params}, X) - Y) ** 2)

        value, gradients = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=gradients), value

    losses = []
    for _ in range(30):
        state, loss = step(state)
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0] and int(state.step) == 30


@every_member
def test_half_precision_parameters_train_and_stay_so(case):
    params, tx = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS), case.tx()

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(params, state, params)  # the gradient of θ²/2
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), length=40)[0][0]

    end = run(params)
    chex.assert_trees_all_equal_dtypes(end, params)
    for old, new in zip(*map(jax.tree.leaves, (params, end)), strict=True):
        assert jnp.sum(new.astype(float) ** 2) < 0.8 * jnp.sum(old.astype(float) ** 2)


# Under JAX's transforms

ADAMWR = Case(
    "adamwr first_cycle",
    functools.partial(aj.adamwr, cycle_mult=2),
    ADAM | {"normalized_decay": 0.05, "first_cycle": 2},
)
with_cycles = pytest.mark.parametrize("case", [*FAMILY, ADAMWR], ids=str)


def lanes_of(numbers):
    """Three values for each hyperparameter, all changed at once."""
    lanes = {name: np.float32(x) * np.float32([1, 0.9, 0.7]) for name, x in numbers.items()}
    if "first_cycle" in numbers:
        lanes["first_cycle"] = np.int32([2, 3, 4])
    return jax.tree.map(jnp.asarray, lanes)


@with_cycles
def test_vmap_over_all_hyperparameters_runs_each_lane_as_alone(case):
    gradients, numbers = stacked_gradients(PARAMS, 8), lanes_of(case.numbers)

    def run(numbers):
        return stepped(case.tx(**numbers), PARAMS, gradients)

    lanes, alone = jax.jit(jax.vmap(run))(numbers), jax.jit(run)
    for i in range(3):
        lane, numbers_of_lane = (jax.tree.map(lambda x, i=i: x[i], t) for t in (lanes, numbers))
        chex.assert_trees_all_close(lane, alone(numbers_of_lane), rtol=1e-5, atol=1e-6)
    # Lanes that are all the same would prove nothing.
    first, second, third = lanes[0]["kernel"]
    assert differs(first, second) and differs(second, third)


# Inside Optax's wrappers

# Half the value shows in most; these are too small to show, or count, or Lion has signs.
CHANGED = {"b1": 0.999, "eps": 1.0, "eps_root": 1.0, "threshold": 1e6, "first_cycle": 5}
CHANGED |= {"floor": 4.0}


def injectable(case):
    """What makes the case, with its hyperparameters in the signature."""
    if inspect.isfunction(getattr(aj, case.name, None)) and case.make is getattr(aj, case.name):
        return case.make

    def make(**numbers):
        return case.make(**numbers)

    keyword = functools.partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)
    make.__signature__ = inspect.Signature([keyword(name) for name in case.numbers])
    return make


@with_cycles
def test_injected_hyperparameters_can_be_changed_by_hand(case):
    tx = optax.inject_hyperparams(injectable(case))(**case.numbers)
    gradients = stacked_gradients(PARAMS, 6)
    start = tx.init(PARAMS)
    assert set(case.numbers) <= set(start.hyperparams)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(1)
    def run(state):
        def step(carry, gradients):
            params, state = carry
            updates, state = tx.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), None

        params, state = jax.lax.scan(step, (PARAMS, state), gradients)[0]
        return params, state.inner_state

    before = run(start)
    plain = jax.jit(lambda numbers: stepped(case.tx(**numbers), PARAMS, gradients))
    for name, number in case.numbers.items():
        value = jnp.full_like(start.hyperparams[name], CHANGED.get(name, number / 2))
        hyperparams = start.hyperparams | {name: value}
        after = run(start._replace(hyperparams=hyperparams))
        assert differs(after, before), name
        expected = plain({name: hyperparams[name] for name in case.numbers})
        chex.assert_trees_all_close(after, expected, rtol=1e-5, atol=1e-6)


def test_adamwr_needs_its_multiplier_static_and_says_so():
    with pytest.raises(ValueError, match="cycle_mult.*static_args"):
        optax.inject_hyperparams(aj.adamwr)(0.1, 2).init(PARAMS)
    tx = optax.inject_hyperparams(aj.adamwr, static_args="cycle_mult")(0.1, 2)
    state = tx.init(PARAMS)
    numbers = {"learning_rate", "first_cycle", "normalized_decay", "b1", "b2", "eps", "eps_root"}
    assert set(state.hyperparams) == numbers
    updates, _ = tx.update(PARAMS, state, PARAMS)
    expected, _ = aj.adamwr(0.1, 2).update(PARAMS, aj.adamwr(0.1, 2).init(PARAMS), PARAMS)
    chex.assert_trees_all_close(updates, expected, rtol=1e-5)


def test_an_optimizer_can_stand_among_injected_hyperparameters():
    tx = optax.inject_hyperparams(aj.decayed_per_step)(aj.adam(0.1), 0.01)
    state = tx.init(PARAMS)
    assert set(state.hyperparams) == {"decay_per_step", "schedule"}
    plain = aj.decayed_per_step(aj.adam(0.1), 0.01)
    expected, _ = plain.update(PARAMS, plain.init(PARAMS), PARAMS)
    chex.assert_trees_all_close(tx.update(PARAMS, state, PARAMS)[0], expected, rtol=1e-5)


@every_kind_of_state
def test_multisteps_takes_a_step_on_the_mean_gradient(case):
    tx, small = case.tx(), stacked_gradients(PARAMS, 6)
    steps = optax.MultiSteps(tx, 3).gradient_transformation()
    params, state = jax.jit(lambda params: stepped(steps, params, small))(PARAMS)
    means = jax.tree.map(lambda g: g.reshape(2, 3, *g.shape[1:]).mean(1), small)
    expected = jax.jit(lambda params: stepped(tx, params, means))(PARAMS)
    chex.assert_trees_all_close((params, state.inner_opt_state), expected, rtol=1e-4, atol=1e-5)


@every_kind_of_state
def test_apply_if_finite_and_masked_leave_the_optimizer_as_it_is(case):
    # Both in one run, which compiles in half the time of two.
    tx, gradients = case.tx(), stacked_gradients(PARAMS, 3)
    wrapped = optax.apply_if_finite(optax.masked(tx, {"kernel": True, "bias": False}), 2)
    with_nan = jax.tree.map(lambda g: jnp.insert(g, 1, jnp.nan, axis=0), gradients)
    params, state = jax.jit(lambda params: stepped(wrapped, params, with_nan))(PARAMS)
    alone = {"kernel": gradients["kernel"]}
    run = jax.jit(lambda params: stepped(tx, params, alone))
    expected, inner = run({"kernel": PARAMS["kernel"]})
    got = params["kernel"], jax.tree.leaves(state.inner_state)
    expected = expected["kernel"], jax.tree.leaves(inner)
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-6)
    assert int(state.total_notfinite) == 1
    # What the mask leaves out passes as it is.
    passed = PARAMS["bias"] + gradients["bias"].sum(0)
    np.testing.assert_allclose(params["bias"], passed, rtol=1e-5, atol=1e-6)


# Saved and restored


@functools.cache
def after_three_steps():
    """For each optimizer the parameters and the state in the middle of a run."""
    middle = {}
    for case in FAMILY:
        tx, params = case.tx(), PARAMS
        state = tx.init(params)
        for seed in range(3):
            updates, state = tx.update(gradients_like(params, seed), state, params)
            params = optax.apply_updates(params, updates)
        middle[str(case)] = params, state
    return middle


def with_flax(trees, empty, tmp_path):
    del tmp_path
    return flax.serialization.from_bytes(empty, flax.serialization.to_bytes(trees))


def with_orbax(trees, empty, tmp_path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", trees)
        checkpointer.wait_until_finished()
        return checkpointer.restore(tmp_path / "state", jax.eval_shape(lambda: empty))


def with_pickle(trees, empty, tmp_path):
    del empty, tmp_path
    return pickle.loads(pickle.dumps(trees))


@pytest.mark.parametrize("restored", [with_flax, with_orbax, with_pickle])
def test_a_restored_state_goes_on_bit_for_bit(restored, tmp_path):
    middle = after_three_steps()
    empty = {str(case): (PARAMS, case.tx().init(PARAMS)) for case in FAMILY}
    again = restored(middle, empty, tmp_path)
    assert jax.tree.structure(again) == jax.tree.structure(middle)
    chex.assert_trees_all_equal(again, middle)
    for case in FAMILY:
        gradients = gradients_like(PARAMS, 7)
        ends = []
        for params, state in middle[str(case)], again[str(case)]:
            params, state = jax.tree.map(jnp.asarray, (params, state))
            ends.append(case.tx().update(gradients, state, params))
        chex.assert_trees_all_equal(*ends)
        chex.assert_trees_all_equal_dtypes(*ends)

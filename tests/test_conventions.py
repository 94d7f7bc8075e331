"""What a weight decay means, in each convention, and in a run."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import error, problem
from hypothesis import given
from hypothesis import strategies as st

import adamw_jax as aj

# Forward and back, and names for what both take beside the decay.
PAIRS = {
    "weight_decay": (aj.per_step_from_weight_decay, aj.weight_decay_from_per_step, 1),
    "normalized": (aj.per_step_from_normalized, aj.normalized_from_per_step, 3),
    "timescale": (aj.per_step_from_timescale, aj.timescale_from_per_step, 1),
}
every_pair = pytest.mark.parametrize("forward, back, others", PAIRS.values(), ids=PAIRS)
FUNCTIONS = {f.__name__: (f, others) for *both, others in PAIRS.values() for f in both}
every_function = pytest.mark.parametrize("function, others", FUNCTIONS.values(), ids=FUNCTIONS)

positive = st.floats(1e-6, 1e6)


@every_pair
@given(decay=positive, rest=st.tuples(positive, positive, positive))
def test_there_and_back_is_the_identity(forward, back, others, decay, rest):
    rest = rest[:others]
    for first, second in (forward, back), (back, forward):
        assert math.isclose(second(first(decay, *rest), *rest), decay, rel_tol=1e-12)


ONE = {
    "float": float,
    "NumPy scalar": np.float64,
    "0-d NumPy": np.array,
    "NumPy": lambda x: np.array([x, 2 * x]),
    "float32": np.float32,
    "JAX": lambda x: jnp.array([x, 2 * x]),
    "0-d JAX": jnp.float32,
}


@every_function
@pytest.mark.parametrize("kind", ONE.values(), ids=ONE)
def test_takes_numbers_and_arrays_and_gives_the_same_kind(function, others, kind):
    decay, rest = 2.0, (128.0, 6e4, 40.0)[:others]
    values = [function(decay, *rest), function(2 * decay, *rest)]
    got = function(kind(decay), *rest)
    assert isinstance(got, jax.Array) == isinstance(kind(decay), jax.Array)
    np.testing.assert_allclose(got, values[: np.size(got)] if np.ndim(got) else values[0], 1e-6)
    traced = jax.jit(function)(kind(decay), *rest)
    np.testing.assert_allclose(traced, got, rtol=1e-6)


@every_function
def test_arrays_broadcast(function, others):
    decays, last = np.array([[0.1], [0.2], [0.3]]), np.array([3.0, 5.0])
    rest = (128.0, 6e4)[: others - 1]
    grid = function(decays, *rest, last)
    assert grid.shape == (3, 2)
    for i, j in np.ndindex(3, 2):
        np.testing.assert_allclose(grid[i, j], function(decays[i, 0], *rest, last[j]), rtol=1e-14)
    np.testing.assert_allclose(function(jnp.array(decays), *rest, last), grid, rtol=1e-6)


def test_integers_are_numbers():
    assert aj.per_step_from_timescale(10, 100) == aj.timescale_from_per_step(10, 100) == 1e-3
    assert aj.per_step_from_normalized(1, 128, 60_000, 40) == (128 / 2_400_000) ** 0.5


FALLING, WARMUP = optax.linear_schedule(0.1, 0.0, 10), optax.linear_schedule(0.0, 1.0, 5)


@pytest.mark.parametrize(
    "weight_decay, rate",
    [(FALLING, 0.5), (0.5, WARMUP), (FALLING, WARMUP)],
    ids=["decay", "rate", "both"],
)
def test_schedules_give_a_schedule(weight_decay, rate):
    def at(value, step):
        return value(step) if callable(value) else value

    λ = aj.per_step_from_weight_decay(weight_decay, rate)
    for step in range(12):
        expected = at(weight_decay, step) * at(rate, step)
        np.testing.assert_allclose(λ(step), expected, rtol=1e-6)
        np.testing.assert_allclose(jax.jit(λ)(step), expected, rtol=1e-6, atol=1e-8)


ZEROS = [0, 0.0, np.float64(0), np.float32(0), np.int64(0), np.zeros(2), jnp.float32(0)]
ZEROS += [jnp.zeros(2), jnp.int32(0)]


@pytest.mark.parametrize("zero", ZEROS, ids=repr)
def test_where_nothing_decays_the_timescale_is_infinite_and_back(zero):
    timescale = aj.timescale_from_per_step(zero, 10)  # without a warning, which is an error here
    assert np.all(timescale == math.inf)
    assert np.all(aj.per_step_from_timescale(timescale, 10) == 0)


def test_numbers_too_small_to_multiply_give_an_infinite_timescale():
    assert aj.timescale_from_per_step(1e-200, 1e-200) == math.inf


def test_zero_decay_is_zero_in_the_other_conventions():
    assert aj.per_step_from_weight_decay(0.0, 1e-3) == aj.weight_decay_from_per_step(0.0, 1e-3) == 0
    assert (
        aj.per_step_from_normalized(0.0, 1, 2, 3) == aj.normalized_from_per_step(0.0, 1, 2, 3) == 0
    )


# Numbers that would wrap as integers, or become infinite in half precision.
LARGE = {
    "weight_decay": (100_000, 100_000),
    "normalized": (100_000, 128, 1_300_000, 40_000),
    "timescale": (100_000, 100_000),
}
INTEGERS = {
    "np.int32": np.int32,
    "np.int64": np.int64,
    "np.uint32 array": lambda x: np.array([x], np.uint32),
    "jnp.int32": jnp.int32,
    "jnp.uint32 array": lambda x: jnp.array([x], jnp.uint32),
}


@pytest.mark.parametrize("kind", INTEGERS.values(), ids=INTEGERS)
@pytest.mark.parametrize("name", PAIRS)
def test_integers_do_not_overflow(name, kind):
    for function in PAIRS[name][:2]:
        expected = function(*map(float, LARGE[name]))
        for compiled in function, jax.jit(function):
            got = compiled(*map(kind, LARGE[name]))
            np.testing.assert_allclose(np.ravel(got), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, jnp.bfloat16, np.float16], ids=np.dtype)
@pytest.mark.parametrize("module", [np, jnp], ids=["NumPy", "JAX"])
@every_pair
def test_narrow_dtypes_do_not_overflow(forward, back, others, module, dtype):
    arguments = 240, *(240, 240, 240)[:others]
    for function in forward, back:
        narrow = function(*(module.asarray([x], dtype) for x in arguments))
        np.testing.assert_allclose(narrow, function(*map(float, arguments)), rtol=1e-6)
        assert narrow.dtype == (np.float64 if module is np else np.float32)


# What each argument may be: how its range is shown, and a number at its edge that is outside.
NON_NEGATIVE, POSITIVE = (r"\[0, ∞\)", -1e-9), (r"\(0, ∞\)", 0)
RANGES = {
    aj.per_step_from_weight_decay: {"weight_decay": NON_NEGATIVE, "learning_rate": NON_NEGATIVE},
    aj.weight_decay_from_per_step: {"decay_per_step": NON_NEGATIVE, "learning_rate": POSITIVE},
    aj.per_step_from_timescale: {"timescale": (r"\(0, ∞\]", 0), "steps_per_epoch": POSITIVE},
    aj.timescale_from_per_step: {"decay_per_step": NON_NEGATIVE, "steps_per_epoch": POSITIVE},
}
STEPS = dict.fromkeys(["batch_size", "examples", "epochs"], POSITIVE)
RANGES |= {
    aj.per_step_from_normalized: {"normalized_decay": NON_NEGATIVE} | STEPS,
    aj.normalized_from_per_step: {"decay_per_step": NON_NEGATIVE} | STEPS,
}
ARGUMENTS = [(f, name, *range_) for f, ranges in RANGES.items() for name, range_ in ranges.items()]
every_argument = pytest.mark.parametrize(
    "function, name, range_, outside",
    ARGUMENTS,
    ids=[f"{f.__name__}-{n}" for f, n, *_ in ARGUMENTS],
)


@every_argument
def test_arguments_are_refused_by_name_range_and_value(function, name, range_, outside):
    numbers = dict.fromkeys(RANGES[function], 0.5)
    no_numbers = ["0.5", None, 1j, [0.5], np.array(["0.5"]), np.array([1j]), np.array([True])]
    out_of_range = [outside, np.array([0.5, outside]), np.float32(-1), -1, math.nan, -math.inf]
    for bad in no_numbers + out_of_range:
        with pytest.raises(ValueError, match=rf"^{name} must be .* in {range_}, got ") as caught:
            function(**numbers | {name: bad})
        assert repr(bad) in str(caught.value)
    assert np.isfinite(function(**numbers))


@every_argument
def test_of_jax_arrays_the_dtype_is_checked_and_the_values_are_not_read(
    function, name, range_, outside
):
    numbers = dict.fromkeys(RANGES[function], jnp.float32(0.5))
    for bad in jnp.complex64(1), jnp.bool_(True):
        with pytest.raises(ValueError, match=rf"^{name} must be .* in {range_}, got "):
            function(**numbers | {name: bad})
    with jax.transfer_guard_device_to_host("disallow"):
        function(**numbers | {name: jnp.float32(outside)})


@pytest.mark.parametrize("returned", [None, -0.1, "0.1", 1j, jnp.complex64(1)], ids=repr)
@pytest.mark.parametrize("name", ["weight_decay", "learning_rate"])
def test_what_a_schedule_returns_is_refused_by_name(name, returned):
    arguments = {"weight_decay": 0.1, "learning_rate": 0.1, name: lambda step: returned}
    λ = aj.per_step_from_weight_decay(**arguments)
    with pytest.raises(ValueError, match=f"^what the schedule of {name} returns must be .*, got "):
        λ(0)


def test_the_optimizers_that_multiply_schedules_name_their_own_arguments():
    makes = {
        "decay_per_step": lambda bad: aj.sgdw(0.1, decay_per_step=bad, schedule=WARMUP),
        "schedule": lambda bad: aj.sgdw(0.1, schedule=bad),
        "weight_decay": lambda bad: aj.adam_prox(WARMUP, weight_decay=bad),
        "learning_rate": lambda bad: aj.adam_prox(bad),
    }
    for name, make in makes.items():
        tx = make(lambda step: None)
        with pytest.raises(ValueError, match=rf"\bschedule of {name} returns must be"):
            tx.update(jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1))


# Fashion-MNIST: 60,000 images, batch 128, 40 epochs, α = 1e-3.
RATE, RUN, STEPS_PER_EPOCH = 1e-3, (128, 60_000, 40), 60_000 / 128


@pytest.mark.parametrize("weight_decay, epochs, if_per_step", [(1e-3, 2133, 2.1), (1e-2, 213, 0.2)])
def test_the_decays_of_the_fashion_mnist_runs_as_timescales(weight_decay, epochs, if_per_step):
    λ = aj.per_step_from_weight_decay(weight_decay, RATE)
    assert round(aj.timescale_from_per_step(λ, STEPS_PER_EPOCH)) == epochs
    assert round(aj.timescale_from_per_step(weight_decay, STEPS_PER_EPOCH), 1) == if_per_step


@pytest.mark.parametrize(
    "normalized, per_step, weight_decay", [(0.025, 1.8e-4, 0.18), (0.05, 3.7e-4, 0.37)]
)
def test_the_best_normalized_decay_for_fashion_mnist(normalized, per_step, weight_decay):
    λ = aj.per_step_from_normalized(normalized, *RUN)
    assert float(f"{λ:.1e}") == per_step
    assert float(f"{aj.weight_decay_from_per_step(λ, RATE):.1e}") == weight_decay


def test_a_run_four_times_as_long_gets_half_the_decay_per_step():
    short, long = (aj.per_step_from_normalized(0.05, 128, 60_000, T) for T in (10, 40))
    assert math.isclose(short, 2 * long)


# What they mean in a run.


def decayed(tx, steps):
    """What is left of a weight of 1 without gradients, in float64."""
    with jax.enable_x64(True):
        θ = jnp.float64(1)

        def step(_, carry):
            θ, state = carry
            updates, state = tx.update(jnp.zeros_like(θ), state, θ)
            return θ + updates, state

        return float(jax.lax.fori_loop(0, steps, step, (θ, tx.init(θ)))[0])


TAKEN = {
    "adamw": lambda λ: aj.adamw(RATE, weight_decay=aj.weight_decay_from_per_step(λ, RATE)),
    "decayed_per_step": lambda λ: aj.decayed_per_step(aj.adam(RATE), λ),
    "sgdw": lambda λ: aj.sgdw(RATE, decay_per_step=λ),
    "optax.adamw": lambda λ: optax.adamw(RATE, weight_decay=aj.weight_decay_from_per_step(λ, RATE)),
}


@pytest.mark.parametrize("make", TAKEN.values(), ids=TAKEN)
def test_after_its_timescale_a_weight_is_down_to_one_eth(make):
    steps_per_epoch, epochs = 50, 20
    λ = aj.per_step_from_timescale(epochs, steps_per_epoch)
    # (1 − λ)ⁿ is e⁻¹ but for λ/2.
    left = decayed(make(λ), epochs * steps_per_epoch)
    np.testing.assert_allclose(left, (1 - λ / 2) / math.e, rtol=1e-6)
    assert decayed(make(λ), epochs * steps_per_epoch // 2) > 1.5 * left


def test_a_normalized_decay_takes_the_same_fraction_in_a_run_of_the_same_length():
    # λ_norm √n of n steps: the fraction left depends on the number of steps alone.
    batch, examples, epochs = 10, 1000, 4
    λ = aj.per_step_from_normalized(0.05, batch, examples, epochs)
    n = examples * epochs // batch
    left = decayed(aj.decayed_per_step(aj.adam(RATE), λ), n)
    np.testing.assert_allclose(left, (1 - 0.05 / n**0.5) ** n, rtol=1e-10)
    np.testing.assert_allclose(left, math.exp(-0.05 * n**0.5), rtol=2e-3)


def falling(step):
    return 1 / (1 + 1e-2 * step)


def both(rate, weight_decay, λ):
    """The end of a run in either convention."""
    quadratics = problem(300)

    by_rate = aj.adamw(lambda step: rate * falling(step), weight_decay=weight_decay)
    by_schedule = aj.decayed_per_step(aj.adam(rate), λ, falling)
    with jax.enable_x64(True):
        return [quadratics.descend(tx, jnp.float64) for tx in (by_rate, by_schedule)]


def test_the_conventions_agree_where_the_decay_per_step_is_the_rate_times_the_decay():
    rate, weight_decay = 1e-2, 0.3
    one, other = both(rate, weight_decay, aj.per_step_from_weight_decay(weight_decay, rate))
    assert error(one, other) < 1e-12


def test_the_conventions_part_when_the_rate_changes():
    # The same λ at ten times the rate: ten times the decay in one, the same in the other.
    rate, weight_decay = 1e-2, 0.3
    λ = aj.per_step_from_weight_decay(weight_decay, rate)
    one, other = both(10 * rate, weight_decay, λ)
    assert error(one, other) > 1e-2
    # To agree again, weight_decay must fall as the rate rises.
    again, _ = both(10 * rate, aj.weight_decay_from_per_step(λ, 10 * rate), λ)
    assert error(again, other) < 1e-12


def test_without_gradients_the_rate_matters_in_one_convention_and_not_in_the_other():
    for α in 1e-3, 1e-2:
        left = decayed(aj.adamw(α, weight_decay=0.5), 100)
        np.testing.assert_allclose(left, (1 - α * 0.5) ** 100, rtol=1e-12)
        left = decayed(aj.decayed_per_step(aj.adam(α), 5e-4), 100)
        np.testing.assert_allclose(left, (1 - 5e-4) ** 100, rtol=1e-12)


def test_the_schedule_multiplies_the_decay_in_both():
    expected = np.prod([1 - 5e-3 * falling(step) for step in range(100)])
    for tx in (
        aj.adamw(lambda step: 1e-2 * falling(step), weight_decay=0.5),
        aj.decayed_per_step(aj.adam(1e-2), 5e-3, falling),
        aj.sgdw(1e-2, decay_per_step=5e-3, schedule=falling),
    ):
        np.testing.assert_allclose(decayed(tx, 100), expected, rtol=1e-12)
    # A schedule of the rate within does not.
    within = aj.decayed_per_step(aj.adam(lambda step: 1e-2 * falling(step)), 5e-3)
    np.testing.assert_allclose(decayed(within, 100), (1 - 5e-3) ** 100, rtol=1e-12)

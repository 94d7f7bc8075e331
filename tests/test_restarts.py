"""Warm restarts and the decay that is renormalized at each, against the papers' formulas."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

import adamw_jax as aj

LAST = 2**31 - 1
CYCLES = [(T_0, T_mult) for T_0 in (1, 3, 7, 100) for T_mult in (1, 2, 3)]
every_cycle = pytest.mark.parametrize("T_0, T_mult", CYCLES)
λ_NORM = 0.04
# What float32 may be off by: a unit in the last place of 1, and half a cosine's argument.
ULPS = {"atol": 4e-7, "rtol": 0}


def restarts(T_0, T_mult):
    """The steps that open a cycle, up to the last that is counted."""
    if T_mult == 1:
        early, far = range(0, 12 * T_0, T_0), (2**24 // T_0, LAST // T_0 - 1)
        return [*early, *(n * T_0 for first in far for n in (first, first + 1))]
    lengths = itertools.takewhile(lambda n: n <= LAST, (T_0 * T_mult**n for n in range(32)))
    return [start for start in itertools.accumulate(lengths, initial=0) if start <= LAST]


def some_steps(T_0, T_mult):
    """Every step of the first cycles, and those around all restarts, 2²⁴ and the end."""
    around = [*restarts(T_0, T_mult), 2**24, LAST]
    steps = {step + offset for step in around for offset in range(-3, 4)}
    return sorted(step for step in steps | set(range(1500)) if 0 <= step <= LAST)


FLOORS = [(*cycle, 0.0) for cycle in CYCLES] + [(3, 2, 0.1), (3, 2, 1.0)]


@pytest.mark.parametrize("T_0, T_mult, floor", FLOORS)
def test_the_schedule_is_the_cosine_of_sgdr(T_0, T_mult, floor):
    steps = some_steps(T_0, T_mult)
    expected = [reference.cosine(step, T_0, T_mult, η_min=floor) for step in steps]
    schedule = aj.cosine_warm_restarts(T_0, T_mult, floor=floor)
    η = schedule(np.array(steps))
    assert η.dtype == jnp.float32 and η.shape == (len(steps),)
    np.testing.assert_allclose(η, expected, **ULPS)
    with jax.enable_x64(True):
        η = schedule(np.array(steps))
        assert η.dtype == jnp.float64
        np.testing.assert_allclose(η, expected, atol=1e-14)


@every_cycle
def test_the_decay_is_renormalized_in_every_cycle(T_0, T_mult):
    steps = some_steps(T_0, T_mult)
    lengths = [reference.warm_restarts(step, T_0, T_mult)[1] for step in steps]
    expected = λ_NORM * np.sqrt(1 / np.array(lengths))
    decay = aj.renormalized_decay(λ_NORM, T_0, T_mult)
    λ = np.broadcast_to(decay(np.array(steps)), len(steps))
    assert λ.dtype == jnp.float32
    np.testing.assert_allclose(λ, expected, rtol=3e-7)
    with jax.enable_x64(True):
        λ = np.broadcast_to(decay(np.array(steps)), len(steps))
        np.testing.assert_allclose(λ, expected, rtol=1e-14)


@every_cycle
def test_every_restart_is_at_its_step_exactly(T_0, T_mult):
    schedule, decay = aj.cosine_warm_restarts(T_0, T_mult), aj.renormalized_decay(1.0, T_0, T_mult)
    for start in restarts(T_0, T_mult):
        _, T_i = reference.warm_restarts(start, T_0, T_mult)
        # One is exact, and so are the first steps of a cycle and the last before it.
        assert schedule(start) == 1
        np.testing.assert_allclose(decay(start), T_i**-0.5, rtol=3e-7)
        if start:
            before = reference.warm_restarts(start - 1, T_0, T_mult)[1]
            np.testing.assert_allclose(decay(start - 1), before**-0.5, rtol=3e-7)
            last = 0.5 - 0.5 * math.cos(math.pi / before)
            np.testing.assert_allclose(schedule(start - 1), last, **ULPS)
            assert before == 1 or schedule(start - 1) < 1


def test_the_updates_of_cycles_of_four_see_what_the_docstring_says():
    η = aj.cosine_warm_restarts(4)(np.arange(6))
    np.testing.assert_allclose(η, [1, 0.85, 0.5, 0.15, 1, 0.85], atol=5e-3)


@pytest.mark.parametrize("T_mult", [1, 2, 3])
def test_equals_cosines_of_optax_written_out(T_mult):
    T_0 = 7
    lengths = [T_0 * T_mult**n for n in range(6)]
    ends = np.cumsum(lengths).tolist()
    steps = np.arange(ends[-1])
    η = aj.cosine_warm_restarts(T_0, T_mult, floor=0.1)(steps)
    cosines = [optax.cosine_decay_schedule(1.0, n, alpha=0.1) for n in lengths]
    np.testing.assert_allclose(η, optax.join_schedules(cosines, ends[:-1])(steps), atol=1e-6)
    cycles = [
        {"init_value": 1.0, "peak_value": 1.0, "warmup_steps": 0, "decay_steps": n}
        | {"end_value": 0.1}
        for n in lengths
    ]
    sgdr = jax.vmap(optax.sgdr_schedule(cycles))(steps)
    np.testing.assert_allclose(η, sgdr, atol=1e-6)


def test_the_schedule_of_optax_ends_and_ours_does_not():
    cosine = optax.cosine_decay_schedule(1.0, 3)
    ended = optax.join_schedules([cosine, cosine], [3])
    assert ended(6) == ended(60) == 0
    ours = aj.cosine_warm_restarts(3)
    assert ours(6) == ours(60) == 1


@pytest.mark.parametrize("T_mult", [1, 2, 3])
@pytest.mark.parametrize("make", [aj.cosine_warm_restarts, aj.renormalized_decay])
def test_the_first_cycle_may_be_an_array_traced_and_mapped(make, T_mult):
    if make is aj.renormalized_decay:
        make = functools.partial(make, λ_NORM)
    steps = np.array([0, 1, 2, 3, 8, 9, 699, 700, 701, 2**24, LAST])
    first_cycles = jnp.array([1, 3, 7, 100])
    expected = np.array(
        [np.broadcast_to(make(T_0, T_mult)(steps), len(steps)) for T_0 in first_cycles.tolist()]
    )

    def at(T_0, step):
        return make(T_0, T_mult)(step)

    for dtype in jnp.int32, jnp.uint8, jnp.float32:
        for function in at, jax.jit(at):
            one = [function(T_0.astype(dtype), jnp.int32(8)) for T_0 in first_cycles]
            np.testing.assert_allclose(one, expected[:, 4], **ULPS)
    grid = jax.jit(jax.vmap(jax.vmap(at, (None, 0)), (0, None)))
    np.testing.assert_allclose(grid(first_cycles, steps), expected, **ULPS)


@pytest.mark.parametrize("step", [5, np.int64(5), jnp.int32(5), jnp.uint32(5), 5.0, jnp.float32(5)])
def test_steps_may_be_every_kind_of_number(step):
    for schedule in aj.cosine_warm_restarts(3, 2), aj.renormalized_decay(λ_NORM, 3, 2):
        assert schedule(step) == jax.jit(schedule)(step) == schedule(5)


def test_arrays_of_steps_keep_their_shape():
    steps = np.arange(12).reshape(3, 4)
    schedule = aj.cosine_warm_restarts(3, 2)
    assert schedule(steps).shape == (3, 4)
    np.testing.assert_array_equal(schedule(steps).ravel(), schedule(steps.ravel()))


def test_the_floor_may_be_an_array():
    for floor in jnp.float32(0.5), jnp.bfloat16(0.5):
        η = jax.jit(lambda floor: aj.cosine_warm_restarts(4, floor=floor)(2))(floor)
        np.testing.assert_allclose(η, 0.75, rtol=1e-6)


BAD = [0, 1.5, math.nan, -1, -math.inf, math.inf, None, "3", jnp.ones(2), 10**400]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad)[:20])
@pytest.mark.parametrize("name", ["first_cycle", "cycle_mult"])
def test_cycles_that_are_no_whole_numbers_are_refused(name, bad):
    arguments = {"first_cycle": 3, "cycle_mult": 2, name: bad}
    makes = (
        aj.cosine_warm_restarts,
        functools.partial(aj.renormalized_decay, λ_NORM),
        functools.partial(aj.adamwr, 1e-3),
    )
    for make in makes:
        with pytest.raises(ValueError, match=f"{name} must be") as caught:
            make(**arguments)
        assert isinstance(bad, jax.Array) or repr(bad)[:20] in str(caught.value)


def test_whole_floats_are_whole_numbers():
    assert aj.cosine_warm_restarts(3.0, np.float64(2.0))(5) == aj.cosine_warm_restarts(3, 2)(5)


def test_cycle_mult_may_not_be_an_array_and_the_message_says_what_to_do():
    for make in aj.cosine_warm_restarts, functools.partial(aj.renormalized_decay, 0.1):
        with pytest.raises(ValueError, match="cycle_mult.*static_args"):
            make(3, jnp.int32(2))
    with pytest.raises(ValueError, match="cycle_mult.*static_args"):
        optax.inject_hyperparams(aj.adamwr)(1e-3, 3, 2).init(jnp.ones(1))


@pytest.mark.parametrize("floor", [-0.1, 1.1, math.nan])
def test_floors_outside_zero_and_one_are_refused(floor):
    with pytest.raises(ValueError, match="floor must be"):
        aj.cosine_warm_restarts(3, floor=floor)


@pytest.mark.parametrize("decay", [-0.1, math.nan, math.inf])
def test_negative_normalized_decay_is_refused(decay):
    for make in aj.renormalized_decay, functools.partial(aj.adamwr, 1e-3, normalized_decay=decay):
        with pytest.raises(ValueError, match="normalized_decay must be"):
            make(3) if make is not aj.renormalized_decay else make(decay, 3)


# What the updates of a run see. Without gradients only decay moves: θ ← (1 − ηλ) θ.


def fractions_lost(tx, steps):
    """1 − θₜ₊₁/θₜ over a run without gradients, in float64."""

    def step(carry, _):
        θ, state = carry
        updates, state = tx.update(jnp.zeros_like(θ), state, θ)
        return (θ + updates, state), -updates / θ

    θ = jnp.float64(1.0)
    return np.asarray(jax.lax.scan(step, (θ, tx.init(θ)), None, steps)[1])


def expected_fractions(T_0, T_mult, steps):
    λ = [λ_NORM * reference.warm_restarts(t, T_0, T_mult)[1] ** -0.5 for t in range(steps)]
    return λ * np.array([reference.cosine(t, T_0, T_mult) for t in range(steps)])


INJECTED = optax.inject_hyperparams(aj.adamwr, static_args=("first_cycle", "cycle_mult"))
# T_0 may be one of the hyperparameters in the state, where it is a number like the others.
T_0_TOO = optax.inject_hyperparams(aj.adamwr, static_args=("cycle_mult",))


@every_cycle
@pytest.mark.parametrize("make", [aj.adamwr, INJECTED, T_0_TOO], ids=["", "injected", "T_0 too"])
def test_a_run_of_adamwr_decays_by_the_schedule(make, T_0, T_mult):
    steps = 4 * T_0 * T_mult + 5
    with jax.enable_x64(True):
        tx = make(1e-3, T_0, T_mult, normalized_decay=λ_NORM)
        fractions = fractions_lost(tx, steps)
    # `inject_hyperparams` keeps its numbers in float32.
    tolerance = 1e-12 if make is aj.adamwr else 1e-6
    np.testing.assert_allclose(fractions, expected_fractions(T_0, T_mult, steps), rtol=tolerance)


def test_the_schedule_multiplies_the_step_of_adamwr_too():
    # Along one gradient Adam's step is α; without decay the path shows η alone.
    T_0, T_mult, α = 3, 2, 0.5
    tx = aj.adamwr(α, T_0, T_mult, normalized_decay=0, eps=0)
    θ = jnp.float32(0)
    state = tx.init(θ)
    for t in range(20):
        update, state = tx.update(jnp.float32(3), state, θ)
        np.testing.assert_allclose(update, -α * reference.cosine(t, T_0, T_mult), atol=1e-6)


def test_the_learning_rate_of_adamwr_does_not_multiply_its_decay():
    with jax.enable_x64(True):
        short, long = (
            fractions_lost(aj.adamwr(α, 3, 2, normalized_decay=λ_NORM), 20) for α in (1e-6, 1e3)
        )
    np.testing.assert_array_equal(short, long)


def test_an_injected_decay_can_be_changed_between_steps():
    tx = INJECTED(1e-3, first_cycle=4, normalized_decay=0.1)
    θ = jnp.float32(1)
    state = tx.init(θ)
    assert "first_cycle" not in state.hyperparams
    first, state = tx.update(jnp.float32(0), state, θ)
    np.testing.assert_allclose(first, -0.1 / 2, rtol=1e-6)
    state.hyperparams["normalized_decay"] = jnp.float32(0.2)
    second, _ = tx.update(jnp.float32(0), state, θ)
    np.testing.assert_allclose(second, -0.2 / 2 * reference.cosine(1, 4, 1), rtol=1e-6)


def test_the_mask_of_adamwr_chooses_what_decays():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    tx = aj.adamwr(1e-3, 4, normalized_decay=0.1, mask={"kernel": True, "bias": False})
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0)


@pytest.mark.parametrize("cycle_mult", [1, 2])
def test_a_first_cycle_longer_than_any_count_is_refused(cycle_mult):
    longest = aj.cosine_warm_restarts(2**31 - 1, cycle_mult)
    np.testing.assert_allclose(longest(2**30), 0.5, atol=1e-6)
    with pytest.raises(ValueError, match="2147483648"):
        aj.cosine_warm_restarts(2**31, cycle_mult)

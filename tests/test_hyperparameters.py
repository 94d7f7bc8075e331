"""Hyperparameters: their kinds, their ranges, and that they are operands."""

from fractions import Fraction

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES, mixed_params, walk

import adamw_jax as aj
from adamw_jax import hyperparameters

with_numbers = pytest.mark.parametrize("case", [c for c in CASES if c.numbers], ids=str)

KINDS = {
    "NumPy float32": np.float32,
    "NumPy float64": np.float64,
    "0-d NumPy array": np.array,
    "0-d float32 NumPy array": lambda x: np.array(x, np.float32),
    "0-d array": jnp.asarray,
    "fraction": Fraction,
}


@with_numbers
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_of_number_means_the_same(case, kind):
    params = mixed_params()["float32"]
    tx = case.tx(**{name: kind(number) for name, number in case.numbers.items()})
    updates, state = walk(tx, params)
    expected = walk(case.tx(), params)
    chex.assert_trees_all_equal_shapes_and_dtypes((updates, state), expected)
    chex.assert_trees_all_close((updates, state), expected, rtol=2e-4)  # 0.99 in float32


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32, jnp.uint8], ids=jnp.dtype)
@pytest.mark.parametrize("module", [np, jnp], ids=["NumPy", "JAX"])
def test_zero_d_arrays_of_every_dtype_are_numbers(dtype, module):
    params = jnp.float32([1, 2])
    updates, _ = walk(aj.gd(module.asarray(1, dtype)), params)
    chex.assert_trees_all_equal(updates, walk(aj.gd(1.0), params)[0])


@with_numbers
def test_optimizers_can_be_built_from_traced_values(case):
    params = mixed_params()["float32"]
    arrays = {name: jnp.float32(number) for name, number in case.numbers.items()}
    traced = jax.jit(lambda numbers: walk(case.tx(**numbers), params))(arrays)
    chex.assert_trees_all_close(traced, walk(case.tx(**arrays), params), rtol=1e-5, atol=1e-7)


@with_numbers
def test_arrays_are_never_read(case):
    # Reading one would wait for the device; under a trace even a concrete one raises.
    params = mixed_params()["float32"]
    arrays = {name: jnp.float32(number) for name, number in case.numbers.items()}
    with jax.transfer_guard_device_to_host("disallow"):
        walk(case.tx(**arrays), params, steps=1)
    jax.jit(lambda x: walk(case.tx(**arrays), params, steps=1)[0])(0)


@with_numbers
def test_no_compilation_when_only_numbers_change(case, compilations):
    params = mixed_params()
    walk(case.tx(), params, steps=2)
    compilations.clear()
    for factor in 0.99, 0.95, 0.9:
        walk(case.tx(**{name: factor * x for name, x in case.numbers.items()}), params, steps=2)
    assert not compilations


def test_decay_rates_on_either_side_of_one_half_compile_once_each(compilations):
    params = mixed_params()
    for b1 in 0.9, 0.0:
        walk(aj.adam(0.1, b1=b1), params, steps=2)
    compilations.clear()
    for b1 in 0.5, 0.1, 0.99, 0.499:
        walk(aj.adam(0.1, b1=b1), params, steps=2)
    assert not compilations


RATE, AMOUNT = r"\[0, 1\)", r"\[0, ∞\)"
ARGUMENTS = [
    (aj.momentum, {}, "b1", RATE),
    (aj.second_moment, {}, "b2", RATE),
    (aj.bias_correction, {}, "b", RATE),
    (aj.nesterov_lookahead, {}, "b1", RATE),
    (aj.rms_ratio, {"eps": 1e-8}, "eps", AMOUNT),
    (aj.rms_ratio, {"eps": 1e-8}, "eps_root", AMOUNT),
    (aj.decoupled_weight_decay, {}, "weight_decay", AMOUNT),
    (aj.l2_regularization, {}, "l2", AMOUNT),
    (aj.scale_by_learning_rate, {}, "learning_rate", AMOUNT),
    (aj.gd, {}, "learning_rate", AMOUNT),
    (aj.momentum_gd, {"learning_rate": 0.1}, "b1", RATE),
    (aj.uncorrected_adam, {"learning_rate": 0.1}, "b2", RATE),
    (aj.adam_l2, {"learning_rate": 0.1}, "l2", AMOUNT),
    (aj.adamw, {"learning_rate": 0.1}, "weight_decay", AMOUNT),
]
ADAM_ARGUMENTS = {
    "learning_rate": AMOUNT,
    "b1": RATE,
    "b2": RATE,
    "eps": AMOUNT,
    "eps_root": AMOUNT,
}
for make in aj.adam, aj.adam_l2, aj.adamw:
    ARGUMENTS += [(make, {"learning_rate": 0.1}, *item) for item in ADAM_ARGUMENTS.items()]
BAD = [-0.1, float("nan"), float("inf"), np.float32(-1), np.array(-1.0), "0.1", None, 1j, [0.1]]
BAD += [np.array([0.1, 0.2])]


@pytest.mark.parametrize(
    "make, others, name, range_", ARGUMENTS, ids=[f"{a[0].__name__}-{a[2]}" for a in ARGUMENTS]
)
def test_bad_numbers_are_refused_by_name_range_and_value(make, others, name, range_):
    for bad in BAD + [1, 1.0, 1.5, np.float64(1)] * (range_ == RATE):
        with pytest.raises(ValueError, match=rf"(?s)^{name}\b.*{range_}.*got ") as caught:
            make(**{**others, name: bad})
        assert repr(bad) in str(caught.value)


@pytest.mark.parametrize("bad", [jnp.ones(2), jnp.ones((1,)), jnp.bool_(True)])
@pytest.mark.parametrize(
    "make, name",
    [(aj.gd, "learning_rate"), (aj.decoupled_weight_decay, "weight_decay"), (aj.momentum, "b1")],
)
def test_arrays_that_are_no_real_scalars_are_refused_by_name_and_type(make, name, bad):
    with pytest.raises(ValueError, match=rf"^{name}\b.*got {bad.dtype}\[") as caught:
        make(bad)
    assert f"{list(bad.shape)}" in str(caught.value)


SCHEDULED = {
    "learning_rate": aj.adamw,
    "weight_decay": lambda schedule: aj.cautious_adamw(0.1, weight_decay=schedule),
    "l2": aj.l2_regularization,
    "decay_per_step": aj.proximal_weight_decay,
}
# What a schedule may return by mistake, and how the message shows it.
RETURNED = {
    "None": lambda step: None,
    "'0.1'": lambda step: "0.1",
    "-0.1": lambda step: -0.1,
    "nan": lambda step: float("nan"),
    r"float32\[2\]": lambda step: jnp.ones(2),
    r"float32\[1\]": lambda step: jnp.ones(1),
    r"array\(\[1.\]\)": lambda step: np.ones(1),
    "complex64": lambda step: jnp.complex64(0.1),
    "0.1j": lambda step: 0.1j,
    r"bool\[\]": lambda step: step > 3,
}


@pytest.mark.parametrize("name, make", SCHEDULED.items(), ids=SCHEDULED)
@pytest.mark.parametrize("shown, schedule", RETURNED.items(), ids=RETURNED)
def test_what_a_schedule_returns_is_refused_by_name_and_value(name, make, shown, schedule):
    tx, params = make(schedule), jnp.ones(2)
    for update in tx.update, jax.jit(tx.update):
        with pytest.raises(ValueError, match=rf"\bschedule of {name}\b.*got {shown}"):
            update(params, tx.init(params), params)


def test_a_schedule_that_is_an_object_still_prints_as_the_call_that_made_it():
    restarts = aj.cosine_warm_restarts(10)
    assert "cosine_warm_restarts(10, 1)" in repr(aj.gd(restarts))
    # Checked twice, by the optimizer and by its stage, it is still the same to the reader.
    checked = hyperparameters.non_negative_or_schedule("learning_rate", restarts)
    assert repr(aj.gd(checked)) == repr(aj.gd(restarts))


@pytest.mark.parametrize("bad", ["false", None, 0, 1.0, jnp.bool_(True)], ids=repr)
def test_flags_are_true_or_false(bad):
    with pytest.raises(ValueError, match="^flip_sign must be True or False") as caught:
        aj.scale_by_learning_rate(0.1, flip_sign=bad)
    assert str(caught.value).endswith(f"got {bad!r}")


def test_flags_may_be_numpys():
    u = jnp.ones(1)
    for flip_sign in np.True_, np.False_:
        tx = aj.scale_by_learning_rate(0.5, flip_sign=flip_sign)
        assert tx.update(u, tx.init(u))[0][0] == (-0.5 if flip_sign else 0.5)


def test_numbers_are_finite_in_the_precision_they_are_used_in():
    for large in 1e308, 10**38 * 4, np.float64(1e39):
        for make in aj.adamw, aj.decoupled_weight_decay, lambda x: aj.adam(0.1, eps=x):
            with pytest.raises(ValueError, match="must be finite in float32, got ") as caught:
                make(large)
            assert repr(large) in str(caught.value)
    assert aj.adamw(3e38)
    with jax.enable_x64(True):
        u = jnp.float64(2)
        tx = aj.gd(1e307)
        assert tx.update(u, tx.init(u))[0] == -2e307


@pytest.mark.parametrize("zero", [0, 0.0, jnp.float32(0)], ids=repr)
def test_zero_is_legal_everywhere(zero):
    params = {"w": jnp.float32([1.0, -2.0])}
    tx = aj.adamw(zero, zero, zero, zero, zero, weight_decay=zero)
    updates, _ = walk(tx, params)
    chex.assert_trees_all_equal(optax.apply_updates(params, updates), params)

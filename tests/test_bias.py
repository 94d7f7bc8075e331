"""`bias_correction`: the factor 1 − bᵗ and its count."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import adamw_jax as aj

MAX = np.iinfo(np.int32).max


def corrected(tx, count, x=1.0):
    """What x becomes in the step that follows `count` steps."""
    state = aj.StepsState(jnp.int32(count))
    updates, state = tx.update(jnp.asarray(x), state)
    return np.float64(updates), int(state.count)


@pytest.mark.parametrize("b", [0.5, 0.9, 0.999, 0.9999, 0.99999, 1 - 1e-7])
@pytest.mark.parametrize("t", [1, 2, 10, 1000, 100_000])
@pytest.mark.parametrize("ahead", [0, 1])
def test_divides_by_the_sum_of_the_weights(b, t, ahead):
    got, count = corrected(aj.bias_correction(b, ahead=ahead), t - 1)
    assert count == t
    np.testing.assert_allclose(got, 1 / -np.expm1((t + ahead) * np.log(b)), rtol=5e-7)


@pytest.mark.parametrize("b", [0.9, 0.999, 0.99999])
def test_array_rates_are_as_exact_as_their_own_value(b):
    b = jnp.float32(b)
    got, _ = corrected(aj.bias_correction(b), 0)
    np.testing.assert_allclose(got, 1 / (1 - np.float64(b)), rtol=5e-7)


@pytest.mark.parametrize("zero", [0, 0.0, jnp.float32(0), np.float32(0)], ids=repr)
def test_rate_zero_needs_no_correction(zero):
    assert corrected(aj.bias_correction(zero), 0) == (1, 1)
    assert corrected(aj.bias_correction(zero), 99) == (1, 100)


@pytest.mark.parametrize("ahead", [0, 1, 5])
@pytest.mark.parametrize("count", [MAX - 2, MAX - 1, MAX])
def test_count_saturates_and_the_correction_stays_one(ahead, count):
    got, count = corrected(aj.bias_correction(0.9, ahead=ahead), count)
    assert got == 1 and count >= MAX - 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "complex64"])
def test_correction_is_computed_before_the_cast(dtype):
    # In bfloat16 0.999 is 1, and 1 − b is zero.
    x = jnp.asarray([0.001], dtype)
    got, _ = aj.bias_correction(0.999).update(x, aj.StepsState(jnp.int32(0)))
    chex.assert_trees_all_equal_shapes_and_dtypes(got, x)
    exact = np.asarray(x, np.complex64).real / np.float32(1 - 0.999)
    rtol = 1e-6 if dtype in ("float32", "complex64") else float(jnp.finfo(dtype).eps) / 2
    np.testing.assert_allclose(np.asarray(got, np.complex64).real, exact, rtol=rtol)


def test_correction_has_the_precision_of_the_leaf():
    with jax.enable_x64(True):
        got, _ = corrected(aj.bias_correction(0.999), 0, np.float64(1))
    np.testing.assert_allclose(got, 1 / (1 - 0.999), rtol=1e-13)


@pytest.mark.parametrize("ahead", [-1, 1.5, "1", None])
def test_ahead_must_be_a_count(ahead):
    with pytest.raises(ValueError, match=r"ahead .*\[0, 2³¹\), got"):
        aj.bias_correction(0.9, ahead=ahead)


def test_nothing_to_correct_but_the_steps_are_counted():
    tx = aj.bias_correction(0.9)
    updates, state = tx.update({"frozen": None}, tx.init({"frozen": jnp.ones(2)}))
    chex.assert_trees_all_equal(updates, {"frozen": None})
    assert state.count == 1

"""Moments whose dtype is another in Optax: widened, and narrowed only if told."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import mixed_params
from crossing_over import PARAMS, refused, walk

import adamw_jax as aj
from adamw_jax.interchange import from_earlier_version, from_optax, to_optax


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

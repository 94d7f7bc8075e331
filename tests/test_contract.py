"""What every export keeps: the laws of `adamw_jax.testing`, and what is the library's own."""

import inspect

import jax
import jax.numpy as jnp
import optax
import pytest
from cases import CASES
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import adamw_jax as aj
from adamw_jax import testing

every_case = pytest.mark.parametrize("case", CASES, ids=str)

# Functions for schedules, masks, reports and pieces, with tests of their own.
NO_TRANSFORMATIONS = {
    *("per_step_from_weight_decay", "weight_decay_from_per_step"),
    *("per_step_from_normalized", "normalized_from_per_step"),
    *("per_step_from_timescale", "timescale_from_per_step"),
    *("cosine_warm_restarts", "renormalized_decay", "half_life_warmup", "rising_decay"),
    *("kind", "path", "decay_except", "decay_only", "decay_report"),
    *("equations", "inner_values"),
    *("describe", "piece", "register_for_export"),
    *("stochastic_rounding", "blockwise_quantization", "factored", "memory_report"),
    *("rotation_report", "scaling_report"),
    "schedule_free_eval_params",
    *("with_master_weights", "with_stochastic_rounding"),
}


def test_every_exported_function_is_in_the_table():
    exports = {name for name in aj.__all__ if inspect.isfunction(getattr(aj, name))}
    listed = {name for case in CASES for name in (case.name.split()[0], *case.covers)}
    assert exports - NO_TRANSFORMATIONS == listed


def test_all_names_what_there_is():
    assert sorted(set(aj.__all__)) == list(aj.__all__)
    assert all(hasattr(aj, name) for name in aj.__all__)


@pytest.mark.parametrize("law", testing.LAWS, ids=lambda law: law.__name__)
@every_case
def test_obeys(case, law):
    law(case.make, case.numbers)


@every_case
def test_is_an_optax_transformation_whose_moments_are_wide(case):
    tx = case.tx()
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    dtypes = {x.dtype for x in jax.tree.leaves(tx.init(testing.mixed_params()))}
    assert dtypes <= {jnp.dtype(t) for t in (jnp.float32, jnp.complex64, jnp.int32)}


@every_case
def test_promotes_nothing_implicitly_among_complex_numbers(case, strict):
    params = testing.mixed_params()["complex64"]
    testing.walk(case.tx(), params, steps=1)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.complex64], ids=jnp.dtype)
@pytest.mark.parametrize("case", [c for c in CASES if c.name == "amsgradw"], ids=str)
def test_keeps_shardings_of_every_dtype_and_axis_type(case, dtype, axis_type):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(axis_type,))
    sharding = NamedSharding(mesh, PartitionSpec("x"))
    params = {"rows": jax.device_put(jnp.ones((8, 2), dtype), sharding)}
    tx = case.tx()
    state = tx.init(params)
    for x in jax.tree.leaves((state, *tx.update(params, state, params))):
        assert not x.ndim or x.sharding.is_equivalent_to(sharding, x.ndim)

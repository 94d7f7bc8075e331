"""An optimizer is a value that one can read, print, copy and compare."""

import copy
import functools
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES, decays_matrices, mixed_params, walk

import adamw_jax as aj

every_case = pytest.mark.parametrize("case", CASES, ids=str)
HOLD_FUNCTIONS = {"parallel", "adamw masked nesterov"}  # which print as <name>
NAMES = {name: getattr(aj, name) for name in aj.__all__}

ADAMW = """\
chain(
  parallel(
    chain(momentum(0.9), bias_correction(0.9)),
    chain(second_moment(0.999), bias_correction(0.999)),
    merge=rms_ratio(eps=1e-08)),
  decoupled_weight_decay(0.1),
  scale_by_learning_rate(0.001))"""


def test_adamw_prints_as_the_composition_that_it_is():
    assert repr(aj.adamw(1e-3, weight_decay=0.1)) == ADAMW
    assert str(aj.adamw(1e-3, weight_decay=0.1)) == ADAMW


PRINTED = {
    "chain()": aj.chain(),
    "chain(scale_by_learning_rate(0.1))": aj.gd(0.1),
    "momentum(0.9, nesterov=True)": aj.momentum(0.9, nesterov=True),
    "momentum(0.9, accumulator_dtype='bfloat16')": aj.momentum(0.9, accumulator_dtype=jnp.bfloat16),
    "bias_correction(0.9, ahead=1)": aj.bias_correction(0.9, ahead=1),
    "scale_by_learning_rate(1, flip_sign=False)": aj.scale_by_learning_rate(1, flip_sign=False),
    "l2_regularization(0.1, mask={'w': True})": aj.l2_regularization(0.1, {"w": True}),
    "rms_ratio(eps=1e-08, eps_root=1e-10)": aj.rms_ratio(1e-8, 1e-10),
    "nesterov_lookahead(0.9)": aj.nesterov_lookahead(0.9),
}


@pytest.mark.parametrize("text, value", PRINTED.items(), ids=PRINTED)
def test_prints_the_call_without_its_defaults(text, value):
    assert repr(value) == text
    assert eval(text, NAMES).description == value.description


def test_arrays_tracers_schedules_and_functions_print_as_such():
    assert "(<array float32[]>)" in repr(aj.gd(jnp.float32(0.1)))
    assert "(<cosine_decay_schedule>)" in repr(aj.gd(optax.cosine_decay_schedule(0.1, 10)))
    assert "(<decays_matrices>)" in repr(aj.gd(functools.partial(decays_matrices)))
    masked = aj.decoupled_weight_decay(0.1, mask=decays_matrices)
    assert repr(masked) == "decoupled_weight_decay(0.1, mask=<decays_matrices>)"
    printed = []
    jax.jit(lambda rate: printed.append(repr(aj.gd(rate))))(0.1)
    assert "(<tracer float32[]>)" in printed[0]


def test_integers_print_as_integers_and_extra_keywords_as_they_are():
    assert repr(aj.bias_correction(0.9, ahead=np.int64(1))) == "bias_correction(0.9, ahead=1)"

    def open_ended(**numbers):
        return aj.piece(aj.describe(open_ended, **numbers), lambda: lambda u: u)

    assert repr(open_ended(a=1)) == "open_ended(a=1)"


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.array(0.5)], ids=repr)
def test_numpy_numbers_print_as_plain_ones(number):
    assert repr(aj.gd(number)) == repr(aj.gd(0.5))


def test_foreign_transformations_print_unwrapped():
    tx = aj.chain(optax.clip_by_global_norm(1.0), aj.gd(0.1))
    assert repr(tx) == "chain(<optax clip_by_global_norm>, chain(scale_by_learning_rate(0.1)))"
    assert tx.description.args[0].init({}) == optax.EmptyState()
    assert repr(aj.chain(optax.adam(0.1))) == "chain(<optax chain>)"


def test_long_compositions_fit_the_line():
    tx = aj.adamw(1e-3, nesterov=True, mu_dtype="bfloat16")
    assert all(len(line) <= 80 for line in repr(aj.chain(tx, tx)).splitlines())


@pytest.mark.parametrize("case", [c for c in CASES if c.name not in HOLD_FUNCTIONS], ids=str)
def test_evaluating_the_printed_form_makes_an_equal_optimizer(case):
    tx, params = case.tx(), mixed_params()
    again = eval(repr(tx), NAMES)
    assert again.description == tx.description
    assert repr(again) == repr(tx)
    chex.assert_trees_all_equal(walk(again, params), walk(tx, params))


def test_description_is_data():
    description = aj.adam(0.1).description
    assert description.constructor is aj.chain and description.name == "chain"
    scaled, rate = description.args
    assert rate.constructor is aj.scale_by_learning_rate and rate.args == (0.1,)
    assert scaled.name == "parallel" and scaled.kwargs["merge"].kwargs["eps"] == 1e-8
    assert [part.name for part in scaled.args[0].args] == ["momentum", "bias_correction"]


@every_case
def test_copies_work_and_read_the_same(case):
    tx, params = case.tx(), mixed_params()
    for again in copy.copy(tx), copy.deepcopy(tx):
        assert repr(again) == repr(tx)
        assert again == tx and hash(again) == hash(tx)
        chex.assert_trees_all_equal(walk(again, params), walk(tx, params))


def test_copies_work_on_arrays_and_tracers():
    def update(rate):
        tx = copy.deepcopy(aj.gd(rate))
        return tx.update(jnp.ones(2), tx.init(jnp.ones(2)))[0]

    chex.assert_trees_all_equal(update(jnp.float32(2)), jax.jit(update)(2.0))


def test_replace_makes_a_working_pair_that_no_description_fits():
    tx = aj.adam(0.1)
    replaced = tx._replace(init=lambda params: "another state")
    assert replaced.init({}) == "another state" and replaced.update is tx.update
    assert isinstance(replaced, aj.GradientTransformation)
    assert replaced.description is None and "momentum" not in repr(replaced)
    chex.assert_trees_all_equal(
        walk(tx._replace(update=tx.update), mixed_params()), walk(tx, mixed_params())
    )


def test_description_stays_out_of_equality_and_hashing():
    tx = aj.adam(0.1)
    undescribed = aj.GradientTransformation(tx.init, tx.update)
    assert undescribed == tx and hash(undescribed) == hash(tx)
    assert tx == optax.GradientTransformationExtraArgs(tx.init, tx.update)
    assert aj.adam(0.1) != tx
    assert len(tx) == 2 and tuple(tx) == (tx.init, tx.update)


def test_is_a_pytree_of_its_two_functions_as_in_optax():
    tx = aj.adam(0.1)
    assert jax.tree.leaves(tx) == [tx.init, tx.update]
    assert jax.tree.map(lambda f: f, tx) == tx


IMPORT = """
import sys
for extra in "flax", "equinox", "torch", "matplotlib", "sklearn", "hypothesis":
    sys.modules[extra] = None
import jax, optax
before = dict(jax.config.values)
import adamw_jax
assert jax.config.values == before
"""


def test_importing_needs_jax_and_optax_alone_and_changes_no_setting():
    subprocess.run([sys.executable, "-W", "error", "-c", IMPORT], check=True)

"""Steps that are exported, serialized, and run elsewhere."""

import subprocess
import sys
from collections import namedtuple

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import gradients_like

import adamw_jax as aj

PARAMS = {"kernel": jnp.linspace(-2, -0.5, 4).reshape(2, 2), "bias": jnp.ones(2)}
OPTIMIZERS = {
    "adamw": lambda: aj.adamw(0.1),
    "schedule and mask": lambda: aj.adamw(aj.cosine_warm_restarts(4), mask=aj.decay_except()),
    "groups": lambda: aj.partition({"kernel": aj.radam(0.1), "*": aj.lion(0.1)}),
    "Optax's wrappers": lambda: optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.MultiSteps(optax.inject_hyperparams(aj.nadamw)(0.1), 2).gradient_transformation(),
    ),
    "Optax's own": lambda: optax.adamw(0.1, mask={"kernel": True, "bias": False}),
}


def exported_step(tx):
    """A step as bytes."""

    @jax.jit
    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(PARAMS)
    aj.register_for_export(state)
    return step, jax.export.export(step)(PARAMS, state, PARAMS).serialize()


def walk(step, state, steps=3):
    params = PARAMS
    for seed in range(steps):
        params, state = step(params, state, gradients_like(PARAMS, seed))
    return params, state


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_exported_step_gives_the_same_bits(make):
    step, blob = exported_step(make())
    again = jax.export.deserialize(bytearray(blob)).call
    state = make().init(PARAMS)
    chex.assert_trees_all_equal(walk(again, state), walk(step, state))


IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path

import jax.export
import numpy as np
import optax

import adamw_jax as aj

directory = Path(sys.argv[1])
params = dict(np.load(directory / "params.npz"))
optimizer = aj.adamw(0.1, mask=aj.decay_except())
aj.register_for_export(jax.eval_shape(optimizer.init, params))
step = jax.export.deserialize(bytearray((directory / "step").read_bytes())).call
np.savez(directory / "after.npz", **step(params, optimizer.init(params), params)[0])
"""


def test_another_process_runs_an_exported_step(tmp_path):
    tx = aj.adamw(0.1, mask=aj.decay_except())
    step, blob = exported_step(tx)
    (tmp_path / "step").write_bytes(blob)
    np.savez(tmp_path / "params.npz", **PARAMS)
    subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS, tmp_path], check=True, timeout=120)
    expected, _ = step(PARAMS, tx.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(dict(np.load(tmp_path / "after.npz")), expected)


def test_a_class_that_its_user_has_registered_stays_as_it_is():
    Mine = jax.export.register_namedtuple_serialization(
        namedtuple("Mine", "x"), serialized_name="mine"
    )
    aj.register_for_export((Mine(1.0), [Mine(2.0)]))


def test_two_classes_of_one_name_are_refused():
    aj.register_for_export(namedtuple("Twice", "x")(1.0))
    with pytest.raises(ValueError, match="test_export.Twice"):
        aj.register_for_export(namedtuple("Twice", "y")(1.0))

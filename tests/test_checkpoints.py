"""Saving, restoring and sharding, as docs/checkpoints.md does it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from test_sweep_processes import free_port

import adamw_jax as aj

HERE = Path(__file__).parent
PAGE = (HERE.parent / "docs/checkpoints.md").read_text()


def begin(*arguments):
    command = [sys.executable, str(HERE / "checkpoint_program.py"), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(*processes):
    """What each of the processes found, which may wait for each other."""
    both = [process.communicate(timeout=900) for process in processes]
    for process, (_, errors) in zip(processes, both, strict=True):
        assert process.returncode == 0, errors
    return [json.loads(printed.splitlines()[-1]) for printed, _ in both]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What eight devices found, and where their checkpoints are."""
    folder = tmp_path_factory.mktemp("checkpoints")
    (found,) = ended(begin(folder, "--devices", 8, "--own", folder))
    return found, folder


LAYOUTS = ["replicated", "ZeRO-1", "FSDP"]


@pytest.mark.slow
def test_a_run_goes_on_bit_for_bit_on_the_same_devices(saved):
    found, _ = saved
    for layout in LAYOUTS:
        assert found[f"{layout} resumed"] == found[f"{layout} uninterrupted"]


@pytest.mark.slow
def test_the_compiled_program_has_an_eighth_of_the_state_on_each_of_eight_devices(saved):
    assert saved[0]["printed"] == re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)[0]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 4])
def test_another_number_of_devices_restores_the_same_bits_and_makes_the_same_updates(
    devices, saved
):
    found, folder = saved
    (here,) = ended(begin(folder, "--devices", devices))
    assert {layout: here[layout] for layout in LAYOUTS} == {n: found[n] for n in LAYOUTS}


@pytest.mark.slow
def test_two_processes_restore_the_same_bits_and_resume_what_they_saved(saved, tmp_path):
    found, folder = saved
    options = [folder, "--devices", 4, "--own", tmp_path, "--process", free_port(), 2]
    for here in ended(*[begin(*options, i) for i in range(2)]):
        for layout in LAYOUTS:
            assert here[layout] == found[layout]
            assert here[f"{layout} resumed"] == here[f"{layout} uninterrupted"]


OPTIMIZERS = {
    "schedule and mask": aj.adamw(lambda step: 0.1, mask=aj.decay_except()),
    "groups": aj.partition({"*bias": aj.heavy_ball_gd(0.1), "*": aj.amsgrad(0.1)}),
    "8 bits": aj.adam(0.1, mu_dtype=aj.blockwise_quantization(), nu_dtype=aj.stochastic_rounding()),
    "MultiSteps": optax.MultiSteps(aj.lion(0.1), 2),
    "inject_hyperparams": optax.inject_hyperparams(aj.nadamw)(0.1),
    "masked": optax.masked(aj.adam(0.1), [True, False, True]),
    "Optax's": optax.adamw(lambda step: 0.1, mask=[True, False, True]),
}


@pytest.mark.parametrize("tx", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_each_moment_lies_where_its_parameter_does(tx):
    page = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[:2]:
        exec(compile(block, "checkpoints.md", "exec"), page)
    assert page["mesh"].size > 1
    shardings = page["state_shardings"](tx, page["params"], page["split"])
    state = jax.jit(lambda: tx.init(page["first_params"]()), out_shardings=shardings)()
    shapes = {x.shape for x in jax.tree.leaves(page["params"])}
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.shape in shapes]
    assert moments
    for leaf in jax.tree.leaves(state):
        assert leaf.shape not in shapes or leaf.sharding == page["spread"](leaf)
        assert leaf.ndim or leaf.sharding == page["whole"]


# What docs/checkpoints.md promises about versions.
FIELDS = {
    "heavy_ball_gd": "trace",
    "momentum_gd": "mu",
    "rmsprop": "nu",
    "uncorrected_adam": "mu nu",
    "adam": "mu count nu",
    "adamw": "mu count nu",
    "adam_l2": "mu count nu",
    "nadam": "mu count nu",
    "radam": "mu count nu",
    "adamax": "mu count nu",
    "amsgrad": "mu count nu nu_max",
    "adabelief": "mu count nu",
    "lion": "mu",
    "stable_adamw": "mu count nu",
}


@pytest.mark.parametrize("name", FIELDS)
def test_the_fields_of_a_state_stay_where_they_were_in_version_0_1(name):
    state = getattr(aj, name)(0.1).init(jnp.ones(2))
    assert type(state) is tuple
    fields = [field for part in state for field in part._fields]
    assert " ".join(fields) == FIELDS[name]

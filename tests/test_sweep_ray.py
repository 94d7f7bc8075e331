"""Sweeps on a Ray cluster; `ray_cases` has what needs one."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import ray_cluster

from adamw_jax import sweep

CASES = Path(__file__).with_name("ray_cases.py")


def isolated(*command):
    """A Python program in namespaces of its own."""
    if why := ray_cluster.refusal():
        pytest.skip(f"no namespaces for a cluster on this machine: {why}")
    return subprocess.run(
        [*ray_cluster.ISOLATED, sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=CASES.parents[1],
        env=os.environ | ray_cluster.ENVIRONMENT,
        timeout=1200,
    )


@pytest.mark.slow
def test_cases():
    done = isolated("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(CASES))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_without_a_cluster_none_is_started():
    program = "from adamw_jax import sweep; sweep.Ray().workers"
    done = isolated("-c", program)
    assert "ConnectionError: there is no Ray cluster" in done.stderr
    assert "`ray start --head`" in done.stderr


def test_sweeps_do_not_need_ray():
    program = "import sys; from adamw_jax import sweep; assert 'ray' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'adamw_jax\[ray\]', on every node"):
        sweep.Ray()


@pytest.mark.parametrize(
    "given, message",
    [
        ({"cpus": -1}, "cpus is what each worker has, from 0 on; got -1"),
        ({"gpus": -0.5}, "gpus is what each worker has, from 0 on; got -0.5"),
        ({"workers": 0}, "workers is at least 1, or None for no limit; got 0"),
    ],
)
def test_numbers_out_of_range(given, message):
    with pytest.raises(ValueError) as told:
        sweep.Ray(**given)
    assert str(told.value) == message


@pytest.mark.parametrize("given", [{"gpus": 1}, {"gpus": 0.5}, {"resources": {"TPU": 4}}])
def test_a_program_stays_off_the_accelerators_of_its_workers(given):
    before = jax.config.values["jax_platforms"]
    jax.config.update("jax_platforms", None)
    try:
        with pytest.raises(RuntimeError, match="start it with JAX_PLATFORMS=cpu"):
            sweep.Ray(**given)
        jax.config.update("jax_platforms", "cpu")
        sweep.Ray(**given)
    finally:
        jax.config.update("jax_platforms", before)

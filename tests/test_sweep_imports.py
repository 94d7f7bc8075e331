"""What an import of the engine brings and changes, and what it does where a module is missing."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "script",
    [
        """
import jax
before = dict(jax.config.values)
import adamw_jax
assert "pyarrow" not in sys.modules and "adamw_jax.sweep" not in sys.modules
import adamw_jax.sweep
assert "pyarrow" not in sys.modules
assert dict(jax.config.values) == before
""",
        """
sys.modules["pyarrow"] = None
from adamw_jax import sweep
run = sweep.Run(lambda h, key, data: h, lambda h, data: (h, h["x"] * data), 2)
halving = sweep.Halving("metric", (1,))
results = sweep.sweep(run, sweep.product(x=[1.0, 2.0]), 3.0, halving=halving, progress=False)
assert [r.metrics["metric"].tolist() for r in results] == [[3.0, 3.0], [6.0]], results
""",
        """
import jax, pyarrow
sys.modules["fcntl"] = None  # as on Windows
from adamw_jax import sweep
run = sweep.Run.whole(lambda h, key, data: h["x"])
grid = sweep.product(x=[1.0])
assert len(sweep.sweep(run, grid, progress=False)) == 1
try:
    sweep.sweep(run, grid, cache="cache", progress=False)
except sweep.StoreError as error:
    assert "needs file locks (Python's fcntl)" in str(error), error
    assert "without `output` and `cache`" in str(error).lower(), error
else:
    raise AssertionError("it was kept without a lock")
assert sweep.kept("cache", grid) is None
""",
    ],
    ids=["an import changes no settings", "no output takes no pyarrow", "no locks, no output"],
)
def test_in_a_process_of_its_own(script, tmp_path):
    command = [sys.executable, "-W", "error", "-c", f"import sys\n{script}"]
    path = {"PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    options = {"cwd": tmp_path, "env": os.environ | path}
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr

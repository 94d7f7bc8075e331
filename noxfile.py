"""Tests what pyproject.toml promises; each session has its own environment.

`nox` runs everything on the Pythons that it finds, `nox --list` shows the sessions, and
`nox --session "tests-3.13(newest)" -- tests/test_core.py` runs one of them in part.
"""

from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
ONE_STEP = """
import adamw_jax as aj, adamw_jax.sweep, jax.numpy as jnp, optax
θ = jnp.ones(3)
optimizer = aj.adamw(1e-3)
updates, _ = optimizer.update(θ, optimizer.init(θ), θ)
assert (optax.apply_updates(θ, updates) < θ).all()
print(aj.__version__, "from", aj.__file__)
"""


@nox.session(python=PYTHONS)
@nox.parametrize("versions", ["oldest", "newest"], ids=["oldest", "newest"])
def tests(session, versions):
    """Runs the tests with the oldest JAX and Optax that the project takes, or with the newest."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    oldest = [name.replace(">=", "==") for name in project["dependencies"]]
    session.install("-e", ".[test]", *(oldest if versions == "oldest" else []))
    session.run("python", "-m", "pip", "list")
    session.run("python", "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session(python=PYTHONS[-1])
@nox.parametrize("ending", [".tar.gz", ".whl"], ids=["sdist", "wheel"])
def package(session, ending):
    """Installs the sdist or wheel by itself and takes a step with it, outside the checkout."""
    session.install("build", "twine")
    folder = Path(session.create_tmp()).resolve()
    session.run("python", "-m", "build", "--outdir", str(folder))
    (archive,) = folder.glob(f"adamw_jax-*{ending}")
    session.run("python", "-m", "twine", "check", "--strict", str(archive))
    session.install(str(archive))
    session.chdir(folder)
    session.run("python", "-I", "-c", ONE_STEP)

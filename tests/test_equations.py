"""The equations that optimizers write, evaluated beside the optimizers themselves."""

import ast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES

import adamw_jax as aj
from adamw_jax.notation.calls import remade
from adamw_jax.notation.derivation import Group

FUNCTIONS = {
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sign": np.sign,
    "max": np.maximum,
    "mean": np.mean,
    "indicator": np.float64,
}


def assigned(lines, rule):
    """The lines that hold for the parameters of a group."""
    for line in lines:
        if not isinstance(line, Group):
            yield line
        elif line.rule == rule:
            yield from assigned(line.lines, rule)


def values_in(equations, rule):
    groups = [line for line in equations.lines if isinstance(line, Group) and line.rule == rule]
    return equations.values | {k: v for group in groups for k, v in group.values.items()}


def evaluated(equations, θ, gradients, rule=None, **known):
    """θ after every step, in float64."""
    lines = list(assigned(equations.lines, rule))
    names = {name: remade(value) for name, value in values_in(equations, rule).items()} | known
    memory = {line.name: np.zeros_like(θ) for line in lines} | {"θ": θ}
    for t, g in enumerate(gradients, 1):
        memory |= {"t": t, "g": g}
        for name, tree in lines:
            code = compile(ast.fix_missing_locations(ast.Expression(tree)), "equations", "eval")
            memory[name] = eval(code, FUNCTIONS | names | memory)
        yield memory["θ"]


def taken(tx, θ, gradients):
    """θ after every step that an optimizer takes, in float64."""
    with jax.enable_x64(True):
        state, params = tx.init(jnp.asarray(θ)), jnp.asarray(θ)
        for g in gradients:
            updates, state = tx.update(jnp.asarray(g), state, params)
            params = optax.apply_updates(params, updates)
            yield np.asarray(params)


def check(tx, θ, gradients, **options):
    with np.errstate(invalid="ignore"):  # RAdam's r has no value in the first steps
        for expected, got in zip(
            taken(tx, θ, gradients),
            evaluated(aj.equations(tx), θ, gradients, **options),
            strict=True,
        ):
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


@pytest.fixture
def run():
    rng = np.random.default_rng(0)
    return rng.normal(size=5), rng.normal(size=(8, 5)) * 10.0 ** rng.uniform(-3, 1, size=5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_rule_is_what_the_optimizer_does(case, run):
    with jax.enable_x64(True):
        check(case.tx(), *run, rule="path('*')", mask=0.0)


@pytest.mark.parametrize("case", [case for case in CASES if case.scheduled], ids=str)
def test_with_schedules(case, run):
    schedules = {
        name: lambda step, value=case.numbers[name]: value * 0.9 ** jnp.asarray(step, float)
        for name in case.scheduled
    }
    with jax.enable_x64(True):
        check(case.tx(**schedules), *run, mask=0.0)


def test_adam():
    assert str(aj.equations(aj.adam(1e-3))).splitlines() == [
        "m ← m + (1 − β₁)(g − m)",
        "m̂ ← m / (1 − β₁ᵗ)",
        "v ← v + (1 − β₂)(g² − v)",
        "v̂ ← v / (1 − β₂ᵗ)",
        "θ ← θ − α m̂ / (√v̂ + ε)",
    ]


def test_adamw():
    *moments, step, values = str(aj.equations(aj.adamw(1e-3), values=True)).splitlines()
    assert moments == str(aj.equations(aj.adam(1e-3))).splitlines()[:-1]
    assert step == "θ ← θ − α (m̂ / (√v̂ + ε) + λ θ)"
    assert values == "β₁ = 0.9, β₂ = 0.999, ε = 10⁻⁸, λ = 0.0001, α = 0.001"

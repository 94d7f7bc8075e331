"""What comes out of every piece, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES
from evaluation import evaluated, flat
from flax import nnx

import adamw_jax as aj
from adamw_jax.notation.typesetting import Text


def test_adamw_by_hand():
    values = aj.inner_values(aj.adamw(0.5, 0.5, 0.75, 0.0, weight_decay=0.1), 1.0, [1, 2])
    assert {name: column.tolist() for name, column in values.columns.items()} == {
        "t": [1, 2],
        "θ": pytest.approx([1, 0.45]),
        "g": [1, 2],
        "m": [0.5, 1.25],
        "m̂": pytest.approx([1, 5 / 3]),
        "v": pytest.approx([0.25, 1.1875]),
        "v̂": pytest.approx([1, 19 / 7]),
        "rms_ratio": pytest.approx([1, 5 / 3 / (19 / 7) ** 0.5]),
        "decoupled_weight_decay": pytest.approx([1.1, 5 / 3 / (19 / 7) ** 0.5 + 0.045]),
        "Δθ": pytest.approx([-0.55, -0.5 * (5 / 3 / (19 / 7) ** 0.5 + 0.045)]),
    }


def test_it_prints_as_a_table():
    values = aj.inner_values(aj.momentum_gd(0.5, 0.5), 1.0, lambda x: 2 * x, steps=2)
    assert str(values).splitlines() == [
        "t    θ  g  m    Δθ",
        "1    1  2  1  -0.5",
        "2  0.5  1  1  -0.5",
    ]


def test_of_a_long_table_it_prints_the_ends():
    values = aj.inner_values(aj.gd(0.5), 1.0, jnp.zeros(1000))
    lines = str(values).splitlines()
    assert len(values) == 1000 and len(lines) < 20
    assert lines[1].split() == ["1", "1", "0", "-0"] and lines[-1].split()[0] == "1000"
    assert len({len(line) for line in lines}) == 1


def test_a_hat_may_be_typed_in_either_way():
    values = aj.inner_values(aj.nadam(0.1), 1.0, [1.0])
    assert values["g\u0302"] is values["\u011d"]
    with pytest.raises(KeyError, match="no column 'n̂'; there are t, θ, g, m"):
        values["n̂"]


KEEP_M_INSIDE = {
    *("partition", "momentum nesterov", "heavy_ball nesterov", "heavy_ball_gd nesterov", "muon")
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_column_has_the_values_that_the_equations_assign_to_its_name(case):
    tx, gradients = case.tx(), [0.5, -2.0, 1.0, 0.25, -0.125, 1.5, 3.0]
    values = aj.inner_values(tx, jnp.ones((1, 1)), np.reshape(gradients, (-1, 1, 1)), index=(0, 0))
    names = [line.name for line in flat(aj.equations(tx), "path('*')")[0]]
    with np.errstate(invalid="ignore"):
        after = evaluated(aj.equations(tx), np.float64(1), gradients, "path('*')", mask=1)
        after = [dict.fromkeys(names, 0.0) | {"θ": 1.0}, *after]
    compared = {name for name in names if Text().symbol(name) in values.columns}
    # What stays inside a piece has no column.
    inside = {"ρ_inf", "ρ", "r", "s", "c", "e"} | ({"m"} if case.name in KEEP_M_INSIDE else set())
    assert compared == set(names) - inside - {"α", "λ", "η", "β2"}
    for name in compared:
        # A column has what a piece puts out: for θ, and for a moment from before g, the old value.
        is_old = name == "θ" or (name in ("m", "v") and names.index(name) > names.index("θ"))
        expected = [memory[name] for memory in (after[:-1] if is_old else after[1:])]
        np.testing.assert_allclose(values[Text().symbol(name)], expected, rtol=2e-5, atol=1e-6)


def test_every_value_has_a_column_of_its_own():
    m = aj.momentum(0.5)
    squares = aj.parallel(aj.chain(), merge=jnp.square)
    tx = aj.chain(m, m, squares, squares, aj.chain(aj.gd(0.1), aj.temporal_average(0.5)))
    values = aj.inner_values(tx, 0.0, [2.0])
    assert {name: column.item() for name, column in values.columns.items()} == pytest.approx(
        {"t": 1, "θ": 0, "g": 2, "m": 1, "m₂": 0.5, "square": 0.25, "square_2": 0.0625}
        | {"θ̄": -0.00625, "Δθ": -0.00625}
    )


def network():
    model = nnx.Sequential(nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 1, rngs=nnx.Rngs(1)))
    return nnx.split(model)


@pytest.mark.parametrize("mask", [None, aj.decay_except()], ids=["all", "masked"])
def test_in_a_network_they_are_those_of_a_usual_loop(mask):
    definition, params = network()
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(6, 8, 3)), rng.normal(size=(6, 8, 1))
    batches = jnp.float32(inputs), jnp.float32(targets)

    def gradient(params, batch):
        x, y = batch
        return jax.grad(lambda p: jnp.mean((nnx.merge(definition, p)(x) - y) ** 2))(params)

    tx = aj.adamw(optax.linear_schedule(0.1, 0.0, 6), weight_decay=0.5, mask=mask)
    values = aj.inner_values(
        tx, params, gradient, batches=batches, path="layers/0/kernel", index=(2, -1)
    )
    state, seen = tx.init(params), []

    def at(tree):
        return tree["layers"][0]["kernel"][...][2, -1]

    for batch in zip(*batches, strict=True):
        g = gradient(params, batch)
        updates, state = tx.update(g, state, params)
        mu, nu = optax.tree.get(state, "mu"), optax.tree.get(state, "nu")
        seen.append([at(tree) for tree in (params, g, mu, nu, updates)])
        params = optax.apply_updates(params, updates)
    for name, expected in zip(("θ", "g", "m", "v", "Δθ"), np.transpose(seen), strict=True):
        np.testing.assert_allclose(values[name], expected, rtol=1e-5, atol=1e-7)


def test_half_precision_is_shown_as_it_is_computed():
    values = aj.inner_values(aj.adam(0.1), jnp.bfloat16(1.0), [0.1])
    assert values["θ"].dtype == np.float32
    assert values["v"][0] == pytest.approx(0.001 * float(jnp.bfloat16(0.1)) ** 2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "a gradient function needs either steps or batches, got steps=None and no batches"),
        ({"steps": 2, "batches": [1.0]}, "got steps=2 and some batches"),
        ({"steps": 0}, "steps must be a number in [1, 2³¹) and whole, got 0"),
        ({"gradients": [1.0], "steps": 1}, "leave out steps and batches"),
        ({"steps": 1, "path": "b"}, "path must be one of these, got 'b':\n  w  (weight)"),
        ({"steps": 1, "index": 2}, "index must pick one number of an array of shape=(2,), got 2"),
        ({"steps": 1, "index": ()}, "index must pick one number of an array of shape=(2,), got ()"),
        (
            {"steps": 1, "gradients": lambda p: p["w"][0]},
            "a gradient must have the parameters' shapes [(2,)], got [()]",
        ),
        ({"steps": 1, "params": {"w": 1}}, "must be floating-point"),
        ({"steps": 1, "optimizer": aj.adam}, "inner_values takes gradient transformations"),
        (
            {"steps": 1, "params": {"w": jnp.ones(2), "b": jnp.ones(2)}},
            "path must be one of these, got None:\n  b  (bias)\n  w  (weight)",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    usual = {"optimizer": aj.adam(0.1), "params": {"w": jnp.ones(2)}, "index": 0}
    with pytest.raises(ValueError) as error:
        aj.inner_values(**usual | {"gradients": lambda p: p} | arguments)
    assert message in str(error.value)

"""The report of weight decay: in real models, of every sort of parameter, and as it prints."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from report_rows import HALVED, PARAMS, rows_of, taken_away
from transformer import MODELS, by_path, transformer

import adamw_jax as aj

# In real models


@pytest.mark.parametrize("model", MODELS)
def test_the_report_of_a_model_says_what_decays_and_how_fast(model):
    network = transformer(model)
    tx = aj.adamw(0.1, weight_decay=0.5, mask=aj.decay_except())
    rows = rows_of(tx, network.params, steps_per_epoch=10)
    assert {path: row.kind for path, row in rows.items()} == network.kinds
    for path, leaf in by_path(network.params).items():
        kernel = path in network.kernels
        assert rows[path].shape == leaf.shape
        np.testing.assert_allclose(rows[path].decay_per_step, 0.05 if kernel else 0, rtol=1e-5)
        np.testing.assert_allclose(rows[path].timescale, 2 if kernel else math.inf, rtol=1e-5)
        kind = network.kinds[path]
        assert rows[path].why == ("not left out" if kernel else f"left out by kind('{kind}')")


@pytest.mark.parametrize("model", [model for model in MODELS if "stacked" in model])
def test_the_report_of_groups_agrees_with_a_real_step_of_the_model(model):
    network = transformer(model)
    tx = aj.partition(
        {
            aj.kind("embedding"): aj.adam(0.1),
            "head/*": aj.adamw(0.1, weight_decay=0.5, mask=aj.decay_except()),
            "*norm*": aj.adam_prox(0.1, weight_decay=2.0),
            "*": aj.decayed_per_step(aj.lion(0.1, weight_decay=0), 0.02, mask=aj.decay_except()),
        }
    )
    compiled = tx._replace(update=jax.jit(tx.update))  # so many leaves take their time
    real = taken_away(compiled, network.params)
    for path, row in rows_of(tx, network.params).items():
        np.testing.assert_allclose(real[path], row.decay_per_step, rtol=1e-3, atol=3e-6)
        kind, decays = network.kinds[path], path in network.kernels
        if kind == "embedding":
            expected, why = 0, "in kind('embedding')"
        elif path.startswith("head/"):
            expected, why = 0.05 * decays, "in path('head/*'); "
        elif "norm" in path:
            expected, why = 0.2 / 1.2, "in path('*norm*')"
        else:
            expected, why = 0.02 * decays, "in path('*'); "
        if why.endswith("; "):
            why += "not left out" if decays else f"left out by kind({kind!r})"
        np.testing.assert_allclose(row.decay_per_step, expected, rtol=1e-4)
        assert row.why == why
        timescale = 1 / expected if expected else math.inf
        np.testing.assert_allclose(row.timescale, timescale, rtol=1e-4)


def test_a_report_of_abstract_parameters_is_that_of_real_ones():
    tx = aj.adamw(0.1, weight_decay=0.5, mask=aj.decay_except())
    for name in MODELS:
        params = transformer(name).params
        abstract = jax.eval_shape(lambda tree: tree, params)
        assert aj.decay_report(tx, abstract) == aj.decay_report(tx, params)


def test_a_model_too_large_for_any_memory_is_reported_all_the_same():
    params = {"kernel": jax.ShapeDtypeStruct((10**7, 10**7), jnp.float32)}
    report = aj.decay_report(aj.adamw(0.1), params)
    assert report.rows[0].shape == (10**7, 10**7)
    assert str(report).endswith(
        "1 of 1 arrays decay: 100,000,000,000,000 of 100,000,000,000,000 numbers"
    )


# Parameters of every sort


def test_parameters_of_every_dtype_and_shape_are_reported():
    params = {
        "bfloat16": jnp.ones((2, 3), jnp.bfloat16),
        "complex": jnp.ones(2, jnp.complex64),
        "float16": jnp.ones((1, 2, 3), jnp.float16),
        "frozen": None,
        "number": 3.0,
        "scalar": jnp.float32(2),
        "zero size": jnp.zeros((0, 2)),
    }
    rows = rows_of(aj.adamw(0.01, weight_decay=0.01), params)
    per_step = {path: row.decay_per_step for path, row in rows.items()}
    assert per_step.pop("zero size") == 0
    np.testing.assert_allclose(list(per_step.values()), 1e-4, rtol=2e-3)
    # Where a step would round the decay away, the report says so.
    too_small = {path for path, row in rows.items() if "too small" in row.why}
    assert too_small == {"bfloat16", "float16"}
    shapes = {path: row.shape for path, row in rows.items()}
    assert shapes == {
        "bfloat16": (2, 3),
        "complex": (2,),
        "float16": (1, 2, 3),
        "number": (),
        "scalar": (),
        "zero size": (0, 2),
    }
    lines = {line.split("  ")[0]: line for line in str(rows_table(rows)).splitlines()}
    assert "  number  yes" in lines["scalar"] and "  1×2×3   yes" in lines["float16"]


def rows_table(rows):
    return aj.DecayReport(tuple(rows.values()), "steps")


def test_an_empty_tree_and_a_lone_array_have_a_report():
    assert aj.decay_report(aj.adamw(0.1), {}).rows == ()
    assert str(aj.decay_report(aj.adamw(0.1), {})).endswith("0 of 0 arrays decay: 0 of 0 numbers")
    (row,) = aj.decay_report(aj.adamw(0.1, mask=aj.decay_only("")), jnp.ones(2)).rows
    assert (row.path, row.kind, row.why) == ("", None, "picked by path('')")
    assert "(the root)  ?" in str(rows_table({"": row}))


def test_the_parameters_are_not_touched():
    before = jax.tree.map(np.array, PARAMS)
    aj.decay_report(aj.adamw(0.1), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, PARAMS, before)


# As it prints

TABLE = """\
parameter  kind       shape   decays  λ per step  τ in steps  why
---------  ---------  ------  ------  ----------  ----------  --------------------------------------
bias       bias       2       no                              in path('*'); left out by kind('bias')
embedding  embedding  3×2     no                              in kind('embedding')
gain       other      number  yes     0.05        20          in path('*'); not left out
head/w     weight     2×2     ?                               in path('head/*')
kernel     weight     2×2     yes     0.05        20          in path('*'); not left out
2 of 5 arrays decay: 5 of 17 numbers
"""


def printed():
    tx = aj.partition(
        {
            aj.kind("embedding"): aj.adam(0.1),
            "head/*": aj.adam_l2(0.1),
            "*": aj.adamw(0.1, weight_decay=0.5, mask=aj.decay_except()),
        }
    )
    params = PARAMS["embed"] | PARAMS["layer"] | {"gain": jnp.float32(1)}
    params["head"] = {"w": jnp.ones((2, 2))}
    return aj.decay_report(tx, params)


def test_prints_as_a_table():
    # What is not a fraction is marked, and a last line explains the mark.
    table, mark, note = str(printed()).rpartition("?: ")
    assert table == TABLE and mark and "not a fixed fraction" in note


def test_columns_are_aligned_and_lines_end_without_blanks():
    head, rule, *body, _, _ = str(printed()).splitlines()
    starts = [0] + [i + 2 for i in range(len(rule) - 1) if rule[i : i + 2] == "  "]
    assert [head[start:].split("  ")[0] for start in starts] == [
        *("parameter", "kind", "shape", "decays", "λ per step", "τ in steps", "why")
    ]
    for line in body:
        assert all(line[start - 2 : start] == "  " for start in starts[1:])
        assert all(line[start] != " " for start in starts[:4])
    assert all(line == line.rstrip() for line in str(printed()).splitlines())


# What is refused


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, "469", 1j], ids=repr)
def test_steps_per_epoch_are_a_positive_number(bad):
    with pytest.raises(
        ValueError, match=r"^steps_per_epoch must be .* in \(0, ∞\), got "
    ) as caught:
        aj.decay_report(aj.adamw(0.1), PARAMS, steps_per_epoch=bad)
    assert repr(bad) in str(caught.value)


@pytest.mark.parametrize("bad", [-1, 2**31, 1.0, None, "0"], ids=repr)
def test_a_step_is_a_whole_number(bad):
    with pytest.raises(ValueError, match="^step must be a whole number") as caught:
        aj.decay_report(aj.adamw(0.1), PARAMS, step=bad)
    assert repr(bad) in str(caught.value)


def test_numbers_of_steps_may_be_numpys():
    tx = aj.adamw(HALVED, weight_decay=0.1)
    numbers = {"steps_per_epoch": np.float32(10), "step": np.int64(5)}
    assert aj.decay_report(tx, PARAMS, **numbers) == aj.decay_report(
        tx, PARAMS, steps_per_epoch=10, step=5
    )


@pytest.mark.parametrize("options", [{}, {"step": 3}, {"steps": 3}], ids=str)
def test_a_report_cannot_be_made_under_jit(options):
    with pytest.raises(ValueError, match=r"outside jax\.jit"):
        jax.jit(lambda rate: aj.decay_report(aj.adamw(rate), PARAMS, **options))(0.1)

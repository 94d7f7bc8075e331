"""The report of weight decay, against what is written down by hand and against real steps."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import CASES, decays_matrices
from transformer import MODELS, by_path, transformer

import adamw_jax as aj

PARAMS = {
    "embed": {"embedding": jnp.linspace(0.5, 2, 6).reshape(3, 2)},
    "layer": {"kernel": jnp.linspace(-2, -0.5, 4).reshape(2, 2), "bias": jnp.ones(2)},
}
HALVED = optax.linear_schedule(1.0, 0.0, 10)


def rows_of(tx, params=PARAMS, **options):
    return {row.path: row for row in aj.decay_report(tx, params, **options).rows}


def decays(tx, params=PARAMS, **options):
    return {path: row.decay_per_step for path, row in rows_of(tx, params, **options).items()}


def taken_away(tx, params, step=0):
    """The fraction 1 − θ'/θ that a real step without a gradient takes away, number by number."""
    zeros, state = jax.tree.map(jnp.zeros_like, params), tx.init(params)
    for _ in range(step + 1):
        updates, state = tx.update(zeros, state, params)
    after = optax.apply_updates(params, updates)
    return by_path(jax.tree.map(lambda old, new: 1 - new / old, params, after))


def check_against_a_real_step(tx, params, step=0):
    real, reported = taken_away(tx, params, step), decays(tx, params, step=step)
    assert reported.keys() == real.keys()
    for path, decay in reported.items():
        np.testing.assert_allclose(real[path], decay, rtol=1e-3, atol=3e-6, err_msg=path)


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


# How fast: what a step takes away of every parameter, by hand.
BY_LEARNING_RATE = {"weight_decay": 0.5}
PER_STEP = {"decay_per_step": 0.02, "schedule": 0.5}
TAKEN_AWAY = {
    "none at all": (aj.adam(0.1), 0),
    "zero": (aj.adamw(0.1, weight_decay=0), 0),
    "adamw": (aj.adamw(0.1, **BY_LEARNING_RATE), 0.05),
    "cautious": (aj.cautious_adamw(0.1, **BY_LEARNING_RATE), 0.05),
    "proximal": (aj.adam_prox(0.1, **BY_LEARNING_RATE), 0.05 / 1.05),
    "proximal, larger than one": (aj.adam_prox(1.0, weight_decay=4.0), 0.8),
    "per step": (aj.decayed_per_step(aj.adam(0.1), **PER_STEP), 0.01),
    "sgdw": (aj.sgdw(0.1, **PER_STEP), 0.01),
    "adamwr": (aj.adamwr(0.1, 4, normalized_decay=0.05), 0.025),
    "L2 in plain descent": (aj.chain(aj.l2_regularization(0.5), aj.gd(0.1)), 0.05),
    "L2 before momentum": (aj.chain(aj.l2_regularization(0.5), aj.momentum_gd(0.1, 0.8)), 0.01),
    "twice": (aj.decayed_per_step(optax.adamw(0.1, **BY_LEARNING_RATE), 0.02), 0.07),
    "with an average": (
        aj.chain(aj.adamw(0.1, **BY_LEARNING_RATE), aj.temporal_average(0.9)),
        0.05,
    ),
    "optax.adamw": (optax.adamw(0.1, **BY_LEARNING_RATE), 0.05),
    "optax.sgd": (optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1)), 0.05),
    "after clipping": (
        optax.chain(optax.clip_by_global_norm(1.0), aj.adamw(0.1, **BY_LEARNING_RATE)),
        0.05,
    ),
    "inject_hyperparams": (optax.inject_hyperparams(aj.adamw)(0.1, **BY_LEARNING_RATE), 0.05),
    "apply_if_finite": (optax.apply_if_finite(aj.adamw(0.1, **BY_LEARNING_RATE), 3), 0.05),
}


@pytest.mark.parametrize("tx, expected", TAKEN_AWAY.values(), ids=TAKEN_AWAY)
def test_decays_and_timescales_are_what_a_step_takes_away(tx, expected):
    for row in rows_of(tx).values():
        np.testing.assert_allclose(row.decay_per_step, expected, rtol=1e-5)
        timescale = 1 / expected if expected else math.inf
        np.testing.assert_allclose(row.timescale, timescale, rtol=1e-5)
    check_against_a_real_step(tx, PARAMS)


@pytest.mark.parametrize("case", [c for c in CASES if "learning_rate" in c.numbers], ids=str)
def test_every_optimizer_is_reported_as_a_real_step_has_it(case):
    tx = case.tx()
    if case.name != "adam_l2":
        return check_against_a_real_step(tx, PARAMS)
    # Scaled, a decay is not a fraction: it takes the same from small parameters as from large ones.
    assert all(map(math.isnan, decays(tx).values()))
    once, twice = (taken_away(tx, jax.tree.map(lambda x, n=n: n * x, PARAMS)) for n in (1, 2))
    np.testing.assert_allclose(once["layer/kernel"], 2 * twice["layer/kernel"], rtol=1e-3)


MASKED = {
    "by rule": aj.adamw(0.1, **BY_LEARNING_RATE, mask=aj.decay_except()),
    "by function": aj.adamw(
        0.1,
        **BY_LEARNING_RATE,
        mask=lambda tree: {"embed": False, "layer": {"kernel": True, "bias": False}},
    ),
    "optax.masked": optax.masked(aj.adamw(0.1, **BY_LEARNING_RATE), aj.decay_except()),
    "optax.adamw": optax.adamw(0.1, **BY_LEARNING_RATE, mask=aj.decay_except()),
    "group": aj.partition({"*/kernel": aj.adamw(0.1, **BY_LEARNING_RATE), "*": optax.adam(0.1)}),
}


@pytest.mark.parametrize("tx", MASKED.values(), ids=MASKED)
def test_masks_of_every_kind_show(tx):
    got = decays(tx)
    np.testing.assert_allclose(got.pop("layer/kernel"), 0.05, rtol=1e-5)
    assert got == {"embed/embedding": 0, "layer/bias": 0}
    assert str(aj.decay_report(tx, PARAMS)).endswith("1 of 3 arrays decay: 4 of 12 numbers")


SCALED = {
    "adam_l2": aj.adam_l2(0.1, l2=0.5),
    "rmsprop": aj.chain(aj.l2_regularization(0.5), aj.rmsprop(0.1)),
    "Lion's sign": aj.chain(aj.l2_regularization(0.5), aj.lion(0.1)),
    "optax": optax.chain(optax.add_decayed_weights(0.5), optax.adam(0.1)),
}


@pytest.mark.parametrize("tx", SCALED.values(), ids=SCALED)
def test_l2_inside_an_adaptive_scaling_is_marked_as_no_fraction(tx):
    report = aj.decay_report(tx, PARAMS)
    for row in report.rows:
        assert math.isnan(row.decay_per_step) and math.isnan(row.timescale)
    *table, note = str(report).splitlines()
    assert all(line.endswith("  ?") for line in table[2:-1]) and note.startswith("?: ")


# η and λ at a step, in both conventions; a schedule for each.
SCHEDULED = {
    "learning rate": (aj.adamw(HALVED, weight_decay=0.1), 0.1),
    "weight_decay": (aj.adamw(1.0, weight_decay=lambda step: 0.1 * HALVED(step)), 0.1),
    "optax.adamw": (optax.adamw(HALVED, weight_decay=0.1), 0.1),
    "per step": (aj.decayed_per_step(aj.adam(0.1), 0.1, HALVED), 0.1),
    "group": (aj.partition({"*": aj.adamw(HALVED, weight_decay=0.1)}), 0.1),
    "sgdw": (aj.sgdw(0.1, decay_per_step=0.1, schedule=HALVED), 0.1),
}


@pytest.mark.parametrize("tx, start", SCHEDULED.values(), ids=SCHEDULED)
@pytest.mark.parametrize("step", [0, 5, 10])
def test_schedules_are_seen_at_a_step(tx, start, step):
    for decay in decays(tx, step=step).values():
        np.testing.assert_allclose(decay, start * (1 - step / 10), rtol=1e-5, atol=1e-9)
    check_against_a_real_step(tx, PARAMS, step)


def test_warm_restarts_are_seen_at_a_step():
    tx = aj.adamwr(0.1, 2, 2, normalized_decay=0.05)
    for step, eta, length in (0, 1, 2), (1, 0.5, 2), (2, 1, 4), (4, 0.5, 4), (6, 1, 8):
        np.testing.assert_allclose(
            list(decays(tx, step=step).values()), eta * 0.05 / length**0.5, rtol=1e-4
        )


def test_injected_schedules_are_seen_at_a_step():
    tx = optax.inject_hyperparams(aj.adamw)(HALVED, weight_decay=0.1)
    np.testing.assert_allclose(list(decays(tx, step=5).values()), 0.05, rtol=1e-5)


@pytest.mark.parametrize("steps, unit", [(None, "steps"), (10, "epochs"), (0.5, "epochs")])
def test_timescales_are_in_epochs_where_their_length_is_given(steps, unit):
    report = aj.decay_report(aj.adamw(0.1, weight_decay=0.5), PARAMS, steps_per_epoch=steps)
    assert report.unit == unit and f"τ in {unit}" in str(report).splitlines()[0]
    np.testing.assert_allclose([r.timescale for r in report.rows], 20 / (steps or 1), rtol=1e-5)


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


# Why: the rules that decided, and the group.
KERNEL_ONLY = aj.decay_only("*/kernel")
WHY = {
    "no mask": (aj.adamw(0.1), ["", "", ""]),
    "left out": (
        aj.adamw(0.1, mask=aj.decay_except("embed/*", aj.kind("bias"))),
        ["left out by path('embed/*')", "left out by kind('bias')", "not left out"],
    ),
    "the first rule": (
        aj.adam_prox(0.1, mask=aj.decay_except(aj.kind("embedding"), "*")),
        ["left out by kind('embedding')", "left out by path('*')", "left out by path('*')"],
    ),
    "picked": (
        aj.decayed_per_step(aj.adam(0.1), 0.1, mask=KERNEL_ONLY),
        ["not picked", "not picked", "picked by path('*/kernel')"],
    ),
    "groups": (
        aj.partition({"layer/*": aj.adamw(0.1, mask=KERNEL_ONLY), "*": optax.adamw(0.1)}),
        [
            "in path('*')",
            "in path('layer/*'); not picked",
            "in path('layer/*'); picked by path('*/kernel')",
        ],
    ),
    "deep inside": (
        aj.chain(optax.clip(1.0), aj.chain(aj.partition({"*": aj.gd(0.1)}))),
        ["in path('*')"] * 3,
    ),
    "groups in a group": (
        aj.partition({aj.path("*"): aj.partition({aj.kind("bias"): aj.gd(1), "*": aj.gd(2)})}),
        ["in path('*')", "in path('*'); in kind('bias')", "in path('*')"],
    ),
    "a function": (aj.adamw(0.1, mask=decays_matrices), ["a mask without rules"] * 3),
    "two masks": (
        aj.decayed_per_step(aj.adam_l2(0.1, mask=decays_matrices), 0.1, mask=KERNEL_ONLY),
        [
            *["a mask without rules; not picked"] * 2,
            "a mask without rules; picked by path('*/kernel')",
        ],
    ),
    "another library": (optax.adamw(0.1, mask=KERNEL_ONLY), ["", "", ""]),
}


@pytest.mark.parametrize("tx, expected", WHY.values(), ids=WHY)
def test_reasons_name_the_group_and_the_rule(tx, expected):
    assert [row.why for row in aj.decay_report(tx, PARAMS).rows] == expected


@pytest.mark.parametrize(
    "mask, expected",
    [
        ({"kernel": True, "bias": False}, "a mask without rules"),
        ({0: True, 1: False}, "a mask without rules"),
    ],
    ids=["names", "numbers"],
)
def test_a_mask_that_is_a_dictionary_is_no_partition(mask, expected):
    params = {key: jnp.ones((2, 2)) for key in mask}
    report = aj.decay_report(aj.adamw(0.1, mask=mask), params)
    assert [row.why for row in report.rows] == [expected] * 2


def test_a_rule_that_matches_nothing_is_an_error_here_too():
    with pytest.raises(ValueError, match=r"path\('no such'\) matches no parameter; there are:\n"):
        aj.decay_report(aj.adamw(0.1, mask=aj.decay_only("no such")), PARAMS)


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


# What is not a fraction of the parameters


def test_without_eps_a_step_without_a_gradient_is_undefined():
    report = aj.decay_report(aj.adamw(0.1, eps=0), PARAMS)
    assert all(np.isnan(row.decay_per_step) for row in report.rows)
    assert "eps = 0" in str(report)


def test_a_decay_too_large_for_the_dtype_is_undefined():
    assert all(map(math.isnan, decays(aj.adamw(1e30, weight_decay=1e30)).values()))


def test_functions_of_an_equinox_module_are_named_as_what_is_in_the_way():
    network = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="activation.*Leave them out"):
        decays(aj.gd(0.1), network)


def test_what_grows_does_not_decay():
    # A sign forgotten: optax.add_decayed_weights without the minus of the learning rate.
    report = aj.decay_report(optax.add_decayed_weights(0.1), PARAMS)
    for row in report.rows:
        np.testing.assert_allclose(row.decay_per_step, -0.1, rtol=1e-6)
        assert math.isnan(row.timescale)
    *table, total = str(report).splitlines()
    assert all("  grows   -0.1" in line and "nan" not in line for line in table[2:])
    assert total == "0 of 3 arrays decay: 0 of 12 numbers"

"""Why the report says that a parameter decays or does not: the group, and the rule."""

import jax.numpy as jnp
import optax
import pytest
from cases import decays_matrices
from report_rows import PARAMS

import adamw_jax as aj

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

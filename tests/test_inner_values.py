"""What comes out of every piece, step by step."""

import numpy as np
import pytest

import adamw_jax as aj


def test_adamw_by_hand():
    values = aj.inner_values(aj.adamw(0.5, 0.5, 0.75, 0.0, weight_decay=0.1), 1.0, [1.0, 2.0])
    assert {name: column.tolist() for name, column in values.columns.items()} == {
        "t": [1, 2],
        "θ": pytest.approx([1.0, 0.45]),  # 1 − 0.5 · (1 + 0.1 · 1)
        "g": [1, 2],
        "m": [0.5, 1.25],
        "m̂": pytest.approx([1, 1.25 / 0.75]),
        "v": pytest.approx([0.25, 0.75 * 0.25 + 0.25 * 4]),
        "v̂": pytest.approx([1, 1.1875 / 0.4375]),
        "rms_ratio": pytest.approx([1, (1.25 / 0.75) / (1.1875 / 0.4375) ** 0.5]),
        "decoupled_weight_decay": pytest.approx([1.1, 1.0116 + 0.045], abs=1e-4),
        "Δθ": pytest.approx([-0.55, -0.5 * 1.0566], abs=1e-4),
    }


def test_it_prints_as_a_table():
    values = aj.inner_values(aj.momentum_gd(0.5, 0.5), 1.0, lambda x: 2 * x, steps=2)
    assert str(values).splitlines() == [
        "t    θ  g  m    Δθ",
        "1    1  2  1  -0.5",
        "2  0.5  1  1  -0.5",
    ]
    assert np.array_equal(values["m"], [1, 1])

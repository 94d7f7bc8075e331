import numpy as np
import pytest

from experiments.harness.statistics import Difference


def test_the_interval_is_the_paired_t_interval():
    ours, base = np.array([1.0, 2.0, 4.0]), np.array([0.0, 2.0, 1.0])
    difference = Difference.of(ours, base)
    # Differences 1, 0, 3: mean 4/3, standard error √(7/3)/√3, t(0.975, 2) = 4.302653.
    margin = 4.302653 * np.sqrt(7 / 3 / 3)
    np.testing.assert_allclose(difference, (4 / 3, 4 / 3 - margin, 4 / 3 + margin), rtol=1e-6)
    assert difference.sign == 0
    assert Difference.of(base + [1, 1.1, 0.9], base).sign == 1
    assert Difference.of(base - [1, 1.1, 0.9], base).sign == -1
    assert Difference.of(base[:1] + 5, base[:1]).sign == 0  # one seed says nothing


def test_more_comparisons_widen_the_interval():
    ours, base = np.array([1.0, 2.0, 4.0, 3.0]), np.zeros(4)
    one, many = Difference.of(ours, base), Difference.of(ours, base, comparisons=20)
    assert many.low < one.low < one.mean == many.mean < one.high < many.high
    # t(1 − 0.025/20, 3 degrees) = 9.4649, standard error √(5/3)/2.
    assert many.high - many.mean == pytest.approx(9.4649 * np.sqrt(5 / 3) / 2, rel=1e-4)

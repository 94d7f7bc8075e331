import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.harness.statistics import (
    FLIPS,
    Difference,
    bootstrap_interval,
    holm,
    sign_flip_test,
)  # fmt: skip


def test_a_difference_says_how_much_and_whether():
    base = np.array([0.0, 2.0, 1.0, 5.0])
    up = Difference.of(base + [1, 1.1, 0.9, 1], base)
    assert up.mean == pytest.approx(1) and 0.9 < up.low < 1 < up.high < 1.1
    assert up.sign == 1 and Difference.of(base, base + [1, 1.1, 0.9, 1]).sign == -1
    assert Difference.of(base + [1, -1, 1, -0.5], base).sign == 0
    assert up.text(2) == f"+1.00 [{up.low:+.2f}, {up.high:+.2f}]"


@pytest.mark.parametrize(
    ("changes", "interval", "p"),
    [
        ([0.0] * 10, (0, 0), 1),
        ([2.0] * 3, (2, 2), 2 / 8),
        ([0.3 - 0.1, 0.2, 0.2], (0.2, 0.2), 2 / 8),  # equal but for rounding
        ([5.0], (-np.inf, np.inf), 1),
        ([1.0, np.nan, 2.0], (np.nan, np.nan), np.nan),
        ([1.0, np.inf, 2.0], (np.nan, np.nan), np.nan),
    ],
)
def test_seeds_that_agree_one_seed_and_a_diverged_run(changes, interval, p):
    difference = Difference.of(np.array(changes), np.zeros(len(changes)))
    np.testing.assert_allclose([difference.low, difference.high], interval, rtol=1e-12)
    np.testing.assert_equal(difference.p, p)
    assert difference.negligible(0.1) is (changes[0] == 0)


def test_the_sign_flip_test_counts_all_flips_of_a_few_seeds():
    # Of the eight sums ±1 ± 2 ± 4 two are as far from zero as 7, four as 5, six as 3, and all as 1.
    for changes, p in ([1, 2, 4], 2 / 8), ([-1, 2, 4], 4 / 8), ([1, -2, 4], 6 / 8):
        assert sign_flip_test(changes) == sign_flip_test(np.negative(changes)) == p
    assert sign_flip_test([1, 2, -4]) == 1
    assert sign_flip_test(np.arange(1, 11)) == 2 / 2**10


def test_the_sign_flip_test_samples_the_flips_of_many_seeds():
    assert sign_flip_test([1.0] * 30) == 1 / (FLIPS + 1)
    changes = np.random.default_rng(0).normal(0.3, 1, 30)
    p = sign_flip_test(changes)
    assert p == sign_flip_test(changes)
    assert p == pytest.approx(stats.ttest_1samp(changes, 0).pvalue, rel=0.1)


def test_without_an_effect_p_values_are_uniform():
    many = np.random.default_rng(0).normal(size=(1000, 8))
    assert stats.kstest([sign_flip_test(changes) for changes in many], "uniform").pvalue > 0.05


@pytest.mark.parametrize(("seeds", "covered"), [(10, 0.90), (30, 0.94)])
def test_intervals_cover_as_often_as_they_are_said_to(seeds, covered):
    many = 1 + np.random.default_rng(1).normal(size=(1000, seeds))
    low, high = np.transpose([bootstrap_interval(changes, 0.95) for changes in many])
    assert np.mean((low < 1) & (high > 1)) == pytest.approx(covered, abs=0.02)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=12))
def test_the_interval_holds_the_mean(changes):
    low, high = bootstrap_interval(changes, 0.9)
    wide = bootstrap_interval(changes, 0.99)
    slack = 1e-9 * np.abs(changes).max()
    assert wide[0] - slack <= low <= np.mean(changes) + slack
    assert np.mean(changes) - slack <= high <= wide[1] + slack


def test_a_difference_is_negligible_if_it_is_surely_small():
    changes = np.random.default_rng(0).normal(0.1, 0.3, 30)
    difference = Difference.of(changes, np.zeros(30))
    low, high = bootstrap_interval(changes, 0.9)
    assert difference.low < low < 0.1 < high < difference.high
    assert difference.negligible(1.01 * high) and not difference.negligible(0.99 * high)
    # An effect that is real may be negligible, and one that is not seen need not be.
    small = Difference.of(changes + 1, np.zeros(30))
    assert small.sign == 1 and small.negligible(2)
    noisy = Difference.of(100 * (changes - 0.1), np.zeros(30))
    assert noisy.sign == 0 and not noisy.negligible(1)


def test_equivalence_is_claimed_wrongly_in_one_of_twenty_cases():
    many = 1 + np.random.default_rng(0).normal(size=(1000, 30))  # the true mean is the margin
    claimed = [Difference(0, 0, 0, tuple(changes)).negligible(1) for changes in many]
    assert np.mean(claimed) == pytest.approx(0.05, abs=0.02)


def test_holm_adjusts_p_values_in_the_order_given():
    # 4 · 0.005; 3 · 0.01; 2 · 0.03; 0.04, but not below the last.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.5]), [1, 1])
    np.testing.assert_equal(holm([0.25, np.nan]), [0.5, np.nan])  # a diverged run
    assert len(holm([])) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_is_between_no_adjustment_and_bonferroni(p):
    adjusted = holm(p)
    assert (p <= adjusted).all() and (adjusted <= np.minimum(len(p) * np.array(p), 1)).all()
    order = np.argsort(p)
    assert (np.diff(adjusted[order]) >= 0).all()
    assert adjusted.min() == min(1, len(p) * min(p))

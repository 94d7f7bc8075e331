import numpy as np
import pytest
from made_up import measurements

from experiments import landscape
from experiments.landscape import Surface
from experiments.training.arms import L2, PER_STEP, TIMES_RATE, Arm


@pytest.mark.parametrize("values", [[1e-5, 1e-4, 3e-4, 1e-3], [0.1, 1.0], [3.0]])
def test_every_cell_has_its_value_inside(values):
    """Also the lowest, whose edge on a linear axis would lie below zero."""
    edges = landscape._edges(np.array(values))
    assert len(edges) == len(values) + 1 and edges[0] > 0
    assert (edges[:-1] < values).all() and (values < edges[1:]).all()


def test_a_surface_is_the_mean_error_over_rates_and_decays_and_a_diverged_run_is_wrong():
    pairs = [
        Arm(family, decay, rate)
        for family in (L2, TIMES_RATE, PER_STEP)
        for rate in (0.1, 0.2)
        for decay in (1.0, 2.0, 3.0)
    ]

    def value(metric, arm, seed, evaluation):
        diverged = arm.family == PER_STEP and arm.decay == 3.0 and seed == 1
        return np.nan if diverged else 1 - arm.learning_rate * arm.decay + 0.01 * (-1) ** seed

    l2, times_rate, per_step = landscape.surfaces(measurements(pairs, 2, value, evaluations=1))
    expected = 100 * np.outer([1, 2, 3], [0.1, 0.2])
    for surface in l2, times_rate:
        np.testing.assert_allclose(surface.error, expected)
        assert (surface.rates.tolist(), surface.decays.tolist()) == ([0.1, 0.2], [1, 2, 3])
    assert [s.family for s in (l2, times_rate, per_step)] == [L2, TIMES_RATE, PER_STEP]
    expected[2] = (expected[2] - 1) / 2 + 50
    np.testing.assert_allclose(per_step.error, expected)


def test_the_correlation_is_that_of_the_good_region():
    rates = decays = np.array([1.0, 10.0, 100.0])
    falling = np.array([[9.0, 2, 1], [2, 1, 2], [1, 2, 9]])
    assert Surface(L2, rates, decays, falling).correlation(1.5) == pytest.approx(-1 / 2)
    assert Surface(L2, rates, decays, np.ones((3, 3))).correlation(1) == pytest.approx(0)
    assert np.isnan(Surface(L2, rates, decays, falling).correlation(0.5))  # three cells are few


def test_what_is_lost_is_by_tuning_the_rate_at_the_least_decay():
    error = np.array([[3.0, 4.0], [2.0, 1.0]])
    surface = Surface(L2, np.array([0.1, 0.2]), np.array([1.0, 2.0]), error)
    assert surface.lost() == 1

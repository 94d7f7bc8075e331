"""Layouts: one that is measured, halves for want of memory, and rounds that fill chunks."""

import math

import jax
import numpy as np
import pytest
from sweep_counting import alone, counting, quiet

from adamw_jax.sweep import Layout, product


@pytest.mark.parametrize("runs, devices", [(1, 1), (3, 1), (3, 4), (20, 2)])
def test_a_measured_layout_fits_the_number_of_runs(runs, devices):
    rows = product(rate=[0.1], seed=range(runs))
    results = quiet(counting(2), rows, layout=None, devices=jax.devices()[:devices])
    assert len(results) == runs and len({result.lanes for result in results}) == 1
    assert 1 <= results[0].lanes * devices <= 4 * max(runs, devices)
    for row, result in zip(rows, results, strict=True):
        expected = alone(counting(2), row)
        for name, values in expected.items():
            np.testing.assert_allclose(result.metrics[name], values, rtol=1e-5)


@pytest.mark.parametrize(
    "layout, halves",
    [
        (Layout(8, 3), [Layout(4, 3), Layout(2, 3), Layout(1, 3), Layout(1, 1)]),
        (Layout(3, 1), [Layout(1, 1)]),
        (Layout(1, 4), [Layout(1, 2), Layout(1, 1)]),
    ],
)
def test_layouts_halve_until_a_single_run_is_left(layout, halves):
    for half in halves:
        layout = layout.halved()
        assert layout == half
    with pytest.raises(MemoryError, match="a single run does not fit"):
        layout.halved()


@pytest.mark.parametrize("runs", [1, 4, 5, 8, 9, 100])
@pytest.mark.parametrize("devices", [1, 2])
def test_rounds_fill_the_fewest_chunks_evenly(runs, devices):
    layout = Layout(4, 6).within(runs, devices)
    chunks = math.ceil(runs / Layout(4, 6).width(devices))
    assert layout.lanes == 4 and 1 <= layout.rounds <= 6
    assert math.ceil(runs / layout.width(devices)) == chunks
    # With a round less they would not fit.
    assert layout.rounds == 1 or chunks * (layout.rounds - 1) * 4 * devices < runs

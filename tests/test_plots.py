"""What all figures share."""

import matplotlib
import numpy as np
import pytest

from experiments.harness import plots


def drawn(ends, log=False):
    """An axis with a line to each end, named a, b, …, and where the names are, in points."""
    figure, ((axis,),) = plots.subplots(1)
    lines = [axis.plot([0, 1], [1, end])[0] for end in ends]
    axis.set_ylim(0.5, 10)
    if log:
        axis.set_yscale("log")
    plots.label_ends(axis, list(zip(lines, "abcd", strict=False)))
    figure.draw_without_rendering()
    names = {text.get_text(): text for text in axis.texts}
    boxes = {name: text.get_window_extent() for name, text in names.items()}
    # Of the axis, since names are beside it.
    assert all(box.x0 > axis.bbox.x1 for box in boxes.values())
    colors = [names[name].get_color() for name in sorted(names)]
    assert colors == [line.get_color() for line in lines]
    points = 72 / figure.dpi
    at = {name: points * (box.y0 + box.y1) / 2 for name, box in boxes.items()}
    return at, lambda y: points * axis.transData.transform((1, y))[1]


@pytest.mark.parametrize("log", [False, True])
def test_names_stand_at_the_ends_of_their_lines(log):
    at, height = drawn([2, 8, 5], log)
    for name, end in zip("abc", (2, 8, 5), strict=True):
        assert at[name] == pytest.approx(height(end), abs=4)


def test_names_that_would_overlap_move_apart_and_no_further():
    at, height = drawn([5, 5.01, 9, 4.99])
    assert at["d"] < at["a"] < at["b"]
    gap = 1.2 * matplotlib.rcParams["font.size"]
    assert np.diff([at["d"], at["a"], at["b"]]) == pytest.approx([gap, gap], abs=3)
    assert at["a"] == pytest.approx(height(5), abs=4)
    assert at["c"] == pytest.approx(height(9), abs=4)


@pytest.mark.parametrize(("end", "edge"), [(np.nan, 10), (50, 10), (0.1, 0.5), (-1, 0.5)])
def test_lines_that_leave_the_axis_or_diverged_are_named_at_its_edge(end, edge):
    at, height = drawn([5, end])
    assert at["b"] == pytest.approx(height(edge), abs=4)


def test_a_title_makes_room_for_itself():
    figure, ((axis,),) = plots.subplots(1)
    figure.draw_without_rendering()
    before = axis.bbox.height
    plots.entitle(
        figure, "A finding that is so long that it does not fit into a single line of " * 2
    )
    figure.draw_without_rendering()
    assert axis.bbox.height == pytest.approx(before, rel=0.05)
    assert figure.get_suptitle().count("\n") == 2
    (text,) = figure.texts
    assert text.get_window_extent().x0 >= 0 and text.get_window_extent().x1 < figure.bbox.x1


def test_a_logarithmic_axis_may_end_at_a_multiple_of_the_least():
    for span, top in ((4, 0.4), (1e6, 100)):
        _, ((axis,),) = plots.subplots(1)
        axis.plot([0.1, 0.2, 100])
        plots.log_y(axis, span)
        assert top <= axis.get_ylim()[1] < 3 * top

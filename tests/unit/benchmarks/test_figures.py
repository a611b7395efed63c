"""Figures of `make bench`: slopes, and how many times its floor a value is."""

import pytest

from benchmarks.figures import figure, over_floor, quantile, slope


def test_a_slope_is_that_of_the_line_of_least_squares():
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(0, 0), (1, 1), (2, 0)]) == pytest.approx(0)


def test_a_figure_with_a_floor_says_how_many_times_that_it_is():
    assert over_floor(figure("hop", 3.0, "ms", target=5, floor=1.2)) == "2.50"
    assert over_floor(figure("hop", 3.0, "ms", target=5)) == ""
    assert over_floor(figure("hop", 3.0, "ms", target=5, floor=0)) == ""


def test_the_last_value_is_the_highest_quantile():
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile([3, 1, 2], 1) == 3
    assert quantile(range(10_000), 0.999) == 9_990

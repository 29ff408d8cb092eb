"""Line charts: scales, and values that are odd."""

import re

import pytest

from vargen.report import charts


def points(svg):
    return [
        [tuple(map(float, p.split(","))) for p in line.split()]
        for line in re.findall(r'points="([^"]*)"', svg)
    ]


def test_chart_is_linear_or_logarithmic():
    x = [0, 1, 2]
    for y, logarithmic in (([3, 2, 1], False), ([100, 10, 1], True)):
        raw = points(charts.chart("t", {"loss": (x, y)}))[0]
        assert raw[0][0] < raw[1][0] < raw[2][0] and raw[0][1] < raw[1][1] < raw[2][1]  # y grows downwards
        assert raw[1][1] - raw[0][1] == pytest.approx(raw[2][1] - raw[1][1], abs=0.2), logarithmic


@pytest.mark.parametrize("y", [[5.0, 5.0], [0.0, 0.0], [-1.0, 2.0], [1e-9, 1e9], [7.0]])
def test_chart_of_odd_values_stays_inside(y):
    for line in points(charts.chart("t", {"loss": (range(len(y)), y)})):
        assert all(0 <= a <= 460 and 0 <= b <= 260 for a, b in line)


def test_chart_of_nothing_is_empty():
    assert charts.chart("t", {"loss": ([], [])}) == charts.chart("t", {"loss": ([1], [float("nan")])}) == ""

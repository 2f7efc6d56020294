"""Curves: inside their box, honest about peaks, and nothing where there is nothing to draw."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from oncedrop_janitor.plot import HEIGHT, WIDTH, curve


def points(line: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", line)]


def test_a_line_goes_from_edge_to_edge_and_its_area_is_closed_below() -> None:
    drawn = curve([0, 10, 20], [0, 50, 100])
    assert points(drawn.line) == [(0, 120), (300, 62), (600, 4)]
    assert drawn.area == f"{drawn.line}L600.0 120L0.0 120Z"
    assert (drawn.most, drawn.last) == (100, 100)


def test_too_little_to_draw_is_no_line() -> None:
    assert curve([], []).line == ""
    assert curve([5], [7]) == curve([5, 5], [3, 7])
    assert curve([5], [7]).last == 7


def test_a_short_peak_among_many_points_is_seen() -> None:
    values = [1] * 2016
    values[777] = 1000
    assert min(y for _, y in points(curve(range(2016), values).line)) == 4


@given(st.lists(st.integers(0, 10**15), min_size=2, max_size=400))
def test_no_curve_leaves_its_box_or_grows_without_end(values: list[int]) -> None:
    drawn = points(curve(range(len(values)), values).line)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in drawn)
    assert 2 <= len(drawn) <= 151

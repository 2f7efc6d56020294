"""Curves of what was stored over time, as paths that a page draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 600
HEIGHT = 120
_POINTS_MOST = 150
# Room for the line's own width, above the highest point.
_TOP = 4


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve in a box of WIDTH and HEIGHT.

    Attributes:
        line: SVG path data of the line; empty when there are fewer than two points.
        area: The same, closed along the bottom.
        most: The highest value.
        last: The newest value.
    """

    line: str
    area: str
    most: int
    last: int


def curve(times: Sequence[int], values: Sequence[int]) -> Curve:
    """A curve through these points; of many that fall together the highest is shown.

    Args:
        times: In order, in any unit.
        values: As many, 0 or more.
    """
    most, last = max(values, default=0), values[-1] if values else 0
    if len(values) < 2 or times[0] == times[-1]:  # noqa: PLR2004  a line has two ends
        return Curve("", "", most, last)
    span = times[-1] - times[0]
    highest: dict[int, tuple[int, int]] = {}
    for at, value in zip(times, values, strict=True):
        bucket = (at - times[0]) * _POINTS_MOST // span
        if bucket not in highest or value >= highest[bucket][1]:
            highest[bucket] = (at, value)
    scale = (HEIGHT - _TOP) / (most or 1)
    points = [
        f"{(at - times[0]) * WIDTH / span:.1f} {HEIGHT - value * scale:.1f}"
        for at, value in highest.values()
    ]
    line = "M" + "L".join(points)
    first_x, last_x = (point.partition(" ")[0] for point in (points[0], points[-1]))
    return Curve(line, f"{line}L{last_x} {HEIGHT}L{first_x} {HEIGHT}Z", most, last)

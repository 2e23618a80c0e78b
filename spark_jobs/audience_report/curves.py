"""The curve of a score over k, as the coordinates of an SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 480, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 468, 18, 190  # of the lines


@dataclass(frozen=True)
class Point:
    """A value, and where it is."""

    k: int
    value: float
    x: float
    y: float
    chosen: bool


@dataclass(frozen=True)
class Curve:
    """A curve: its points, the heights of the grid's lines with their labels, and the score's name."""

    points: Sequence[Point]
    grid: Sequence[tuple[float, str]]
    score: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = _RIGHT
    bottom: int = _BOTTOM

    @property
    def line(self) -> str:
        """The points of a polyline."""
        return " ".join(f"{point.x:g},{point.y:g}" for point in self.points)

    @property
    def chosen(self) -> Point | None:
        """The point of the k that was chosen."""
        return next((point for point in self.points if point.chosen), None)


def curve(
    points: Sequence[tuple[int, float]], chosen: int, score: str, at_least: tuple[float, float] | None = None
) -> Curve:
    """The curve through at least two points of k and value, on a scale that has at least these values."""
    values: list[float] = [*(value for _, value in points), *(at_least or ())]
    step = _round_step((max(values) - min(values)) or 1.0)
    low, high = math.floor(min(values) / step), math.ceil(max(values) / step)
    high += low == high
    first, last = points[0][0], points[-1][0]

    def y(steps: float) -> float:
        return round(_BOTTOM - (steps - low) / (high - low) * (_BOTTOM - _TOP), 1)

    def x(k: int) -> float:
        return round(_LEFT + 14 + (k - first) / (last - first) * (_RIGHT - _LEFT - 28), 1)

    return Curve(
        [Point(k, value, x(k), y(value / step), k == chosen) for k, value in points],
        [(y(line), f"{line * step:.6g}") for line in range(low, high + 1)],
        score,
    )


def _round_step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that three to six lines cover the span."""
    power: float = 10.0 ** math.floor(math.log10(span / 3))
    return next(power * times for times in (1, 2, 5, 10) if span / (power * times) <= 5)

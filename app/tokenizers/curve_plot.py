"""Where the points and axes of the curve of bytes per token lie in its drawing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 200  # of the drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 32, 26, 12, 30  # margins
MAX_LABELS = 5  # of vocabulary sizes


@dataclass(frozen=True)
class PlottedPoint:
    """A vocabulary size with its bytes per token, and its place."""

    vocab_size: int
    bytes_per_token: float
    x: float
    y: float


@dataclass(frozen=True)
class CurvePlot:
    """The drawing: its points, the labels of both axes as (place, value), and the line through the points."""

    points: list[PlottedPoint]
    x_labels: list[tuple[float, int]]
    y_labels: list[tuple[float, int]]

    @property
    def line(self) -> str:
        """The points of an SVG polyline."""
        return " ".join(f"{point.x:.1f},{point.y:.1f}" for point in self.points)


def plot(curve: Sequence[tuple[int, float]]) -> CurvePlot | None:
    """Lay out a curve: sizes by their logarithm, bytes from 0. None for a curve of fewer than two points."""
    if len(curve) < 2:
        return None
    first, last = math.log2(curve[0][0]), math.log2(curve[-1][0])
    top = math.ceil(max(value for _size, value in curve))

    def x(size: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log2(size) - first) / (last - first)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top

    powers = [2**n for n in range(math.ceil(first), math.floor(last) + 1)]
    step = math.ceil(len(powers) / MAX_LABELS)
    return CurvePlot(
        points=[PlottedPoint(size, value, x(size), y(value)) for size, value in curve],
        x_labels=[(x(size), size) for size in powers[::-step][::-1]] if powers else [],
        y_labels=[(y(value), value) for value in range(0, top + 1, max(1, math.ceil(top / 5)))],
    )

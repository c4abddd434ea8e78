"""The plot of a hyperparameter search: a vertical axis for each field and one for the loss, a line for each job."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 1000, 300
MARGIN = 40  # above and below the axes
TICK_DISTANCE = 20  # a line of text and some air


@dataclass(frozen=True)
class Axis:
    """An axis at `x` with its ticks: y and text of each."""

    title: str
    x: float
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class Line:
    """The line of a job as the points of an SVG polyline. `rank` is 0 for the lowest loss and 1 for the highest."""

    job_id: str
    name: str
    points: str
    rank: float


@dataclass(frozen=True)
class ParallelCoordinates:
    """The parts of the plot."""

    axes: list[Axis]
    lines: list[Line]


def plot(
    jobs: Sequence[tuple[str, str, float]], fields: Sequence[tuple[str, Sequence[str]]], loss_title: str
) -> ParallelCoordinates | None:
    """The plot of jobs (id, name, loss) over fields (title, value of each job); None with fewer than two jobs.

    Values that are all numbers lie on a linear axis, or a logarithmic one where they span more than a factor of 20;
    others at equal distances.
    """
    if len(jobs) < 2 or not fields:
        return None
    losses = [loss for _id, _name, loss in jobs]
    columns = [(title, *_positions(list(values))) for title, values in fields]
    columns.append((loss_title, *_positions([f"{loss:.4g}" for loss in losses])))
    gap = WIDTH / len(columns)
    xs = [gap * (index + 0.5) for index in range(len(columns))]
    order = sorted(losses)
    lines = [
        Line(
            job_id=job_id,
            name=name,
            points=" ".join(
                f"{x:.1f},{places[row]:.1f}" for x, (_title, places, _ticks) in zip(xs, columns, strict=True)
            ),
            rank=order.index(loss) / (len(order) - 1),
        )
        for row, (job_id, name, loss) in enumerate(jobs)
    ]
    axes = [Axis(title, x, ticks) for x, (title, _places, ticks) in zip(xs, columns, strict=True)]
    return ParallelCoordinates(axes, sorted(lines, key=lambda line: -line.rank))


def _positions(values: list[str]) -> tuple[list[float], list[tuple[float, str]]]:
    """The y of each value, and the ticks of the axis."""
    numbers = [_number(value) for value in values]
    if any(number is None for number in numbers):
        names = sorted(set(values))
        shares = {name: index / max(1, len(names) - 1) for index, name in enumerate(names)}
        return [_y(shares[value]) for value in values], [(_y(shares[name]), name) for name in names[:12]]
    finite = [number for number in numbers if number is not None]
    low, high = min(finite), max(finite)
    is_log = low > 0 and high / low > 20
    scale = (lambda number: math.log(number)) if is_log else (lambda number: number)
    span = scale(high) - scale(low) or 1.0
    places = [_y((scale(number) - scale(low)) / span) for number in finite]
    by_place = dict(sorted(zip(places, values, strict=True)))
    return places, _spread(list(by_place.items()))


def _spread(ticks: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Both ends, and those between that leave room for each other."""
    kept = ticks[:1]
    for tick in ticks[1:-1]:
        if min(abs(tick[0] - kept[-1][0]), abs(ticks[-1][0] - tick[0])) >= TICK_DISTANCE:
            kept.append(tick)
    return kept + ticks[-1:] if len(ticks) > 1 else kept


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _y(share: float) -> float:
    return HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN)

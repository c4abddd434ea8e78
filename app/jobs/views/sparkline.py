"""The small loss curve in lists of jobs (a sparkline), as the points of an SVG polyline."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.jobs.attempts import metrics

WIDTH, HEIGHT = 96, 24
_EDGE = 2


def losses(session: Session, *, job_ids: Sequence[str]) -> dict[str, list[float]]:
    """The training loss of each of these jobs that has one, reduced to about 60 values."""
    return metrics.overviews(session, job_ids=job_ids, series="loss", max_points=60)


def points(values: Sequence[float]) -> str:
    """The `points` attribute of the polyline; empty if there are fewer than two values."""
    if len(values) < 2:
        return ""
    low = min(values)
    x_scale = (WIDTH - 2 * _EDGE) / (len(values) - 1)
    y_scale = (HEIGHT - 2 * _EDGE) / ((max(values) - low) or 1)
    return " ".join(
        f"{_EDGE + index * x_scale:.1f},{HEIGHT - _EDGE - (value - low) * y_scale:.1f}"
        for index, value in enumerate(values)
    )

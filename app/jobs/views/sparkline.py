"""The small loss curve in lists of jobs (a sparkline), as the points of an SVG polyline."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.jobs.attempts import metrics

WIDTH, HEIGHT = 96, 24
_EDGE = 2


def loss(session: Session, *, job_id: str) -> list[float]:
    """The training loss of a job, reduced to about 60 values."""
    window = metrics.Window(0, metrics.last_step(session, job_id=job_id) + 1, 60)
    if window.end == 0:
        return []
    curve = metrics.curves(session, job_id=job_id, window=window, series=["loss"]).get("loss")
    return [value for value in curve.values if isinstance(value, float)] if curve else []


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

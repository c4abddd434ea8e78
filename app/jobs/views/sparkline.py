"""A curve the size of a word, as points of an SVG polyline."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.jobs.attempts import metrics

WIDTH, HEIGHT = 96, 24
_EDGE = 2


def loss(session: Session, *, job_id: str) -> list[float]:
    """The training loss of a job in few numbers."""
    window = metrics.Window(0, metrics.last_step(session, job_id=job_id) + 1, 60)
    if window.end == 0:
        return []
    curve = metrics.curves(session, job_id=job_id, window=window, series=["loss"]).get("loss")
    return [value for value in curve.values if isinstance(value, float)] if curve else []


def points(values: Sequence[float]) -> str:
    """The `points` attribute; empty where there is nothing to draw."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    across, up = (WIDTH - 2 * _EDGE) / (len(values) - 1), (HEIGHT - 2 * _EDGE) / ((high - low) or 1)
    return " ".join(f"{_EDGE + i * across:.1f},{HEIGHT - _EDGE - (v - low) * up:.1f}" for i, v in enumerate(values))

"""Steps that were trained twice: what came the second time against the first, and what that proves.

`Attempt.replay` holds {"until", "steps", "different", "worst", "first", "differs"}: the last repeated step, how many
were compared and differed, the largest relative difference, the first difference as [step, series, before, now], and
what of the machine was not as before.
"""

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.models import Attempt, MetricPoint
from trainer import events

SERIES = ("loss", "grad_norm")
TOLERANCE = 1e-4  # relative; only the order of sums may differ on another world size

Verdict = Literal["comparing", "exact", "equivalent", "different"]


def begin(earlier: Sequence[Attempt], *, reached: int, resume_step: int) -> dict[str, Any]:
    """What is known when an attempt begins; nothing where no step is trained twice.

    What differed in an earlier attempt still does where its steps are compared with those before it.
    """
    until = max([reached, *(attempt.reached_step for attempt in earlier)])
    if until <= resume_step:
        return {}
    differed = {name for a in earlier if a.replay.get("until", 0) > resume_step for name in a.replay["differs"]}
    found = {"steps": 0, "different": 0, "worst": 0.0, "first": None, "differs": sorted(differed)}
    return {"until": until, **found}


def compare(session: Session, attempt: Attempt, new: Sequence[events.Event]) -> None:
    """Compare new points with those of the attempts before."""
    found = dict(attempt.replay)
    if not found:
        return
    points = {}
    for event in new:
        if isinstance(event, events.ResumedEvent):
            found["differs"] = sorted({*found["differs"], *event.differs})
        elif isinstance(event, events.PointsEvent) and event.step <= found["until"] and "loss" in event.values:
            points[event.step] = event.values
    before = _before(session, attempt, list(points)) if points else {}
    for step, values in sorted(points.items()):
        if any((step, series) in before for series in SERIES):
            _add(found, step, values, before)
    attempt.replay = found


def _before(session: Session, attempt: Attempt, steps: list[int]) -> dict[tuple[int, str], float | str | None]:
    """The values of the last earlier attempt at each step."""
    query = select(MetricPoint).where(
        MetricPoint.job_id == attempt.job_id,
        MetricPoint.series.in_(SERIES),
        MetricPoint.step.in_(steps),
        MetricPoint.fence < attempt.fence,
    )
    rows = session.scalars(query.order_by(MetricPoint.fence))
    return {(row.step, row.series): row.nonfinite or row.value for row in rows}


def _add(found: dict[str, Any], step: int, values: dict[str, Any], before: dict[tuple[int, str], Any]) -> None:
    found["steps"] += 1
    is_different = False
    for series in SERIES:
        old, now = before.get((step, series)), values.get(series)
        if old == now or old is None or now is None:
            continue
        is_different = True
        if series == "loss":  # the norm of gradients moves more when sums are taken in another order
            found["worst"] = max(found["worst"], _relative(old, now))
        found["first"] = found["first"] or [step, series, old, now]
    found["different"] += is_different


def _relative(old: float | str, now: float | str) -> float:
    if isinstance(old, str) or isinstance(now, str):
        return 1.0
    return abs(now - old) / max(abs(old), abs(now), 1e-30)


def determinism_verdict(attempt: Attempt) -> Verdict | None:
    """What the comparison says; None where no step was trained twice."""
    found = attempt.replay
    if not found:
        return None
    if found["different"] and (found["worst"] > TOLERANCE or not found["differs"]):
        return "different"
    if attempt.reached_step < found["until"] and attempt.ended_at is None:
        return "comparing"
    if found["steps"] == 0:
        return None
    return "equivalent" if found["differs"] else "exact"

"""Steps that were trained twice: the second time compared with the first, and what that says about determinism."""

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.json_shapes import Replay, Value
from app.core.models import Attempt, MetricPoint
from trainer import events

SERIES = ("loss", "grad_norm")
TOLERANCE = 1e-4  # relative; on another number of processes only the order of sums differs

Verdict = Literal["comparing", "exact", "equivalent", "different"]
_Points = dict[tuple[int, str], Value | None]  # by step and series


def begin(earlier: Sequence[Attempt], *, reached: int, resume_step: int) -> Replay | None:
    """The comparison of an attempt that resumes after `resume_step`; None if it trains no step again.

    What differed in an earlier attempt still does where its steps are compared with those before it.
    """
    until = max([reached, *(attempt.reached_step for attempt in earlier)])
    if until <= resume_step:
        return None
    replays = [attempt.replay for attempt in earlier if attempt.replay is not None]
    differs = {name for replay in replays if replay.until > resume_step for name in replay.differs}
    return Replay(until=until, steps=0, different=0, worst=0.0, first=None, differs=sorted(differs))


def compare(session: Session, attempt: Attempt, new: Sequence[events.Event]) -> None:
    """Compare new points of an attempt with those of the attempts before."""
    replay = attempt.replay
    if replay is None:
        return
    points: dict[int, dict[str, Value]] = {}
    for event in new:
        if isinstance(event, events.ResumedEvent):
            replay = replay.model_copy(update={"differs": sorted({*replay.differs, *event.differs})})
        elif isinstance(event, events.PointsEvent) and event.step <= replay.until and "loss" in event.values:
            points[event.step] = event.values
    before = _before(session, attempt, list(points)) if points else {}
    for step, values in sorted(points.items()):
        if any((step, series) in before for series in SERIES):
            replay = _with_step(replay, step, values, before)
    attempt.replay = replay


def _before(session: Session, attempt: Attempt, steps: list[int]) -> _Points:
    """The values of the last earlier attempt at each step."""
    query = select(MetricPoint).where(
        MetricPoint.job_id == attempt.job_id,
        MetricPoint.series.in_(SERIES),
        MetricPoint.step.in_(steps),
        MetricPoint.fence < attempt.fence,
    )
    rows = session.scalars(query.order_by(MetricPoint.fence))
    return {(row.step, row.series): row.nonfinite or row.value for row in rows}  # type: ignore[misc]


def _with_step(replay: Replay, step: int, values: dict[str, Value], before: _Points) -> Replay:
    worst = replay.worst
    differences: list[tuple[int, str, Value, Value]] = []
    for series in SERIES:
        old = before.get((step, series))
        new = values.get(series)
        if old == new or old is None or new is None:
            continue
        differences.append((step, series, old, new))
        if series == "loss":  # the norm of gradients moves more when sums are taken in another order
            worst = max(worst, _relative_difference(old, new))
    return replay.model_copy(
        update={
            "steps": replay.steps + 1,
            "different": replay.different + bool(differences),
            "worst": worst,
            "first": replay.first or next(iter(differences), None),
        }
    )


def _relative_difference(old: Value, new: Value) -> float:
    if isinstance(old, str) or isinstance(new, str):
        return 1.0
    return abs(new - old) / max(abs(old), abs(new), 1e-30)


def determinism_verdict(attempt: Attempt) -> Verdict | None:
    """What the comparison says; None where no step was trained twice."""
    replay = attempt.replay
    if replay is None:
        return None
    if replay.different and (replay.worst > TOLERANCE or not replay.differs):
        return "different"
    if attempt.reached_step < replay.until and attempt.ended_at is None:
        return "comparing"
    if replay.steps == 0:
        return None
    return "equivalent" if replay.differs else "exact"

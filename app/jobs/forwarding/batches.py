"""What a tracker does not have of a job yet, read by the same cursor as live views: the lines of its journal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from app.core import i18n, job_failures
from app.core.account_models import User
from app.core.forwarding_models import JobForwarding
from app.core.models import TERMINAL, Job, MetricPoint
from app.jobs.attempts.effective_spec import effective_spec
from trainer.formats.metric_names import tag_of

MAX_POINTS = 1_000  # of a batch; more only if one line of a journal has more


@dataclass(frozen=True)
class Batch:
    """The next lines of a job's journal as the clients of trackers get them, and the cursor after them.

    A row is a line: its step, its time in milliseconds since 1970, its values by name (nan, inf and -inf as words).
    """

    job: dict[str, Any]
    rows: list[tuple[int, int, dict[str, float | str]]]
    fence: int
    seq: int
    steps: dict[str, int]
    is_over: bool  # these are the last lines of a job that has ended
    is_full: bool  # there are probably more

    @property
    def is_sent(self) -> bool:
        """Whether there is anything to tell: a job that never began has no run."""
        return bool(self.rows) or (self.is_over and self.job["started"] is not None)


def read(session: Session, row: JobForwarding) -> Batch:
    """What follows the cursor of a row.

    A step that is trained again after a recovery is forwarded once, as it was the first time: no tracker can take a
    value back. So a line always gives the same row, however often and in whatever batches it is read.
    """
    job = session.get_one(Job, row.job_id, populate_existing=True)
    has_ended = job.state in TERMINAL  # before the points are read: none comes afterwards
    points = _points(session, row)
    is_full = len(points) == MAX_POINTS
    lines = [list(group) for _line, group in groupby(points, key=lambda point: (point.fence, point.seq))]
    if is_full and len(lines) > 1:
        lines.pop()  # it may be incomplete
    steps = dict(row.steps)
    rows = [_row(job, line, steps) for line in lines]
    last = lines[-1][-1] if lines else row
    is_over = has_ended and not is_full
    return Batch(_job(session, job), [r for r in rows if r[2]], last.fence, last.seq, steps, is_over, is_full)


def _points(session: Session, row: JobForwarding) -> Sequence[Any]:
    place = tuple_(MetricPoint.fence, MetricPoint.seq)
    query = select(
        *(MetricPoint.fence, MetricPoint.seq, MetricPoint.step, MetricPoint.series),
        *(MetricPoint.value, MetricPoint.nonfinite, MetricPoint.at),
    ).where(MetricPoint.job_id == row.job_id, place > (row.fence, row.seq))
    return session.execute(query.order_by(*place, MetricPoint.series).limit(MAX_POINTS)).all()


def _row(job: Job, line: Sequence[Any], steps: dict[str, int]) -> tuple[int, int, dict[str, float | str]]:
    """The new values of a line, whose steps are noted in `steps`."""
    new = [point for point in line if point.step > steps.get(point.series, -1)]
    steps.update({point.series: point.step for point in new})
    at = line[0].at or job.started_at or job.created_at
    return line[0].step, milliseconds(at), {tag_of(point.series): point.nonfinite or point.value for point in new}


def milliseconds(at: datetime) -> int:
    """Milliseconds since 1970."""
    return round(at.timestamp() * 1000)


def _job(session: Session, job: Job) -> dict[str, Any]:
    with i18n.use_locale("en"):
        failure = job_failures.explain(job.failure_code, job.failure) if job.failure_code else None
    return {
        "id": job.id,
        "name": job.name,
        "owner": session.get_one(User, job.owner_id).name,
        "tags": job.tags,
        "notes": job.notes,
        "state": job.state,
        "failure": failure,
        "created": milliseconds(job.created_at),
        "started": milliseconds(job.started_at) if job.started_at else None,
        "finished": milliseconds(job.finished_at) if job.finished_at else None,
        "parameters": _flat(effective_spec(job).model_dump(mode="json")),
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields under dotted names, as trackers compare them."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return flat

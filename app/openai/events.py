"""The events of a job under /v1: its history and what it measured, in the order in which they were recorded.

The ID of an event is its place: the attempt, the line of the attempt's journal, and for what is no line of the journal
itself its number in the history. So a page that starts after an event is the same whatever has been added since, and
also where its points were archived, because a later attempt trains these steps again.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from app.core import job_failures
from app.core.errors import bad_field
from app.core.i18n import _
from app.core.models import Attempt, Job, JobEvent, MetricPoint
from app.core.openai_models import Submission
from app.openai import job_objects, objects

PREFIX = "ftevent-"
_ID = re.compile(rf"{PREFIX}([0-9a-z]{{16}})-(\d{{1,9}})-(\d{{1,9}})(?:-(\d{{1,9}}))?")
# Of a submission: before all that happens to its job.
CREATED, ENDED = 1, 2


@dataclass(frozen=True, order=True)
class EventPosition:
    """Where an event stands. `number` is 0 for a line of the journal, whose points are one event."""

    fence: int  # 0 before the first attempt; one less than in IDs, which start with the submission
    seq: int
    number: int

    def event_id(self, job_id: str) -> str:
        """The ID of the event at this place."""
        return f"{PREFIX}{job_id}-{self.fence + 1}-{self.seq}" + (f"-{self.number}" if self.number else "")


def page(
    session: Session, job_id: str, submission: Submission | None, job: Job | None, after: str | None, limit: int
) -> list[dict[str, Any]]:
    """The events of a job from a place on, newest first. Raises PanelError for a place in another job."""
    place = EventPosition(2**31 - 2, 0, 0) if after is None else _place(job_id, after)
    candidates = [] if job is None else [*_history(session, job, place, limit), *_points(session, job, place, limit)]
    candidates += [] if submission is None else _of_submission(submission)
    newest = sorted((event for event in candidates if event[0] < place), key=lambda event: event[0], reverse=True)
    return [_answer(job_id, *event) for event in newest[:limit]]


def _place(job_id: str, event_id: str) -> EventPosition:
    match = _ID.fullmatch(event_id)
    if match is None or match[1] != job_id:
        raise bad_field("after", "cursor_invalid", _("This is no event of the job. Use the ID of one as after."))
    return EventPosition(int(match[2]) - 1, int(match[3]), int(match[4] or 0))


Event = tuple[EventPosition, dict[str, Any]]


def _answer(job_id: str, place: EventPosition, values: dict[str, Any]) -> dict[str, Any]:
    return {"id": place.event_id(job_id), "object": "fine_tuning.job.event", **values}


Level = Literal["info", "warn", "error"]


def _message(at: int | None, text: str, level: Level = "info", **data: Any) -> dict[str, Any]:
    return {"created_at": at, "level": level, "type": "message", "message": text, "data": data}


def _of_submission(submission: Submission) -> list[Event]:
    text = _("Validating training file: {id}", id=submission.details["training_file"])
    listed = [(EventPosition(-1, 0, CREATED), _message(objects.seconds(submission.created_at), text))]
    at = objects.seconds(submission.finished_at)
    if submission.state == "failed":
        text = str(submission.failure["message"])
        listed.append((EventPosition(-1, 0, ENDED), _message(at, text, "error", code=submission.failure["code"])))
    elif submission.state == "cancelled":
        listed.append((EventPosition(-1, 0, ENDED), _message(at, _("The job was cancelled."))))
    return listed


def _history(session: Session, job: Job, place: EventPosition, limit: int) -> list[Event]:
    """Changes of a job's state before a place, newest first."""
    position = tuple_(JobEvent.fence, JobEvent.journal_seq, JobEvent.seq)
    before = position < (place.fence, place.seq, place.number)
    query = select(JobEvent).where(JobEvent.job_id == job.id, before).order_by(position.desc()).limit(limit)
    listed = []
    for event in session.scalars(query):
        level: Level = "warn" if event.reason in job_failures.CODES else "info"
        level = "error" if event.to_state == "failed" else level
        text = job_failures.explain(event.reason, event.data) or event.to_state
        values = _message(objects.seconds(event.at), text, level, state=event.to_state, reason=event.reason)
        listed.append((EventPosition(event.fence, event.journal_seq, event.seq), values))
    return listed


def _points(session: Session, job: Job, place: EventPosition, limit: int) -> list[Event]:
    """What was measured before a place, newest first: a line of the journal is one event."""
    position = tuple_(MetricPoint.fence, MetricPoint.seq)
    limits = (place.fence, place.seq)
    before = position <= limits if place.number else position < limits
    live = (MetricPoint.job_id == job.id, ~MetricPoint.archived)
    columns = (MetricPoint.fence, MetricPoint.seq)
    lines = select(*columns).where(*live, before).distinct().order_by(*(column.desc() for column in columns))
    wanted = [(row.fence, row.seq) for row in session.execute(lines.limit(limit))]
    if not wanted:
        return []
    values = defaultdict[tuple[int, int], dict[str, Any]](dict)
    steps, instants = dict[tuple[int, int], int](), dict[tuple[int, int], int | None]()
    for point in session.scalars(select(MetricPoint).where(*live, position.in_(wanted))):
        line = (point.fence, point.seq)
        values[line][point.series] = point.nonfinite or point.value
        steps[line], instants[line] = point.step, objects.seconds(point.at)
    started = {row.fence: row.started_at for row in session.scalars(select(Attempt).where(Attempt.job_id == job.id))}
    return [
        (
            EventPosition(*line, 0),
            _measured(job, steps[line], values[line], instants[line] or _second(started, line[0], job)),
        )
        for line in wanted
    ]


def _second(started: dict[int, Any], fence: int, job: Job) -> int | None:
    """When the attempt began that wrote a point whose time is not recorded."""
    return objects.seconds(started.get(fence, job.created_at))


def _measured(job: Job, step: int, values: dict[str, Any], at: int | None) -> dict[str, Any]:
    named = job_objects.metrics(values)
    labels = {"train_loss": _("training loss"), "valid_loss": _("validation loss")}
    losses = ", ".join(f"{word}={_rounded(named[name])}" for name, word in labels.items() if name in named)
    text = _("Step {step}/{total}: {values}", step=step, total=job.max_steps, values=losses or ", ".join(values))
    data = {"step": step, "total_steps": job.max_steps, **named}
    return {"created_at": at, "level": "info", "type": "metrics", "message": text, "data": data}


def _rounded(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)

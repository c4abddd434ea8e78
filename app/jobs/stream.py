"""The live view of one job: what lies behind a cursor, for the hub in app/core/live.py.

First load, live and reconnect are this one reader. The cursor names a place in each thing that is shown: the journal
line of the curves, that of the samples, the history, the log; and a digest of what is sent whole when it changes: the
job's own answer, its attempts, its checkpoints.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sqlalchemy import exists, func, or_, select, tuple_
from sqlalchemy.orm import Session, aliased, defer

from app.checkpoints.schemas import CheckpointAnswer, checkpoint_answers
from app.checkpoints.service import LIVE
from app.core import db, i18n, storage
from app.core.live import Reader, Update
from app.core.models import TERMINAL, Attempt, Checkpoint, Job, JobEvent, MetricPoint, Sample
from app.core.paging import Listing
from app.jobs import schemas, service
from app.jobs.attempts import metrics
from app.jobs.views import logs
from trainer.run_dir import RunDir

MAX_NEW_LINES = 2_000  # journal lines sent one by one; behind more of them the curves are sent anew
MAX_POINTS = 1_200  # places of a curve sent whole
MAX_CHECKPOINTS = 500
DIGEST_LENGTH = 16

Line = tuple[int, int]  # fence and seq of a line of a journal


@dataclass(frozen=True)
class Cursor:
    """What a viewer has seen."""

    points_fence: int = -1
    points_seq: int = 0
    samples_fence: int = 0
    samples_seq: int = 0
    history: int = 0
    log: int = -1
    job: str = ""
    attempts: str = ""
    checkpoints: str = ""

    @property
    def points(self) -> Line:
        return self.points_fence, self.points_seq

    @property
    def samples(self) -> Line:
        return self.samples_fence, self.samples_seq

    def text(self) -> str:
        """As the id of an event."""
        return ".".join(str(part) for part in astuple(self))

    @classmethod
    def read(cls, text: str) -> "Cursor":
        """From the id of an event. What is no such id is a viewer who has seen nothing."""
        parts = text.split(".")
        try:
            numbers = [int(part) for part in parts[:6]]
            if len(parts) != 9 or max(numbers) >= 2**31 or min(numbers) < -1:
                return cls()
        except ValueError:
            return cls()
        job, attempts, checkpoints = (part[:DIGEST_LENGTH] for part in parts[6:])
        points_fence, points_seq, samples_fence, samples_seq, history, log = numbers
        place = (points_fence, points_seq, samples_fence, samples_seq, history, log)
        return cls(*place, job, attempts, checkpoints)


def reader(job_id: str, language: str) -> Reader:
    """What the hub calls to see what is new about a job."""

    def read(cursor: str, until: str | None) -> list[Update]:
        with i18n.use_locale(language), db.transaction() as session:
            # One snapshot, so that curve, samples and history fit together.
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            job = session.get(Job, job_id)
            if job is None:
                return []
            limit = Cursor.read(until) if until is not None else _now(session, job)
            log_end = limit.log if until is not None else None
            return list(_News(session, job, Cursor.read(cursor), limit, log_end).updates())

    return read


def _now(session: Session, job: Job) -> Cursor:
    # An attempt that has not chosen yet where to go on has taken nothing back: the curve is still that of the last one.
    begun = or_(Attempt.resume_step.is_not(None), Attempt.journal_seq > 0)
    lines = select(Attempt.fence, Attempt.journal_seq).where(Attempt.job_id == job.id, begun)
    fence, seq = session.execute(lines.order_by(Attempt.fence.desc()).limit(1)).one_or_none() or (0, 0)
    return Cursor(
        fence,
        seq,
        fence,
        seq,
        session.scalar(select(func.max(JobEvent.seq)).where(JobEvent.job_id == job.id)) or 0,
    )


def _log_path(job: Job) -> Path:
    return RunDir(storage.run(job.id)).log_path


class _News:
    """All that lies between two cursors. Each update carries the cursor that holds once it has been seen."""

    def __init__(self, session: Session, job: Job, seen: Cursor, limit: Cursor, log_end: int | None) -> None:
        self.session, self.job, self.seen, self.limit, self.log_end = session, job, seen, limit, log_end

    def updates(self) -> Iterator[Update]:
        """The job itself first; an update is left out where nothing is new."""
        yield from self._job()
        yield from self._attempts()
        yield from self._history()
        yield from self._curves()
        yield from self._samples()
        yield from self._checkpoints()
        yield from self._log()

    def _update(self, event: str, data: BaseModel | dict[str, Any], **seen: Any) -> Update:
        self.seen = replace(self.seen, **seen)
        text = data.model_dump_json(by_alias=True) if isinstance(data, BaseModel) else json.dumps(data)
        return Update(self.seen.text(), event, text)

    def _job(self) -> Iterator[Update]:
        answer = schemas.job_answer(self.session, self.job)
        digest = _digest(answer.model_dump_json(exclude={"elapsed_seconds"}))
        if digest != self.seen.job:
            yield self._update("job", answer, job=digest)

    def _attempts(self) -> Iterator[Update]:
        attempts = service.list_attempts(self.session, job_id=self.job.id)
        answer = Listing[schemas.AttemptAnswer](
            data=schemas.attempt_answers(self.session, self.job, attempts), next=None
        )
        digest = _digest(answer.model_dump_json(exclude={"data": {"__all__": {"reached_step"}}}))
        if digest != self.seen.attempts:
            yield self._update("attempts", answer, attempts=digest)

    def _history(self) -> Iterator[Update]:
        for event in service.history(
            self.session, job_id=self.job.id, after=self.seen.history, until=self.limit.history
        ):
            yield self._update("history", schemas.history_entry(event), history=event.seq)

    def _curves(self) -> Iterator[Update]:
        seen, limit = self.seen.points, self.limit.points
        if seen >= limit:
            return
        place: dict[str, Any] = {"points_fence": limit[0], "points_seq": limit[1]}
        if seen[0] == limit[0] and limit[1] - seen[1] <= MAX_NEW_LINES:
            points = metrics.points_after(self.session, job_id=self.job.id, after=seen, until=limit)
            if points:
                yield self._update("points", {"series": _by_series(points)}, **place)
            else:  # lines without points: nothing to show, but never to be looked at again
                self.seen = replace(self.seen, **place)
            return
        curves = metrics.curves_until(self.session, job_id=self.job.id, until=limit, max_points=MAX_POINTS)
        yield self._update("curve", schemas.curves_answer(curves), **place)

    def _samples(self) -> Iterator[Update]:
        for sample in samples(self.session, job_id=self.job.id, after=self.seen.samples, until=self.limit.samples):
            place = {"samples_fence": sample.fence, "samples_seq": sample.seq}
            yield self._update("sample", schemas.sample_answer(sample), **place)

    def _checkpoints(self) -> Iterator[Update]:
        answer = Listing[CheckpointAnswer](data=saved(self.session, job_id=self.job.id), next=None)
        digest = _digest(answer.model_dump_json())
        if digest != self.seen.checkpoints:
            yield self._update("checkpoints", answer, checkpoints=digest)

    def _log(self) -> Iterator[Update]:
        path, is_over = _log_path(self.job), self.job.state in TERMINAL
        offset = logs.tail_offset(path) if self.seen.log < 0 else self.seen.log
        while True:
            piece = logs.read(path, offset, until=self.log_end, is_whole=is_over)
            if piece.next_offset == offset:
                return
            offset = piece.next_offset
            yield self._update("log", {"text": piece.text, "offset": piece.offset}, log=offset)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def saved(session: Session, *, job_id: str) -> list[CheckpointAnswer]:
    """The checkpoints of a job whose files are there, newest first."""
    there = select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.state.in_(LIVE))
    lean = there.options(defer(Checkpoint.manifest))  # it may be long
    rows = session.scalars(lean.order_by(Checkpoint.step.desc(), Checkpoint.fence.desc()).limit(MAX_CHECKPOINTS))
    return checkpoint_answers(session, rows.all())


def _by_series(points: list[MetricPoint]) -> dict[str, dict[str, list[Any]]]:
    series: dict[str, dict[str, list[Any]]] = {}
    for point in points:
        entry = series.setdefault(point.series, {"steps": [], "values": []})
        entry["steps"].append(point.step)
        entry["values"].append(point.nonfinite or point.value)
    return series


def samples(session: Session, *, job_id: str, after: Line = (0, 0), until: Line | None = None) -> list[Sample]:
    """The samples of steps that no later attempt took back, oldest first."""
    later = aliased(Attempt)
    again = or_(later.resume_step == 0, later.resume_step < Sample.step)  # at 0 an attempt evaluates once more
    taken_back = exists().where(later.job_id == Sample.job_id, later.fence > Sample.fence, again)
    place = tuple_(Sample.fence, Sample.seq)
    query = select(Sample).where(Sample.job_id == job_id, place > after, ~taken_back)
    if until is not None:
        query = query.where(place <= until)
    return list(session.scalars(query.order_by(Sample.fence, Sample.seq)))

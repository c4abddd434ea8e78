"""What is new about one job after a cursor, for the hub in app/core/live.py: JSON for programs, HTML for its page.

First load, live updates and reconnecting are this one reader. The cursor names the last line of the journal whose
points were sent, that of the samples, the last line of the history, the offset in the log; and a digest of each
document that is sent again when it changes: of the job, its attempts and its checkpoints, or of each part of the page.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sqlalchemy import exists, func, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from app.checkpoints.schemas import CheckpointAnswer
from app.core import db, i18n, storage
from app.core.formatting import json_bytes
from app.core.live import News, Reader, Update
from app.core.models import TERMINAL, Attempt, Job, JobEvent, MetricPoint, Sample
from app.core.paging import Listing
from app.jobs import job_parts, schemas, service
from app.jobs.attempts import metrics
from app.jobs.views import logs
from trainer.run_dir import RunDir

MAX_NEW_LINES = 2_000  # journal lines sent as points; after more of them the curves are sent again
MAX_POINTS = 1_200  # points of a curve that is sent again
MAX_SEQ = 2**31 - 1  # of a line of a journal
DIGEST_LENGTH = 10  # hexadecimal digits
DIGEST = re.compile(rf"[0-9a-f]{{{DIGEST_LENGTH}}}")

Line = tuple[int, int]  # fence and sequence number of a line of a journal


@dataclass(frozen=True)
class Cursor:
    """What a viewer has seen."""

    points_fence: int = -1
    points_seq: int = 0
    samples_fence: int = 0
    samples_seq: int = 0
    history: int = 0
    log: int = -1
    digests: tuple[str, ...] = ()

    @property
    def points(self) -> Line:
        """The last journal line whose points were seen."""
        return self.points_fence, self.points_seq

    @property
    def samples(self) -> Line:
        """The journal line of the last sample that was seen."""
        return self.samples_fence, self.samples_seq

    @property
    def numbers(self) -> tuple[int, ...]:
        """Everything but the digests."""
        return *self.points, *self.samples, self.history, self.log

    def text(self) -> str:
        """The cursor as the ID of an event."""
        return ".".join([*map(str, self.numbers), *self.digests])

    @classmethod
    def read(cls, text: str) -> "Cursor":
        """A cursor from the ID of an event. Any other text is a viewer who has seen nothing."""
        parts = text.split(".")
        try:
            points_fence, points_seq, samples_fence, samples_seq, history, log = numbers = [int(p) for p in parts[:6]]
        except ValueError:
            return cls()
        if max(numbers) > MAX_SEQ or min(numbers) < -1:
            return cls()
        digests = tuple(parts[6:])
        if any(digest and not DIGEST.fullmatch(digest) for digest in digests):
            return cls()
        return cls(points_fence, points_seq, samples_fence, samples_seq, history, log, digests)

    def within(self, limit: "Cursor", log_end: int) -> "Cursor":
        """The cursor without what it claims to have seen beyond the limit: a client may invent any."""
        points, samples = min(self.points, limit.points), min(self.samples, limit.samples)
        history, log = min(self.history, limit.history), min(self.log, log_end)
        return Cursor(*points, *samples, history, log, self.digests)


def json_reader(job_id: str, language: str) -> Reader:
    """What the hub calls to see what is new about a job, for programs."""
    return _reader(_JsonNews, job_id, language)


def page_reader(job_id: str, language: str) -> Reader:
    """What the hub calls to see what is new about a job, for its page."""
    return _reader(_PageNews, job_id, language)


def page_cursor(session: Session, job: Job, parts: Iterable[str]) -> Cursor:
    """The cursor of a page that was just rendered with these parts and all samples, but no curves and no log."""
    limit = _now(session, job)
    return replace(limit, points_fence=-1, points_seq=0, log=-1, digests=tuple(map(_digest, parts)))


def _reader(news: "type[_News]", job_id: str, language: str) -> Reader:
    def read(cursor: str, until: str | None) -> News:
        with i18n.use_locale(language), db.transaction() as session:
            # One snapshot, so that curves, samples and history agree.
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            job = session.get(Job, job_id)
            if job is None:
                return News([], "")
            limit = Cursor.read(until) if until is not None else _now(session, job)
            log_end = limit.log if until is not None else None
            start = Cursor.read(cursor).within(limit, logs.size(_log_path(job)) if log_end is None else log_end)
            since = news(session, job, start, limit, log_end)
            return News(list(since.updates()), since.cursor.text())

    return read


def _now(session: Session, job: Job) -> Cursor:
    # An attempt that has not chosen its starting step yet takes nothing back: the curve is still that of the last one.
    begun = or_(Attempt.resume_step.is_not(None), Attempt.journal_seq > 0)
    lines = select(Attempt.fence, Attempt.journal_seq).where(Attempt.job_id == job.id, begun)
    imported = (job.fence, MAX_SEQ) if job.imported_from is not None else (0, 0)  # an imported job has no attempt
    fence, seq = session.execute(lines.order_by(Attempt.fence.desc()).limit(1)).one_or_none() or imported
    history = session.scalar(select(func.max(JobEvent.seq)).where(JobEvent.job_id == job.id)) or 0
    return Cursor(fence, seq, fence, seq, history)


def _log_path(job: Job) -> Path:
    return RunDir(storage.run(job.id)).log_path


class _News:
    """Everything between two cursors. Each update carries the cursor that holds once it has been seen."""

    def __init__(self, session: Session, job: Job, cursor: Cursor, limit: Cursor, log_end: int | None) -> None:
        self.session = session
        self.job = job
        self.cursor = cursor
        self.limit = limit
        self.log_end = log_end

    def updates(self) -> Iterator[Update]:
        """Whole documents that changed, then what was added. Empty if nothing is new."""
        yield from self._documents()
        yield from self._curves()
        yield from self._samples()
        yield from self._log()

    def _documents(self) -> Iterator[Update]:
        raise NotImplementedError

    def _sample(self, sample: Sample) -> BaseModel | dict[str, Any]:
        raise NotImplementedError

    def _update(self, event: str, data: BaseModel | dict[str, Any], **changes: Any) -> Update:
        """An update that advances the cursor by `changes` of its fields."""
        self.cursor = replace(self.cursor, **changes)
        text = data.model_dump_json(by_alias=True) if isinstance(data, BaseModel) else json_bytes(data).decode()
        return Update(self.cursor.text(), event, text)

    def _keep_digests(self, count: int) -> None:
        """Drop the digests of documents that there are not."""
        self.cursor = replace(self.cursor, digests=self.cursor.digests[:count])

    def _if_changed(self, place: int, digest: str, event: str, data: BaseModel | dict[str, Any]) -> Iterator[Update]:
        """An update of the document whose digest is at `place` in the cursor, if the viewer has another version."""
        digests = [*self.cursor.digests, *[""] * (place + 1 - len(self.cursor.digests))]
        if digests[place] != digest:
            digests[place] = digest
            yield self._update(event, data, digests=tuple(digests))

    def _curves(self) -> Iterator[Update]:
        start = self.cursor.points
        limit = self.limit.points
        if start >= limit:
            return
        place: dict[str, Any] = {"points_fence": limit[0], "points_seq": limit[1]}
        if start[0] == limit[0] and limit[1] - start[1] <= MAX_NEW_LINES:
            points = metrics.points_after(self.session, job_id=self.job.id, after=start, until=limit)
            if points:
                yield self._update("points", {"series": _by_series(points)}, **place)
            else:  # lines without points are not looked at again
                self.cursor = replace(self.cursor, **place)
            return
        curves = metrics.curves_until(self.session, job_id=self.job.id, until=limit, max_points=MAX_POINTS)
        yield self._update("curve", schemas.curves_answer(curves), **place)

    def _samples(self) -> Iterator[Update]:
        for sample in samples(self.session, job_id=self.job.id, after=self.cursor.samples, until=self.limit.samples):
            yield self._update("sample", self._sample(sample), samples_fence=sample.fence, samples_seq=sample.seq)

    def _log(self) -> Iterator[Update]:
        path, is_over = _log_path(self.job), self.job.state in TERMINAL
        offset = logs.tail_offset(path) if self.cursor.log < 0 else self.cursor.log
        while True:
            chunk = logs.read(path, offset, until=self.log_end, is_complete=is_over)
            if chunk.next_offset == offset:
                return
            offset = chunk.next_offset
            yield self._update("log", {"text": chunk.text, "offset": chunk.offset}, log=offset)


class _JsonNews(_News):
    """News for programs: the answers of the API."""

    def _documents(self) -> Iterator[Update]:
        self._keep_digests(3)
        job = schemas.job_answer(self.session, self.job)
        yield from self._if_changed(0, _digest(job.model_dump_json(exclude={"elapsed_seconds"})), "job", job)
        rows = service.list_attempts(self.session, job_id=self.job.id)
        attempts = Listing[schemas.AttemptAnswer](data=schemas.attempt_answers(self.session, self.job, rows), next=None)
        stable = attempts.model_dump_json(exclude={"data": {"__all__": {"reached_step"}}})
        yield from self._if_changed(1, _digest(stable), "attempts", attempts)
        checkpoints = Listing[CheckpointAnswer](data=job_parts.saved(self.session, job_id=self.job.id), next=None)
        yield from self._if_changed(2, _digest(checkpoints.model_dump_json()), "checkpoints", checkpoints)
        yield from self._history()

    def _history(self) -> Iterator[Update]:
        for event in service.history(
            self.session, job_id=self.job.id, after=self.cursor.history, until=self.limit.history
        ):
            yield self._update("history", schemas.history_entry(event), history=event.seq)

    def _sample(self, sample: Sample) -> BaseModel | dict[str, Any]:
        return schemas.sample_answer(sample)


class _PageNews(_News):
    """News for the job's page: the HTML of the parts that changed."""

    def _documents(self) -> Iterator[Update]:
        parts = job_parts.render(job_parts.context(self.session, self.job))
        self._keep_digests(len(parts))
        for place, (name, html) in enumerate(parts.items()):
            yield from self._if_changed(place, _digest(html), "part", {"id": f"part-{name}", "html": html})

    def _sample(self, sample: Sample) -> BaseModel | dict[str, Any]:
        return {"step": sample.step, "html": job_parts.render_sample(sample)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


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

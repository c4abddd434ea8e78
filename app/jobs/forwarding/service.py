"""Which jobs are forwarded to which trackers, and how far that is: the only writer of its table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, func, literal, or_, select
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.orm import Session

from app.core.errors import PanelError
from app.core.forwarding_models import JobForwarding
from app.core.i18n import _
from app.core.json_shapes import FailureReason, MessageValues
from app.core.models import TERMINAL, Job
from app.core.principal import Principal, own
from app.core.settings import settings
from app.jobs.forwarding import batches, trackers
from app.jobs.forwarding.batches import Batch
from app.jobs.forwarding.trackers import Tracker

PAUSES = (5, 15, 60, 300)  # in seconds, between tries; the last one again and again, as nothing is given up
CLAIM_SECONDS = 120  # until another process may send a batch again, longer than a tracker may take


Forwarding = tuple[Tracker, JobForwarding | None]  # a job that was never forwarded there has no row


@dataclass(frozen=True)
class Claimed:
    """A batch that nobody else sends for a while, and the run of the tracker that gets it."""

    batch: Batch
    remote: MessageValues
    after: tuple[int, int]  # the fence and number of the journal line before it


# ---- what users see and choose --------------------------------------------------------------------------------------


def list_forwardings(session: Session, *, job_id: str) -> list[Forwarding]:
    """The trackers that can be forwarded to, each with how far a job is there."""
    rows = {row.tracker: row for row in session.scalars(select(JobForwarding).where(JobForwarding.job_id == job_id))}
    return [(tracker, rows.get(tracker.name)) for tracker in trackers.available()]


def choose(session: Session, *, principal: Principal, job_id: str, choices: Mapping[str, bool]) -> None:
    """Forward a job to trackers from now on, with everything so far, or forward no more of it.

    Raises PanelError: 404 or 403 for another's job, 409 for a tracker that is not configured or not installed.
    """
    own(session, Job, job_id, principal=principal)
    names = {tracker.name for tracker in trackers.available()}
    for tracker, is_enabled in choices.items():
        if tracker not in names:
            message = _(
                "The server does not forward to “{tracker}”. "
                "Its operator configures trackers and installs their packages.",
                tracker=tracker[:40],
            )
            raise PanelError(409, "tracker_unavailable", message)
        row = insert(JobForwarding).values(job_id=job_id, tracker=tracker, is_enabled=is_enabled)
        changed = {"is_enabled": is_enabled, "due_at": func.now()}
        session.execute(row.on_conflict_do_update(index_elements=["job_id", "tracker"], set_=changed))


# ---- what the scheduler does ----------------------------------------------------------------------------------------


def begin_new(session: Session) -> None:
    """Have the jobs that have not ended forwarded to each configured tracker, unless it was chosen otherwise."""
    for tracker in trackers.configured():
        jobs = select(Job.id, literal(tracker.name), literal(settings().forward_jobs)).where(Job.state.not_in(TERMINAL))
        has_row = select(JobForwarding.job_id).where(
            JobForwarding.job_id == Job.id, JobForwarding.tracker == tracker.name
        )
        names = ["job_id", "tracker", "is_enabled"]
        rows = insert(JobForwarding).from_select(names, jobs.where(~has_row.exists()))
        session.execute(rows.on_conflict_do_nothing())


_IS_THERE = and_(Job.purged_at.is_(None), Job.deleted_at.is_(None))
_IS_UNDER_WAY = and_(JobForwarding.finished_at.is_(None), JobForwarding.is_enabled)


def _is_due(tracker: str) -> tuple[ColumnElement[bool], ...]:
    return JobForwarding.tracker == tracker, _IS_UNDER_WAY, JobForwarding.due_at <= func.now()


def due(session: Session, tracker: str) -> Sequence[str]:
    """The jobs that something may be new of for a tracker, first those that wait longest; none in the trash."""
    has_news = and_(or_(Job.started_at.is_not(None), Job.state.in_(TERMINAL)), _IS_THERE)
    query = select(JobForwarding.job_id).join(Job, Job.id == JobForwarding.job_id).where(has_news, *_is_due(tracker))
    return session.scalars(query.order_by(JobForwarding.due_at, JobForwarding.job_id)).all()


def claim(session: Session, tracker: Tracker, job_id: str) -> Claimed | None:
    """What is next of a job, claimed; None where there is nothing to send, or another process sends it."""
    query = select(JobForwarding).where(*_is_due(tracker.name), JobForwarding.job_id == job_id)
    row = session.scalar(query.with_for_update(skip_locked=True))
    if row is None:
        return None
    if row.target != tracker.target:
        row.target = tracker.target
        _start_over(row)
    batch = batches.read(session, row)
    while batch.is_full and not batch.is_sent:  # only steps that were trained again
        _advance(row, batch)
        batch = batches.read(session, row)
    if not batch.is_sent:
        _advance(row, batch)
        return None
    row.due_at = func.now() + timedelta(seconds=CLAIM_SECONDS)
    return Claimed(batch, row.remote, (row.fence, row.seq))


def _start_over(row: JobForwarding) -> None:
    row.fence, row.seq, row.steps, row.remote = 0, 0, {}, {}


def _advance(row: JobForwarding, batch: Batch) -> None:
    row.fence, row.seq, row.steps = batch.fence, batch.seq, batch.steps
    if batch.is_over:
        row.finished_at = func.now()


def succeed(session: Session, tracker: Tracker, claimed: Claimed, remote: MessageValues) -> None:
    """The tracker has a batch: move the cursor behind it."""
    row = _claimed_row(session, tracker, claimed)
    if row is not None:
        _advance(row, claimed.batch)
        row.remote, row.num_failures, row.error = remote, 0, None
        row.forwarded_at = func.now()
        pause = 0 if claimed.batch.is_full else tracker.pause_seconds
        row.due_at = func.now() + timedelta(seconds=pause)


def fail(session: Session, tracker: Tracker, claimed: Claimed, error: FailureReason, *, is_lost: bool) -> None:
    """The tracker may or may not have a batch: send it again after a pause; if it `is_lost`, all before it, too."""
    row = _claimed_row(session, tracker, claimed)
    if row is not None:
        row.due_at = func.now() + timedelta(seconds=PAUSES[min(row.num_failures, len(PAUSES) - 1)])
        row.num_failures += 1
        row.error, row.failed_at = error, func.now()
        if is_lost:
            _start_over(row)


def _claimed_row(session: Session, tracker: Tracker, claimed: Claimed) -> JobForwarding | None:
    """The row of a claimed batch, locked; None if the claim has run out and another process was faster."""
    row = session.get(JobForwarding, (claimed.batch.job["id"], tracker.name), with_for_update=True)
    return row if row is not None and (row.fence, row.seq) == claimed.after else None


# ---- the health page ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrackerHealth:
    """How forwarding to a tracker works: jobs under way, and those whose last try failed, with the newest error."""

    num_open: int = 0
    num_failing: int = 0
    error: FailureReason | None = None


def health(session: Session) -> Mapping[str, TrackerHealth]:
    """How forwarding works, by the names of trackers with jobs under way. The errors are not for every reader."""
    is_failing = JobForwarding.num_failures > 0
    counts = (func.count(), func.count().filter(is_failing))
    jobs = select(JobForwarding).join(Job, Job.id == JobForwarding.job_id).where(_IS_UNDER_WAY, _IS_THERE)
    query = jobs.with_only_columns(JobForwarding.tracker, *counts).group_by(JobForwarding.tracker)
    newest = jobs.where(is_failing).ext(distinct_on(JobForwarding.tracker))
    rows = session.scalars(newest.order_by(JobForwarding.tracker, JobForwarding.failed_at.desc()))
    errors = {row.tracker: row.error for row in rows}
    return {
        tracker: TrackerHealth(num_open, num_failing, errors.get(tracker))
        for tracker, num_open, num_failing in session.execute(query)
    }

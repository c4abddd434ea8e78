"""Notifies the owners of jobs that make no progress: they wait for what no other job will free, or do no step.

A job that waits for its turn makes no progress either, but needs nobody. Supervisors end an attempt that hangs; a job
that does no step for longer is one whose steps take that long, or whose node is out of reach.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.core import db, job_failures
from app.core.formatting import span
from app.core.i18n import _
from app.core.models import Attempt, Job
from app.core.notice_models import JobStall
from app.core.settings import settings
from app.jobs.lifecycle import job_notices, wait_reasons

STUCK = ("unplaced", "no_node", "silent", "draining", "too_large", "disk_full")  # of wait_reasons: not for other jobs
FULL = ("disk_full", "no_space")  # notices of jobs that were paused as the disk is full


@dataclass(frozen=True)
class _Stall:
    """A job that makes no progress since an instant, and the sentence that says why."""

    job: Job
    since: datetime
    reason: Callable[[], str | None]


def notify_of_stalls(session: Session) -> list[str]:
    """Notify once of each stall that lasts ATHANOR_STALL_SECONDS; returns the IDs of the jobs."""
    now = db.now()
    stalls = {stall.job.id: stall for stall in [*_waiting(session, now), *_paused(session), *_running(session)]}
    rows = {row.job_id: row for row in session.scalars(select(JobStall).with_for_update())}
    for job_id in rows.keys() - stalls.keys():
        session.delete(rows[job_id])
    notified = []
    for job_id, stall in stalls.items():
        row = rows.get(job_id)
        if row is None:
            row = JobStall(job_id=job_id, since=stall.since)
            session.add(row)
        if row.noticed_at is None and now - row.since >= timedelta(seconds=settings().stall_seconds):
            row.noticed_at = now
            if stall.job.is_notified:
                job_notices.notify(session, stall.job, "job_stalled", stall.reason)
                notified.append(job_id)
    return notified


def _waiting(session: Session, now: datetime) -> list[_Stall]:
    """The queued jobs that no other job keeps waiting, from now on."""
    codes = or_(Job.wait_reason.is_(None), *(Job.wait_reason.startswith(f'["{code}"') for code in STUCK))
    query = select(Job).where(Job.state == "queued", Job.desired == "run", Job.node.is_(None), codes)
    return [_Stall(job, now, lambda job=job: _why_waiting(job)) for job in session.scalars(query)]  # type: ignore[misc]


def _why_waiting(job: Job) -> str | None:
    wait = wait_reasons.describe(job)
    return None if wait is None else str(wait["message"])


def _paused(session: Session) -> list[_Stall]:
    """The jobs that were paused as the disk is full, which their owners resume."""
    query = select(Job).where(Job.state == "paused", func.jsonb_extract_path_text(Job.notice, "code").in_(FULL))
    stalls = []
    for job in session.scalars(query):
        notice = job.notice
        if notice is not None:
            reason = lambda notice=notice: job_failures.explain(notice.code, notice.values)  # noqa: E731
            stalls.append(_Stall(job, datetime.fromtimestamp(0, UTC), reason))
    return stalls


def _running(session: Session) -> list[_Stall]:
    """The jobs that run and have reported nothing for ATHANOR_STALL_SECONDS."""
    attempt = (Attempt.job_id == Job.id) & (Attempt.fence == Job.fence)
    query = select(Job, Attempt.started_at).join(Attempt, attempt).where(Job.state.in_(("starting", "running")))
    stalls = []
    for job, started_at in session.execute(query):
        last = max([job.progress.at, started_at.timestamp(), *(at for _step, at in job.progress.recent[-1:])])
        now = db.now()
        since = datetime.fromtimestamp(min(last, now.timestamp()), UTC)  # the clock of its node may be ahead
        quiet = (now - since).total_seconds()
        if quiet >= settings().stall_seconds:
            stalls.append(_Stall(job, since, lambda quiet=quiet: _("No step was done for {time}.", time=span(quiet))))  # type: ignore[misc]
    return stalls

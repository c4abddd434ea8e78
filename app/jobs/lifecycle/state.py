"""The only writer of a job's state: each change is guarded by the table of transitions and recorded as a job event."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.core.models import Attempt, Job, JobEvent
from app.jobs.lifecycle import job_notices, job_webhooks
from app.jobs.lifecycle.transitions import Actor, allowed


def set_state(session: Session, job: Job, state: str, actor: Actor, reason: str | None = None, /, **data: Any) -> None:
    """Move a locked job to a state and record the transition."""
    assert allowed(job.state, state, actor), f"{actor} may not move a job from {job.state} to {state}"
    before, job.state = job.state, state
    add_history(session, job, before, actor, reason, **data)


def add_history(
    session: Session, job: Job, before: str | None, actor: Actor, reason: str | None, /, **data: Any
) -> None:
    """Add an event to the job's history. If the state does not change, `before` is the current state."""
    last = session.scalar(select(func.max(JobEvent.seq)).where(JobEvent.job_id == job.id)) or 0
    attempt = (Attempt.job_id == job.id, Attempt.fence == job.fence)
    journal_seq = session.scalar(select(Attempt.journal_seq).where(*attempt)) or 0
    session.add(
        JobEvent(
            job_id=job.id,
            seq=last + 1,
            actor=actor,
            from_state=before,
            to_state=job.state,
            fence=job.fence,
            reason=reason,
            data=data,
            journal_seq=journal_seq,
        )
    )
    session.flush()


def finish(session: Session, job: Job, state: str, actor: Actor, reason: str, /, **data: Any) -> None:
    """Move a locked job to its end."""
    job.finished_at = func.now()
    job.lease_until = job.wait_reason = job.not_before = None
    job.gpus = []
    set_state(session, job, state, actor, reason, **data)
    job_webhooks.enqueue(session, owner_id=job.owner_id, job_id=job.id, state=state)
    job_notices.enqueue(session, job)


def seconds_from_now(seconds: float) -> ColumnElement[datetime]:
    """So many seconds from now, by the database's clock."""
    return func.now() + timedelta(seconds=seconds)

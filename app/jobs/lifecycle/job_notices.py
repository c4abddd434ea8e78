"""Notifies the owner of a job that it has ended or makes no progress, in the transaction that records it."""

from collections.abc import Callable

from sqlalchemy.orm import Session

from app.core import job_failures
from app.core.json_shapes import MessageValues
from app.core.models import Job
from app.notices import service


def enqueue(session: Session, job: Job) -> None:
    """Notify that a job succeeded or failed. Who cancels a job needs no notice."""
    if not job.is_notified:
        return
    if job.state == "succeeded":
        values: MessageValues = {"name": job.name, "steps": job.step}
        service.notify(session, user_id=job.owner_id, event="job_finished", job_id=job.id, values=values)
    elif job.state == "failed":
        notify(session, job, "job_failed", lambda: job_failures.explain(job.failure_code, job.failure))


def notify(session: Session, job: Job, event: str, reason: Callable[[], str | None]) -> None:
    """Notify of an event with a reason, which is stored in every language."""
    values: MessageValues = {"name": job.name, "reason": service.in_every_language(lambda: reason() or "")}
    service.notify(session, user_id=job.owner_id, event=event, job_id=job.id, values=values)

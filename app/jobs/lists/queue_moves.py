"""Moves of jobs in the queue.

Users put their own jobs in another order: the jobs exchange their places, each with the priority and the time of
waiting that made it, so that no job of another user is passed, and a place that was won by waiting is used once.
Admins and owners move any job before or after any other: the queue down to it then keeps the order that they see.
"""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core import audit_log
from app.core.account_models import User
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.models import Job
from app.core.principal import Principal, not_found, own
from app.jobs.scheduling import dispatch

TICK = timedelta(microseconds=1)


def move(
    session: Session, *, principal: Principal, job_id: str, before: str | None = None, after: str | None = None
) -> Job:
    """Move a queued job before or after another one.

    Raises PanelError: 404, 409 for a job that does not wait, or 422 at the field that names the other job.
    """
    session.execute(select(func.pg_advisory_xact_lock(dispatch.PLACING_LOCK)))  # the order stays until the commit
    job = _movable(session, principal, job_id)
    field, other_id = ("before", before) if before is not None else ("after", after)
    order = dispatch.queue_order(session)
    if job not in order:
        raise PanelError(409, "job_not_waiting", _("This job does not wait in the queue any more."))
    if other_id is None or (before is not None and after is not None):
        message = _("Name the job before which this one goes, or the one after which: before or after.")
        raise bad_field(field, "queue_target_missing", message)
    is_admin = principal.is_at_least("admin")
    movable = [waiting for waiting in order if is_admin or waiting.owner_id == job.owner_id]
    other = next((waiting for waiting in movable if waiting.id == other_id and waiting is not job), None)
    if other is None:
        message = _("A job goes before or after another one of yours that waits in the queue; this one does not.")
        raise bad_field(field, "queue_target_unknown", message)
    own_jobs = [waiting for waiting in order if waiting.owner_id == job.owner_id]
    if other.owner_id == job.owner_id:
        _exchange(own_jobs, _reordered(own_jobs, job, other, is_before=before is not None))
    else:
        _number(order, _reordered(order, job, other, is_before=before is not None))
    if {job.owner_id, other.owner_id} != {principal.user_id}:
        owner = session.get_one(User, job.owner_id).name
        audit_log.record(session, "job_moved", principal, subject=job.name, subject_id=job.id, detail=owner)
    session.flush()
    return job


def _movable(session: Session, principal: Principal, job_id: str) -> Job:
    """The job of this id, which the user may move. Raises 404, or 403 for one that is only shared with them."""
    if not principal.is_at_least("admin"):
        return own(session, Job, job_id, principal=principal)
    job = session.get(Job, job_id)
    if job is None or job.deleted_at is not None:
        raise not_found()
    return job


def _reordered(jobs: Sequence[Job], job: Job, other: Job, *, is_before: bool) -> list[Job]:
    """The jobs with this one directly before or after the other."""
    rest = [each for each in jobs if each is not job]
    index = rest.index(other) + (not is_before)
    return [*rest[:index], job, *rest[index:]]


def _exchange(before: Sequence[Job], after: Sequence[Job]) -> None:
    """Give jobs of a user, which are in the order `before`, the places of the order `after`.

    Jobs that were queued in the same instant get instants that differ, so that their order shows.
    """
    places = [(job.queue_number, job.priority, job.queued_at) for job in before]
    last = (places[0][2], places[0][2] - TICK)  # an instant and what became of it
    for job, (number, priority, queued_at) in zip(after, places, strict=True):
        instant = max(queued_at, last[1] + TICK) if queued_at >= last[0] else queued_at
        job.queue_number, job.priority, job.queued_at = number, priority, instant
        last = (queued_at, instant)


def _number(before: Sequence[Job], after: Sequence[Job]) -> None:
    """Number the jobs of the queue from its start to the last one that moves, so that they stay in this order."""
    moved = [n for n, (old, new) in enumerate(zip(before, after, strict=True), 1) if old is not new]
    num_numbered = max(moved, default=0)
    for n, job in enumerate(after, 1):
        if n <= num_numbered or job.queue_number is not None:
            job.queue_number = n

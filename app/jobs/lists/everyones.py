"""Everybody's jobs, as admins and owners see them: whose they are and how far, without what they learn from."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy import ARRAY, Text, any_, func, or_, select
from sqlalchemy.orm import Session

from app.core import audit_log, db, labels, paging
from app.core.account_models import User
from app.core.models import STATES, TERMINAL, Job
from app.core.paging import Listing
from app.core.principal import Principal, not_found
from app.jobs import service
from app.jobs.lifecycle.notifications import notify_job_changed
from app.jobs.lifecycle.state import add_history
from app.web.auth import EveryonesManager, EveryonesReader
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit
from app.web.parameters import Id
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["jobs"])

Search = Annotated[str, Query(description="A part of the job's or owner's name.", max_length=200)]
Open = Annotated[bool, Query(description="Only jobs that have not ended.")]


class EveryonesJob(BaseModel):
    """A job of any user."""

    id: str
    name: str
    owner: str = Field(description="Name of the user who submitted it.")
    state: str
    step: int
    max_steps: int | None
    node: str | None
    created_at: datetime
    finished_at: datetime | None


def list_jobs(
    session: Session, *, search: str = "", is_open: bool = False, limit: int = 50, after: str | None = None
) -> tuple[list[EveryonesJob], str | None]:
    """Everybody's jobs, newest first, and the cursor of the next page."""
    db.plan_each_time(session)
    query = select(Job).where(Job.deleted_at.is_(None))
    if is_open:
        query = query.where(Job.state.in_([state for state in STATES if state not in TERMINAL]))
    if search := search.replace("\0", "").strip():
        owners = select(User.id).where(User.name.icontains(search, autoescape=True)).scalar_subquery()
        of_owner = Job.owner_id == any_(func.array(owners, type_=ARRAY(Text)))  # an array: an index looks them up
        query = query.where(or_(labels.is_named(Job, search), of_owner))
    jobs, cursor = paging.newest(session, query, Job.id, limit, after)
    return _answers(session, jobs), cursor


def _answers(session: Session, jobs: Sequence[Job]) -> list[EveryonesJob]:
    ids = {job.owner_id for job in jobs}
    owners = {user.id: user.name for user in session.scalars(select(User).where(User.id.in_(ids)))}
    names = EveryonesJob.model_fields.keys() - {"owner"}
    return [EveryonesJob(owner=owners[job.owner_id], **{name: getattr(job, name) for name in names}) for job in jobs]


def cancel(session: Session, *, principal: Principal, job_id: str) -> EveryonesJob:
    """Cancel a job of any user; its history says who did it.

    Raises PanelError: 404, or 409 for a job that succeeded or failed.
    """
    job = session.get(Job, job_id, with_for_update=True, populate_existing=True)
    if job is None or job.deleted_at is not None:
        raise not_found()
    answer = _answers(session, [job])[0]
    if job.owner_id != principal.user_id and job.finished_at is None and job.desired != "cancel":
        add_history(session, job, job.state, "user", "cancelled_by", name=principal.name)
        audit_log.record(session, "job_cancelled", principal, subject=job.name, subject_id=job_id, detail=answer.owner)
    service.request_cancellation(session, job)
    session.flush()
    return _answers(session, [job])[0]


@router.get("/everyones-jobs", responses=errors("role_missing"))
def list_everyones_jobs(
    _principal: EveryonesReader, q: Search = "", is_open: Open = False, limit: Limit = 50, after: After = None
) -> Listing[EveryonesJob]:
    """List everybody's jobs, newest first. For admins and owners."""
    with db.transaction() as session:
        jobs, cursor = list_jobs(session, search=q, is_open=is_open, limit=limit, after=after)
    return Listing(data=jobs, next=cursor)


@router.post("/everyones-jobs/{job_id}/cancel", status_code=202, responses=errors("role_missing", "job_ended"))
def cancel_everyones_job(principal: EveryonesManager, job_id: Id) -> EveryonesJob:
    """Cancel a job of any user. For admins and owners."""
    with db.transaction() as session:
        answer = cancel(session, principal=principal, job_id=job_id)
    notify_job_changed(job_id)
    return answer

"""Which job frees the place of a queued one, as those who see the queued one are told."""

from collections.abc import Sequence

from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.models import Job
from app.core.principal import Principal, visible_to
from app.core.share_models import Share
from app.jobs.lifecycle import wait_reasons


class BlockingJob(BaseModel):
    """A job whose end frees the place of a queued one."""

    id: str | None = Field(None, description="Null for a job that the reader may not see, like its name.")
    name: str | None = None


def for_all_readers(session: Session, jobs: Sequence[Job]) -> dict[str, BlockingJob]:
    """The jobs that queued ones wait for, by the ids of those; named where everyone who sees the one sees the other."""
    blocking = _blocking(session, jobs)
    if not blocking:
        return {}
    ids = {*blocking, *(other.id for other in blocking.values())}
    shares = session.execute(select(Share.subject_id, Share.user_id).where(Share.subject_id.in_(ids))).all()
    shared, open_to_all = {share.subject_id for share in shares}, {s.subject_id for s in shares if s.user_id is None}

    def is_named(job: Job, other: Job) -> bool:
        return other.id in open_to_all or (job.owner_id == other.owner_id and job.id not in shared)

    return {job.id: _answer(other, is_named(job, other)) for job in jobs if (other := blocking.get(job.id))}


def for_principal(session: Session, jobs: Sequence[Job], principal: Principal) -> dict[str, BlockingJob]:
    """The jobs that queued ones wait for, by the ids of those; named for admins and where the user may see them."""
    blocking = _blocking(session, jobs)
    others = list(blocking.values())
    is_admin = principal.is_at_least("admin")
    named = {job.id for job in others} if is_admin else readable(session, others, principal)
    return {job_id: _answer(other, other.id in named) for job_id, other in blocking.items()}


def readable(session: Session, jobs: Sequence[Job], principal: Principal) -> set[str]:
    """The ids of the jobs that a user may see."""
    ids = [job.id for job in jobs]
    return set(session.scalars(select(Job.id).where(Job.id.in_(ids), visible_to(Job.owner_id, principal))))


def _blocking(session: Session, jobs: Sequence[Job]) -> dict[str, Job]:
    """The jobs that have not ended and that queued ones wait for, by the ids of those."""
    in_line = {job.id: job.starts_after_id for job in jobs if job.state == "queued" and wait_reasons.is_in_line(job)}
    ids = {job_id for job_id in in_line.values() if job_id is not None}
    query = select(Job).where(Job.id.in_(ids), Job.finished_at.is_(None))
    rows = {job.id: job for job in session.scalars(query)} if ids else {}
    return {job_id: rows[other] for job_id, other in in_line.items() if other in rows}


def _answer(job: Job, is_named: bool) -> BlockingJob:
    return BlockingJob(id=job.id, name=job.name) if is_named else BlockingJob()

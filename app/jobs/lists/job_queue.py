"""The queue: everybody's jobs that wait for a place, in their order, each as far as the reader may see it."""

from collections.abc import Sequence
from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import db
from app.core.account_models import User
from app.core.models import Job
from app.core.paging import Listing
from app.core.principal import Principal
from app.jobs import schemas
from app.jobs.lifecycle.notifications import notify_job_changed
from app.jobs.lists import queue_moves
from app.jobs.scheduling import dispatch
from app.jobs.schemas import WaitAnswer
from app.jobs.views import blocking_jobs
from app.jobs.views.blocking_jobs import BlockingJob
from app.web.auth import Reader, Submitter
from app.web.idempotency import ApiRoute
from app.web.parameters import Id, ShortText
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["jobs"])

MAX_LISTED = 1_000


class QueuedJobAnswer(BaseModel):
    """A job in the queue. Of a job that the reader may not see, only its place and its expected start."""

    position: int = Field(description="1 is next.")
    id: str | None = Field(description="Null for a job that you may not see, like its name and owner.")
    name: str | None
    owner: str | None = Field(description="Name of the user who submitted it.")
    is_own: bool = Field(description="Whether it is your own job.")
    is_readable: bool = Field(description="Whether you may open it: your own, and those that are shared with you.")
    queued_at: datetime = Field(description="When it was submitted or last resumed.")
    expected_start_at: datetime | None = Field(description="If those before it take as long as estimated.")
    blocking_job: BlockingJob | None = Field(description="The job whose end frees its place; null if unknown.")
    wait: WaitAnswer | None = Field(description="Why it waits; null for a job that you may not open.")


class MoveRequest(BaseModel):
    """Where a job goes in the queue: directly before or directly after another one."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"before": "06e9x1aa3kb5c7de"}]})

    before: ShortText | None = None
    after: ShortText | None = None


def list_queue(session: Session, *, principal: Principal) -> list[QueuedJobAnswer]:
    """The jobs that wait for a place, the next one first, at most MAX_LISTED. Admins and owners see all names."""
    return answers(session, principal, list(enumerate(dispatch.queue_order(session), 1))[:MAX_LISTED])


def answers(session: Session, principal: Principal, positions: Sequence[tuple[int, Job]]) -> list[QueuedJobAnswer]:
    """Jobs of the queue, each with its position, as far as the user may see them."""
    jobs = [job for _position, job in positions]
    readable = blocking_jobs.readable(session, jobs, principal)
    blocking = blocking_jobs.for_principal(session, jobs, principal)
    owners = _names(session, jobs)
    listed = []
    for position, job in positions:
        wait = schemas.wait_answer(job, blocking.get(job.id))
        is_named = job.id in readable or principal.is_at_least("admin")
        listed.append(
            QueuedJobAnswer(
                position=position,
                id=job.id if is_named else None,
                name=job.name if is_named else None,
                owner=owners[job.owner_id] if is_named else None,
                is_own=job.owner_id == principal.user_id,
                is_readable=job.id in readable,
                queued_at=job.queued_at,
                expected_start_at=wait.until if wait else None,
                blocking_job=blocking.get(job.id),
                wait=wait if job.id in readable else None,
            )
        )
    return listed


def _names(session: Session, jobs: Sequence[Job]) -> dict[str, str]:
    users = session.execute(select(User.id, User.name).where(User.id.in_({job.owner_id for job in jobs})))
    return {user.id: user.name for user in users}


@router.get("/queue")
def get_queue(principal: Reader) -> Listing[QueuedJobAnswer]:
    """List the jobs that wait for a place, the next one first: the first thousand."""
    with db.transaction() as session:
        return Listing(data=list_queue(session, principal=principal), next=None)


@router.post(
    "/jobs/{job_id}/move",
    responses=errors("not_owner", "job_not_waiting", "queue_target_missing", "queue_target_unknown"),
)
def move_job(principal: Submitter, job_id: Id, body: MoveRequest) -> QueuedJobAnswer:
    """Move a queued job before or after another one of yours; admins and owners, before or after any.

    Your jobs exchange their places, so that no job of another user is passed.
    """
    with db.transaction() as session:
        job = queue_moves.move(session, principal=principal, job_id=job_id, before=body.before, after=body.after)
        position = dispatch.queue_order(session).index(job) + 1
        (answer,) = answers(session, principal, [(position, job)])
    notify_job_changed(job_id)
    return answer

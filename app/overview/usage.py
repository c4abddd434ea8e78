"""What users and their running jobs use of the machines now, as attempts measure it, and of the disk."""

from collections.abc import Sequence

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core import db, paging, quotas
from app.core.account_models import User
from app.core.models import HELD, Checkpoint, Job, Node
from app.core.paging import Listing
from app.core.principal import Principal
from app.web.auth import Reader
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit

router = APIRouter(route_class=ApiRoute, tags=["nodes"])

PAGE_LENGTH = 50


class JobUse(BaseModel):
    """What a running job uses. Null: it has not measured that yet, or its machine does not report it."""

    id: str
    name: str
    node: str
    cpu_cores: float | None = Field(description="Processor cores that are busy with it.")
    memory_bytes: int | None
    num_gpus: int = Field(description="GPUs that it has.")
    gpu_percent: float | None = Field(description="Mean utilization of its GPUs.")
    disk_bytes: int = Field(description="Of its checkpoints.")


class UserUse(BaseModel):
    """What a user uses: the sums over the running jobs, and the disk space that counts toward the quota."""

    name: str
    cpu_cores: float
    memory_bytes: int
    num_gpus: int
    disk_bytes: int
    jobs: list[JobUse]


def list_use(
    session: Session, *, principal: Principal, limit: int = PAGE_LENGTH, after: str | None = None
) -> tuple[list[UserUse], str | None]:
    """What users use, newest account first, and the cursor of the next page. Members see themselves only."""
    query = select(User)
    if not principal.is_at_least("admin"):
        query = query.where(User.id == principal.user_id)
    users, cursor = paging.newest(session, query, User.id, limit, after)
    jobs = _jobs(session, [user.id for user in users])
    return [_use_of(session, user, jobs.get(user.id, [])) for user in users], cursor


def _use_of(session: Session, user: User, jobs: list[JobUse]) -> UserUse:
    return UserUse(
        name=user.name,
        cpu_cores=sum(job.cpu_cores or 0 for job in jobs),
        memory_bytes=sum(job.memory_bytes or 0 for job in jobs),
        num_gpus=sum(job.num_gpus for job in jobs),
        disk_bytes=quotas.used_bytes(session, user.id),
        jobs=jobs,
    )


def _jobs(session: Session, user_ids: Sequence[str]) -> dict[str, list[JobUse]]:
    """The running jobs of users, by the users' ids."""
    running = select(Job).where(Job.owner_id.in_(user_ids), Job.state.in_(HELD), Job.node.is_not(None))
    rows = session.scalars(running.order_by(Job.id)).all()
    sizes = select(Checkpoint.job_id, func.sum(Checkpoint.num_bytes)).where(
        Checkpoint.job_id.in_([job.id for job in rows]), Checkpoint.state != "deleted"
    )
    disk_bytes = {job_id: int(total) for job_id, total in session.execute(sizes.group_by(Checkpoint.job_id))}
    num_cpus = {node.name: node.num_cpus for node in session.scalars(select(Node))}
    uses: dict[str, list[JobUse]] = {}
    for job in rows:
        percent, memory = _latest(job, "cpu_percent"), _latest(job, "memory_bytes")
        use = JobUse(
            id=job.id,
            name=job.name,
            node=str(job.node),
            cpu_cores=percent / 100 * num_cpus[str(job.node)] if percent is not None else None,
            memory_bytes=int(memory) if memory is not None else None,
            num_gpus=len(job.gpus),
            gpu_percent=_latest(job, "gpu_percent"),
            disk_bytes=disk_bytes.get(job.id, 0),
        )
        uses.setdefault(job.owner_id, []).append(use)
    return uses


def _latest(job: Job, series: str) -> float | None:
    value = job.progress.latest.get(series)
    return None if isinstance(value, str) else value


@router.get("/usage")
def list_machine_use(principal: Reader, limit: Limit = 50, after: After = None) -> Listing[UserUse]:
    """What you and your running jobs use of processors, memory, GPUs and disk; for admins and owners, what all do."""
    with db.transaction() as session:
        users, cursor = list_use(session, principal=principal, limit=limit, after=after)
    return Listing(data=users, next=cursor)

"""Quotas of users: disk space, jobs that run at once, and GPU hours within thirty days. What each of them uses.

Disk space counts files and text of corpora (a file once, however many versions have it; of downloads what has arrived),
checkpoints, base models, exports, and archives of jobs while they are imported. The cache of tokens counts for nobody:
jobs of several users share it, and what is not needed goes by itself. A quota is checked when something is begun; what
runs is never ended for it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import BigInteger, ColumnElement, Float, case, cast, func, or_, select, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.core import storage
from app.core.account_models import User
from app.core.errors import PanelError
from app.core.formatting import file_size
from app.core.i18n import _
from app.core.models import HELD, Attempt, BackgroundTask, Checkpoint, Corpus, CorpusFile, ImportedModel, Job, Node
from app.core.openai_models import Upload
from app.core.principal import works_on_trash

QUOTA_LOCK = 0x71756F  # of PostgreSQL, beside the hash of a user: any number that nothing else uses
GPU_PERIOD = timedelta(days=30)


class Quotas(BaseModel):
    """What a user may take at most; null: as much as there is."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"disk_bytes": 50_000_000_000, "running_jobs": 2, "gpu_hours": 100}]},
    )

    disk_bytes: int | None = Field(ge=0, le=10**18, description="Of corpora, checkpoints, models and exports.")
    running_jobs: int | None = Field(ge=0, le=10_000, description="Jobs at once; others wait.")
    gpu_hours: float | None = Field(ge=0, le=10**9, description="Within thirty days; then new jobs wait.")


def of_user(user: User) -> Quotas:
    """The quotas of a user."""
    return Quotas(disk_bytes=user.quota_bytes, running_jobs=user.quota_jobs, gpu_hours=user.quota_gpu_hours)


@dataclass(frozen=True)
class UserUsage:
    """What a user takes: bytes on the disk, jobs on nodes, and GPU hours of the last thirty days."""

    disk_bytes: int
    running_jobs: int
    gpu_hours: float


def usage(session: Session, user_id: str) -> UserUsage:
    """What a user takes now."""
    running = select(func.count()).where(Job.owner_id == user_id, Job.state.in_(HELD))
    hours = gpu_hours(session, [user_id]).get(user_id, 0.0)
    return UserUsage(used_bytes(session, user_id), session.scalar(running) or 0, hours)


def used_bytes(session: Session, user_id: str) -> int:
    """The disk space that a user takes, in bytes, with what is in the trash."""
    return _sum_bytes(session, user_id, lambda table: true())


def trashed_bytes(session: Session, user_id: str) -> int:
    """How much less of the disk space a user would take with an empty trash, in bytes."""

    def is_left(table: type[Any]) -> ColumnElement[bool]:
        left: ColumnElement[bool] = ~works_on_trash() if table is BackgroundTask else table.deleted_at.is_(None)
        return left

    return used_bytes(session, user_id) - _sum_bytes(session, user_id, is_left)


def _sum_bytes(session: Session, user_id: str, is_counted: Callable[[type[Any]], ColumnElement[bool]]) -> int:
    """The disk space of the rows of a user that are counted, in bytes."""
    of_corpora = (Corpus.owner_id == user_id, is_counted(Corpus))
    files = (
        select(func.max(CorpusFile.num_bytes).label("size"))
        .join(Corpus, Corpus.id == CorpusFile.corpus_id)
        .where(*of_corpora)
        .group_by(CorpusFile.sha256)
        .subquery()
    )
    file = func.jsonb_array_elements(BackgroundTask.result["files"], type_=JSONB)
    of_exports = (BackgroundTask.kind == "export", BackgroundTask.state == "succeeded", is_counted(BackgroundTask))
    exports = (
        select(cast(file.op("->>")("size"), BigInteger).label("size"))
        .where(BackgroundTask.owner_id == user_id, *of_exports)
        .subquery()
    )
    is_archive = (BackgroundTask.kind == "job_import", BackgroundTask.state.in_(("queued", "running")))
    archive_bytes = cast(BackgroundTask.options["num_bytes"].as_string(), BigInteger)
    of_models = (ImportedModel.owner_id == user_id, is_counted(ImportedModel))
    of_checkpoints = (Checkpoint.owner_id == user_id, Checkpoint.state != "deleted", is_counted(Checkpoint))
    sums = (
        select(func.sum(files.c.size)),
        select(func.sum(exports.c.size)),
        select(func.sum(archive_bytes)).where(BackgroundTask.owner_id == user_id, *is_archive),
        select(func.sum(Corpus.num_text_bytes)).where(*of_corpora),
        select(func.sum(Upload.num_received)).where(Upload.owner_id == user_id, Upload.state == "pending"),
        select(func.sum(ImportedModel.num_bytes)).where(*of_models),
        select(func.sum(Checkpoint.num_bytes)).where(*of_checkpoints),
    )
    downloads = (
        select(Corpus.id)
        .join(CorpusFile, CorpusFile.corpus_id == Corpus.id)
        .where(Corpus.owner_id == user_id, CorpusFile.url.is_not(None), CorpusFile.sha256 == "")
        .distinct()
    )
    arrived = sum(storage.num_bytes(storage.corpus_download(corpus_id)) for corpus_id in session.scalars(downloads))
    return arrived + sum(int(session.scalar(query) or 0) for query in sums)


def check_disk(session: Session, user_id: str | None, num_bytes: int = 0) -> None:
    """Raise PanelError (403) if `num_bytes` more are more than a user may take. Requests of one user take turns."""
    if user_id is None:
        return
    quota = session.scalar(select(User.quota_bytes).where(User.id == user_id))
    if quota is None:
        return
    session.execute(select(func.pg_advisory_xact_lock(QUOTA_LOCK, func.hashtext(user_id))))
    used = used_bytes(session, user_id)
    if used + num_bytes > quota:
        message = _(
            "Your quota of disk space is {quota}; in use: {used}; this needs {needed}. Delete corpora, "
            "checkpoints, models or exports that you no longer need and empty the trash, or ask an administrator for "
            "more.",
            quota=file_size(quota),
            used=file_size(used),
            needed=file_size(num_bytes),
        )
        raise PanelError(403, "quota_exceeded", message)


def gpu_hours(session: Session, user_ids: Iterable[str]) -> dict[str, float]:
    """The GPU hours of the last thirty days, by user: the time of attempts on nodes with GPUs times their processes."""
    start = func.now() - GPU_PERIOD
    begin = case((Attempt.started_at < start, start), else_=Attempt.started_at)
    seconds = func.extract("epoch", func.coalesce(Attempt.ended_at, func.now()) - begin)
    processes = cast(Job.spec["num_processes"].as_string(), Float)
    query = (
        select(Job.owner_id, func.sum(seconds * processes))
        .join(Attempt, Attempt.job_id == Job.id)
        .join(Node, Node.name == Attempt.node)
        .where(
            Job.owner_id.in_(list(user_ids)),
            or_(Attempt.ended_at.is_(None), Attempt.ended_at > start),
            func.jsonb_array_length(Node.gpus) > 0,
        )
        .group_by(Job.owner_id)
    )
    return {owner: float(total) / 3600 for owner, total in session.execute(query)}


def job_limits(session: Session, user_ids: Iterable[str]) -> dict[str, int]:
    """How many jobs may run at once, of the users who have a quota for that."""
    query = select(User.id, User.quota_jobs).where(User.id.in_(list(user_ids)), User.quota_jobs.is_not(None))
    return {user_id: int(quota or 0) for user_id, quota in session.execute(query)}


def exhausted_gpu_quotas(session: Session, user_ids: Iterable[str]) -> dict[str, float]:
    """The quotas, in GPU hours, of the users who have used theirs up."""
    query = select(User.id, User.quota_gpu_hours).where(User.id.in_(list(user_ids)), User.quota_gpu_hours.is_not(None))
    quotas = {user_id: float(quota or 0) for user_id, quota in session.execute(query)}
    used = gpu_hours(session, quotas) if quotas else {}
    return {user_id: quota for user_id, quota in quotas.items() if used.get(user_id, 0.0) >= quota}

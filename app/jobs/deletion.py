"""Deleting jobs: into the trash, out of it, and for good; and how other kinds of rows are deleted for good."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Text, any_, func, literal_column, select, update
from sqlalchemy import delete as sql_delete
from sqlalchemy.orm import Session

from app.base_models import service as base_models
from app.checkpoints import service as checkpoints
from app.core import audit_log, background_tasks, deleted_directories, sharing, storage
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.models import (
    TERMINAL,
    BackgroundTask,
    Checkpoint,
    Corpus,
    ImportedModel,
    Job,
    MetricPoint,
    MetricRollup,
    Sample,
    Tokenizer,
)
from app.core.notice_models import UserNotice
from app.core.openai_models import Submission
from app.core.principal import Principal, own
from app.corpora import service as corpora
from app.tokenizers import service as tokenizers

HISTORY: tuple[type[Any], ...] = (MetricPoint, MetricRollup, Sample)  # tables of which a job may have millions of rows


def delete(session: Session, *, principal: Principal, job_id: str) -> None:
    """Move a job that has ended to the trash, with its checkpoints and what was exported or measured of them,
    and end its owner's exports and evaluations of them.

    Raises PanelError: 404, or 409 for a job that has not ended, and while another job, a deployment or another user's
    task uses one of its checkpoints. Its Idempotency-Key is free for a new job.
    """
    job = own(session, Job, job_id, principal=principal)
    if job.state not in TERMINAL:
        raise PanelError(409, "job_open", _("This job has not ended. Cancel it first, then delete it."))
    ids = session.scalars(select(Checkpoint.id).where(Checkpoint.job_id == job_id).with_for_update()).all()
    checkpoints.refuse_in_use(session, ids, principal.user_id)
    background_tasks.cancel_of(session, BackgroundTask.checkpoint_id, *ids)
    audit_log.record(session, "job_deleted", principal, subject=job.name, subject_id=job_id)
    job.idempotency_key, job.deleted_at = None, func.now()
    session.flush()
    session.refresh(job, ["deleted_at"])
    session.execute(update(Submission).where(Submission.job_id == job_id).values(idempotency_key=None))
    of_job = (Checkpoint.job_id == job_id, Checkpoint.deleted_at.is_(None))
    session.execute(update(Checkpoint).where(*of_job).values(deleted_at=job.deleted_at))


def restore(session: Session, job: Job) -> None:
    """Take a job, which is locked, out of the trash, with the checkpoints that went there with it."""
    with_it = (Checkpoint.job_id == job.id, Checkpoint.deleted_at == job.deleted_at)
    session.execute(update(Checkpoint).where(*with_it).values(deleted_at=None))
    job.deleted_at = None


def purge(session: Session, job: Job) -> None:
    """Delete a job, which is locked, for good, with its checkpoints, exports and evaluations. The sweep removes the
    files, the metrics and the row.

    Raises PanelError (409) if another job, another user's task or a deployment uses one of its checkpoints.
    """
    ids = session.scalars(select(Checkpoint.id).where(Checkpoint.job_id == job.id)).all()
    checkpoints.refuse_in_use(session, ids, job.owner_id)
    background_tasks.cancel_of(session, BackgroundTask.checkpoint_id, *ids)
    tasks = session.scalars(select(BackgroundTask.id).where(BackgroundTask.checkpoint_id.in_(ids)))
    outputs = [storage.background_task(task_id) for task_id in tasks]
    deleted_directories.note(session, storage.run(job.id), *outputs)
    sharing.forget(session, job)
    session.execute(sql_delete(Checkpoint).where(Checkpoint.job_id == job.id))
    session.execute(update(UserNotice).where(UserNotice.job_id == job.id).values(job_id=None))
    job.purged_at = func.now()


def list_purged(session: Session, limit: int) -> list[str]:
    """The IDs of jobs that were deleted for good and whose rows are left, the oldest first."""
    purged = select(Job.id).where(Job.purged_at.is_not(None))
    return list(session.scalars(purged.order_by(Job.purged_at, Job.id).limit(limit)))


def delete_rows(session: Session, job_id: str, limit: int) -> bool:
    """Delete up to `limit` rows of the metrics and samples of a job that was deleted for good, then the job. Returns
    whether nothing is left.
    """
    place: ColumnElement[Any] = literal_column("ctid")  # of a row in its table: no index needs to be read
    for table in HISTORY:
        first = select(place).select_from(table).where(table.job_id == job_id).limit(limit).correlate(None)
        places = func.array(first.scalar_subquery(), type_=ARRAY(Text))
        deleted = sql_delete(table).where(place == any_(places)).returning(table.job_id)
        limit -= len(session.execute(deleted).all())
        if limit <= 0:
            return False
    session.execute(sql_delete(Job).where(Job.id == job_id, Job.purged_at.is_not(None)))
    return True


# How rows of each kind are deleted for good; jobs first, as their checkpoints go with them.
PURGES: dict[type[Any], Callable[[Session, Any], None]] = {
    Job: purge,
    Checkpoint: checkpoints.purge,
    Corpus: corpora.purge,
    ImportedModel: base_models.purge,
    Tokenizer: tokenizers.purge,
}

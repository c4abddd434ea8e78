"""Deleting jobs: into the trash, out of it, and for good."""

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.checkpoints import service as checkpoints
from app.core import audit_log, deleted_directories, sharing, storage
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.models import TERMINAL, BackgroundTask, Checkpoint, Job
from app.core.openai_models import Submission
from app.core.principal import Principal, own


def delete(session: Session, *, principal: Principal, job_id: str) -> None:
    """Move a job that has ended to the trash, with its checkpoints and what was exported or measured of them.

    Raises PanelError: 404, or 409 for a job that has not ended, and while another job or a task uses one of its
    checkpoints. Its Idempotency-Key is free for a new job.
    """
    job = own(session, Job, job_id, principal=principal)
    if job.state not in TERMINAL:
        raise PanelError(409, "job_open", _("This job has not ended. Cancel it first, then delete it."))
    ids = session.scalars(select(Checkpoint.id).where(Checkpoint.job_id == job_id).with_for_update()).all()
    checkpoints.refuse_in_use(session, ids, principal)
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
    """Delete a job, which is locked, for good, with its metrics, checkpoints, exports and evaluations; the sweep
    removes the files.
    """
    ids = select(Checkpoint.id).where(Checkpoint.job_id == job.id)
    tasks = session.scalars(select(BackgroundTask.id).where(BackgroundTask.checkpoint_id.in_(ids)))
    outputs = [storage.background_task(task_id) for task_id in tasks]
    deleted_directories.note(session, storage.run(job.id), *outputs)
    sharing.forget(session, job)
    session.delete(job)

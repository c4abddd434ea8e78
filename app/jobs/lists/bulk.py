"""Jobs that are cancelled, deleted or tagged together: what goes with each, and what depends on it."""

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.core import storage
from app.core.i18n import _, ngettext
from app.core.labels import LabelChanges
from app.core.models import BackgroundTask, Checkpoint, Job
from app.core.principal import Principal
from app.jobs import deletion, service
from app.jobs.lifecycle import notifications
from app.jobs.service import JobChanges
from app.web.bulk import MAX_NAMES, BulkRows, listed


def _uses(session: Session, principal: Principal, job: Job) -> list[str]:
    """The jobs that continue or start from a job's checkpoints, and what goes to the trash with it."""
    ids = select(Checkpoint.id).where(Checkpoint.job_id == job.id, Checkpoint.deleted_at.is_(None))
    starts = or_(Job.resume_from_id.in_(ids), Job.spec["base_model"].as_string().in_(ids))
    of_user = (Job.owner_id == principal.user_id, Job.deleted_at.is_(None), Job.id != job.id)
    names = session.scalars(select(Job.name).where(*of_user, starts).order_by(Job.id.desc()).limit(MAX_NAMES + 1)).all()
    num_checkpoints = session.scalar(select(func.count()).select_from(ids.subquery())) or 0
    of_checkpoints = select(func.count()).where(BackgroundTask.checkpoint_id.in_(ids))
    num_tasks = session.scalar(of_checkpoints) or 0
    checkpoints = ngettext("{n} checkpoint goes with it", "{n} checkpoints go with it", num_checkpoints)
    tasks = ngettext("{n} export or evaluation goes with it", "{n} exports and evaluations go with it", num_tasks)
    sentences = (
        _("Jobs: {names}", names=listed(names)) if names else "",
        checkpoints if num_checkpoints else "",
        tasks if num_tasks else "",
    )
    return [sentence for sentence in sentences if sentence]


def _change_labels(session: Session, principal: Principal, job_id: str, changes: LabelChanges) -> Job:
    changed = JobChanges.model_validate(changes.model_dump(exclude_unset=True))
    return service.change(session, principal=principal, job_id=job_id, changes=changed)


ROWS = BulkRows(
    table=Job,
    box="job",
    directory=lambda job: storage.run(job.id),
    delete=lambda session, principal, job_id: deletion.delete(session, principal=principal, job_id=job_id),
    uses=_uses,
    changes={"cancel": lambda session, principal, job_id: service.cancel(session, principal=principal, job_id=job_id)},
    change_labels=_change_labels,
    after_change=notifications.notify_job_changed,
)

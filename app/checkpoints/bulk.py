"""Checkpoints that are pinned, unpinned or deleted together: what depends on each."""

from collections.abc import Callable

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.checkpoints import service
from app.core import background_tasks, storage
from app.core.i18n import _, gettext_noop, ngettext
from app.core.labels import LabelChanges, checkpoint_title
from app.core.models import BackgroundTask, Checkpoint, Job
from app.core.principal import Principal
from app.web.bulk import MAX_NAMES, BulkRows, listed
from app.web.labels import LabelForm


def _uses(session: Session, principal: Principal, checkpoint: Checkpoint) -> list[str]:
    """Whether a checkpoint is pinned, the jobs that start from it, and its exports and evaluations that stay."""
    starts = or_(Job.resume_from_id == checkpoint.id, Job.spec["base_model"].as_string() == checkpoint.id)
    jobs = (
        select(Job.name)
        .where(Job.owner_id == principal.user_id, Job.deleted_at.is_(None), starts)
        .order_by(Job.id.desc())
    )
    names = session.scalars(jobs.limit(MAX_NAMES + 1)).all()
    ended = (BackgroundTask.checkpoint_id == checkpoint.id, BackgroundTask.state.not_in(background_tasks.OPEN))
    num_tasks = session.scalar(select(func.count()).where(*ended)) or 0
    tasks = ngettext("{n} export or evaluation stays", "{n} exports and evaluations stay", num_tasks)
    sentences = (
        _("Pinned") if checkpoint.pinned else "",
        _("Jobs: {names}", names=listed(names)) if names else "",
        tasks if num_tasks else "",
    )
    return [sentence for sentence in sentences if sentence]


def _name(session: Session, checkpoint: Checkpoint) -> str:
    job_name = session.scalar(select(Job.name).where(Job.id == checkpoint.job_id))
    return checkpoint_title(str(job_name), checkpoint.step, checkpoint.name)


def change_labels(session: Session, principal: Principal, row_id: str, changes: LabelChanges) -> Checkpoint:
    """Name, tag or describe the row of an ID."""
    return service.change_labels(session, principal=principal, checkpoint_id=row_id, changes=changes)


def _pin(*, pinned: bool) -> Callable[[Session, Principal, str], object]:
    return lambda session, principal, checkpoint_id: service.pin(
        session, principal=principal, checkpoint_id=checkpoint_id, pinned=pinned
    )


ROWS = BulkRows(
    table=Checkpoint,
    box="model",
    directory=lambda checkpoint: storage.checkpoint(checkpoint.path),
    delete=lambda session, principal, checkpoint_id: service.delete(
        session, principal=principal, checkpoint_id=checkpoint_id
    ),
    uses=_uses,
    name=_name,
    changes={"pin": _pin(pinned=True), "unpin": _pin(pinned=False)},
    change_labels=change_labels,
)
LABELS = LabelForm(
    "/checkpoints",
    gettext_noop("Checkpoint"),
    change_labels,
    gettext_noop("Lists show it before the name of the job and the step. Leave it empty for these alone."),
    is_name_required=False,
)

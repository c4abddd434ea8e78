"""One request for many jobs: cancel, delete or tag those that were chosen in the list."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.core import labels
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.models import Job
from app.core.principal import Principal, visible
from app.jobs import deletion, service
from app.jobs.lifecycle import notifications
from app.jobs.service import JobChanges
from app.web.bulk import BulkOutcome, change_each


def change(principal: Principal, action: str, job_ids: Sequence[str], tag: str = "") -> BulkOutcome:
    """Cancel, delete or tag jobs, each in a transaction of its own, so that one that cannot be changed stops none."""
    if not job_ids:
        return BulkOutcome(action, problem=_("Choose at least one job."))

    def verb(session: Session, job_id: str) -> None:
        _change(session, principal, action, job_id, tag)

    def name_of(session: Session, job_id: str) -> str:
        return visible(session, Job, job_id, principal=principal).name

    return change_each(action, job_ids, verb, name_of, notifications.notify_job_changed)


def _change(session: Session, principal: Principal, action: str, job_id: str, tag: str) -> None:
    if action == "cancel":
        service.cancel(session, principal=principal, job_id=job_id)
    elif action == "delete":
        deletion.delete(session, principal=principal, job_id=job_id)
    elif action != "tag":
        raise PanelError(422, "action_unknown", _("Choose what to do with the jobs."))
    else:
        changes = labels.with_tag(service.get(session, principal=principal, job_id=job_id), tag)
        service.change(session, principal=principal, job_id=job_id, changes=JobChanges(tags=changes.tags))

"""One request for many jobs: cancel, delete or tag those that were chosen in the list."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from app.core import db
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.models import Job
from app.core.principal import Principal, visible
from app.jobs import service
from app.jobs.lifecycle import notifications
from app.jobs.service import JobChanges

MAX_JOBS = 100


@dataclass
class BulkOutcome:
    """How many jobs were changed, and why others were not: each reason with the names of its jobs."""

    action: str
    num_changed: int = 0
    refused: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_refused(self) -> bool:
        """Whether nothing was changed."""
        return self.num_changed == 0


def change(principal: Principal, action: str, job_ids: Sequence[str], tag: str = "") -> BulkOutcome:
    """Cancel, delete or tag jobs, each in a transaction of its own, so that one that cannot be changed stops none."""
    outcome = BulkOutcome(action)
    ids = list(dict.fromkeys(job_ids))[:MAX_JOBS]
    if not ids:
        outcome.refused[_("Choose at least one job.")] = []
    for job_id in ids:
        name = job_id
        try:
            with db.transaction() as session:
                name = visible(session, Job, job_id, principal=principal).name
                _change(session, principal, action, job_id, tag)
        except PanelError as error:
            reason = error.fields[0].message if error.fields else error.message
            outcome.refused.setdefault(reason, []).append(name)
        else:
            outcome.num_changed += 1
            notifications.notify_job_changed(job_id)
    return outcome


def _change(session: Session, principal: Principal, action: str, job_id: str, tag: str) -> None:
    if action == "cancel":
        service.cancel(session, principal=principal, job_id=job_id)
    elif action == "delete":
        service.delete(session, principal=principal, job_id=job_id)
    elif action != "tag":
        raise PanelError(422, "action_unknown", _("Choose what to do with the jobs."))
    elif not tag.strip():
        raise PanelError(422, "tag_missing", _("Enter a tag."))
    else:
        tags = service.get(session, principal=principal, job_id=job_id).tags
        changes = JobChanges(tags=[*tags, tag[:1_000]])
        service.change(session, principal=principal, job_id=job_id, changes=changes)

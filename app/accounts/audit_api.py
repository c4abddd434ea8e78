"""The JSON route of the audit log."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.core import audit_log, db
from app.core.audit_log import Action
from app.core.audit_models import AuditEntry
from app.core.paging import Listing
from app.web.auth import PeopleManager
from app.web.idempotency import ApiRoute
from app.web.paging import After, Limit
from app.web.problem_types import errors

router = APIRouter(route_class=ApiRoute, tags=["people"])

PersonName = Annotated[
    str, Query(description="Name of a user who did something or to whom it was done, whatever its case.", max_length=80)
]
Search = Annotated[str, Query(description="A part of a name, a detail or an address.", max_length=200)]


class AuditEntryAnswer(BaseModel):
    """An action. Names are those of then, also of what was deleted since."""

    id: str
    at: datetime
    user_id: str | None = Field(description="Null for failed logins and for commands on the server.")
    user: str = Field(description="Name of the user who did it.")
    address: str = Field(description="Where the request came from; empty for commands on the server.")
    action: Action
    subject_id: str | None
    subject: str = Field(description="Name of what it was done to.")
    detail: str
    num_times: int = Field(description="Of failed logins: how many wrong passwords within the minute.")


def _answer(entry: AuditEntry) -> AuditEntryAnswer:
    names = AuditEntryAnswer.model_fields.keys() - {"user"}
    return AuditEntryAnswer(user=entry.user_name, **{name: getattr(entry, name) for name in names})


@router.get("/audit-log", responses=errors("role_missing"))
def list_audit_log(
    _principal: PeopleManager,
    person: PersonName = "",
    action: Action | None = None,
    q: Search = "",
    limit: Limit = 50,
    after: After = None,
) -> Listing[AuditEntryAnswer]:
    """List what was done, newest first. Entries are kept for 365 days. For admins and owners."""
    with db.transaction() as session:
        entries, cursor = audit_log.list_entries(
            session, person=person, action=action, search=q, limit=limit, after=after
        )
    return Listing(data=[_answer(entry) for entry in entries], next=cursor)

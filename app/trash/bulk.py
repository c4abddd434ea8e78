"""Changes of several things in the trash at once."""

from collections.abc import Callable, Sequence

from sqlalchemy.orm import Session

from app.core import db
from app.core.principal import Principal
from app.trash import service
from app.web.bulk import BulkOutcome, change_each


def change(
    principal: Principal, action: str, ids: Sequence[str], verb: Callable[[Session, str], object]
) -> BulkOutcome:
    """Change things in the trash of a user, each in a transaction of its own."""

    def name_of(session: Session, row_id: str) -> str:
        return service.name(session, principal=principal, row_id=row_id)

    return change_each(action, ids, verb, name_of)


def purge(principal: Principal, ids: Sequence[str]) -> BulkOutcome:
    """Delete things for good. What a job, a task or a deployment uses stays."""

    def verb(session: Session, row_id: str) -> None:
        service.purge(session, principal=principal, row_id=row_id)

    return change(principal, "purge", ids, verb)


def empty(principal: Principal) -> BulkOutcome:
    """Delete everything in the trash of a user for good that can be."""
    with db.transaction() as session:
        ids = service.list_ids(session, principal=principal)
    return purge(principal, ids)

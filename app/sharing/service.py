"""Sharing what a user owns, whatever it is."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import sharing
from app.core.models import Checkpoint, Corpus, ImportedModel, Job, Tokenizer
from app.core.principal import Principal, not_found, own, visible_to
from app.core.sharing import SharedWith

# The pages of what can be shared.
ADDRESSES: dict[type[Any], str] = {
    Corpus: "/corpora",
    ImportedModel: "/models",
    Tokenizer: "/tokenizers",
    Job: "/jobs",
    Checkpoint: "/checkpoints",
}


def find_own(session: Session, *, principal: Principal, row_id: str) -> Any:
    """What the user owns under an ID, locked. Raises 404, or 403 for what is only shared with them or ships here."""
    for table in ADDRESSES:
        if (
            session.scalar(select(table.id).where(table.id == row_id, visible_to(table.owner_id, principal)))
            is not None
        ):
            row = own(session, table, row_id, principal=principal)
            if row.owner_id is None:
                raise sharing.shipped()
            return row
    raise not_found()


def get(session: Session, *, principal: Principal, row_id: str) -> SharedWith:
    """With whom a user shares something. Raises PanelError as `find_own` does."""
    return sharing.get(session, find_own(session, principal=principal, row_id=row_id))


def change(session: Session, *, principal: Principal, row_id: str, everyone: bool, users: list[str]) -> SharedWith:
    """Share something with these users and no others. Raises PanelError, also at `users`."""
    row = find_own(session, principal=principal, row_id=row_id)
    return sharing.change(session, principal, row, everyone=everyone, users=users)

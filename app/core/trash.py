"""The trash: what users delete stays there for LIFETIME, unseen and unused, until it is restored or deleted for good.

A row is in the trash while its `deleted_at` is set; `visible_to` in app/core/principal.py leaves such rows out. Their
files stay where they are and count as used disk space. The services of each kind move, restore and delete their rows.
"""

from datetime import timedelta
from typing import TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core.models import Checkpoint, Corpus, ImportedModel, Job, Tokenizer
from app.core.principal import Principal, not_found

LIFETIME = timedelta(days=7)

Row = TypeVar("Row", Checkpoint, Corpus, ImportedModel, Job, Tokenizer)


def get(session: Session, table: type[Row], row_id: str, *, principal: Principal) -> Row:
    """A row of the user's that is in the trash, locked. Raises 404."""
    own = (table.id == row_id, table.owner_id == principal.user_id, table.deleted_at.is_not(None))
    row = session.scalar(select(table).where(*own).with_for_update().execution_options(populate_existing=True))
    if row is None:
        raise not_found()
    return row


def list_expired(session: Session, table: type[Row], limit: int) -> list[Row]:
    """Rows that have been in the trash for LIFETIME, locked, the oldest first."""
    is_over = table.deleted_at < func.now() - LIFETIME
    query = select(table).where(is_over).order_by(table.deleted_at).limit(limit)
    return list(session.scalars(query.with_for_update(skip_locked=True)))

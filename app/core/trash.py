"""The trash: what users delete stays there for LIFETIME, unseen and unused, until it is restored or deleted for good.

A row is in the trash while its `deleted_at` is set; `visible_to` in app/core/principal.py leaves such rows out. Their
files stay where they are and count as used disk space. The services of each kind move, restore and delete their rows.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from app.core.models import Checkpoint, Corpus, ImportedModel, Job, Tokenizer
from app.core.principal import Principal, is_in_trash, not_found

LIFETIME = timedelta(days=7)
TABLES: tuple[type[Any], ...] = (Job, Checkpoint, Corpus, ImportedModel, Tokenizer)

Row = TypeVar("Row", Checkpoint, Corpus, ImportedModel, Job, Tokenizer)


def is_restorable(table: type[Any]) -> ColumnElement[bool]:
    """Whether a row is in the trash, and neither a checkpoint whose job is there nor a job deleted for good."""
    condition: ColumnElement[bool] = table.deleted_at.is_not(None)
    if table is Checkpoint:
        return condition & ~exists().where(Job.id == Checkpoint.job_id, Job.deleted_at.is_not(None))
    return condition & Job.purged_at.is_(None) if table is Job else condition


def of_user(session: Session, principal: Principal, ids: Sequence[str]) -> list[str]:
    """Those of some IDs that a user has in the trash."""

    def is_there(row_id: str) -> bool:
        return any(is_in_trash(session, table, row_id, principal=principal) for table in TABLES)

    return [row_id for row_id in ids if is_there(row_id)]


def get(session: Session, table: type[Row], row_id: str, *, principal: Principal) -> Row:
    """A row of the user's that is in the trash, locked. Raises 404."""
    own = (table.id == row_id, table.owner_id == principal.user_id, is_restorable(table))
    row = session.scalar(select(table).where(*own).with_for_update().execution_options(populate_existing=True))
    if row is None:
        raise not_found()
    return row


def list_expired(session: Session, table: type[Row], limit: int) -> list[Row]:
    """Rows that have been in the trash for LIFETIME, locked, the oldest first."""
    is_over = table.deleted_at < func.now() - LIFETIME
    query = select(table).where(is_over, is_restorable(table)).order_by(table.deleted_at).limit(limit)
    return list(session.scalars(query.with_for_update(skip_locked=True)))

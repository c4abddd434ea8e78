"""Directories whose rows were deleted: the transaction of the deletion notes them, the sweep removes them.

A note stays for a day after the removal. Until then `athanor rescan` leaves such a directory alone, and the sweep
removes it once more if a process that was cut off has written to it again.
"""

from datetime import timedelta
from pathlib import Path

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.core import storage
from app.core.installation_models import DeletedDirectory

LIFETIME = timedelta(days=1)  # of a note after the removal


def note(session: Session, *directories: Path) -> None:
    """Note directories below the data directory, in the transaction that deletes their rows."""
    for directory in directories:
        path = str(directory.relative_to(storage.data()))
        session.execute(insert(DeletedDirectory).values(path=path).on_conflict_do_nothing())


def list_pending(session: Session, limit: int) -> list[str]:
    """Paths below the data directory that are to be removed, for the first time or once more; the oldest first."""
    is_due = or_(DeletedDirectory.removed_at.is_(None), DeletedDirectory.removed_at < func.now() - LIFETIME)
    query = select(DeletedDirectory.path).where(is_due).order_by(DeletedDirectory.created_at, DeletedDirectory.path)
    return list(session.scalars(query.limit(limit)))


def record_removal(session: Session, path: str) -> None:
    """Record that a directory was removed; the second time its note is deleted."""
    row = DeletedDirectory.path == path
    session.execute(delete(DeletedDirectory).where(row, DeletedDirectory.removed_at.is_not(None)))
    session.execute(update(DeletedDirectory).where(row).values(removed_at=func.now()))


def is_noted(session: Session, directory: Path) -> bool:
    """Whether the rows of a directory were deleted."""
    return session.get(DeletedDirectory, str(directory.relative_to(storage.data()))) is not None

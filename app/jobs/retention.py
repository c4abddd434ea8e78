"""Which checkpoints of a job stay: those it can go on from, the best, the pinned, and one in so many."""

from sqlalchemy.orm import Session

from app.models import Job


def choose(session: Session, job: Job) -> None:
    """Mark the checkpoints that need not stay; the scheduler's sweep deletes their files."""


def adopt(session: Session, job: Job) -> bool:
    """Give rows to signed checkpoints that lie in place without one; says whether any is newer than all known."""
    return False

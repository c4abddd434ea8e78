"""Conditions for checkpoints, which several features share."""

from collections.abc import Iterable

from sqlalchemy import ColumnElement, and_

from app.core.models import Checkpoint


def usable_of(job_ids: Iterable[str]) -> ColumnElement[bool]:
    """Whether a checkpoint is of one of these jobs, intact and not in the trash."""
    return and_(Checkpoint.job_id.in_(list(job_ids)), Checkpoint.state == "ready", Checkpoint.deleted_at.is_(None))

"""What a user has in the trash: listed together, restored, or deleted for good."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Subquery, cast, func, literal, null, select, tuple_, union_all
from sqlalchemy.orm import Session

from app.checkpoints import service as checkpoints
from app.core import audit_log, disk, quotas, sharing, storage, trash
from app.core.errors import bad_field
from app.core.i18n import _
from app.core.models import Checkpoint, Corpus, ImportedModel, Job, Tokenizer
from app.core.principal import Principal, not_found
from app.jobs import deletion as jobs
from app.trash.schemas import TrashedAnswer, TrashKind

EPOCH = datetime.fromtimestamp(0, UTC)


def _restore(_session: Session, row: Any) -> None:
    row.deleted_at = None


@dataclass(frozen=True)
class Kind:
    """Rows that can be in the trash. `num_bytes` is the size of their files, as far as the database has it."""

    word: TrashKind
    table: type[Any]
    num_bytes: Any  # a column or an expression
    restore: Callable[[Session, Any], None] = _restore


_OF_JOB = select(func.sum(Checkpoint.num_bytes)).where(Checkpoint.job_id == Job.id, Checkpoint.state != "deleted")
_NAME_OF_JOB = select(Job.name).where(Job.id == Checkpoint.job_id).scalar_subquery()
_NAME_OF_CHECKPOINT = func.concat_ws(" · ", func.nullif(Checkpoint.name, ""), _NAME_OF_JOB)
KINDS = (
    Kind("job", Job, func.coalesce(_OF_JOB.scalar_subquery(), 0), jobs.restore),
    Kind("checkpoint", Checkpoint, Checkpoint.num_bytes, checkpoints.restore),
    Kind("corpus", Corpus, Corpus.num_bytes + func.coalesce(Corpus.num_text_bytes, 0)),
    Kind("model", ImportedModel, ImportedModel.num_bytes),
    Kind("tokenizer", Tokenizer, literal(0)),
)


def _rows(principal: Principal) -> Subquery:
    """Everything of a user's that is in the trash, but checkpoints whose job is there, too."""
    queries = []
    for kind in KINDS:
        is_checkpoint = kind.table is Checkpoint
        columns = (
            kind.table.id.label("id"),
            literal(kind.word).label("kind"),
            (_NAME_OF_CHECKPOINT if is_checkpoint else kind.table.name).label("name"),
            (Checkpoint.step if is_checkpoint else cast(null(), Checkpoint.step.type)).label("step"),
            cast(kind.num_bytes, BigInteger).label("num_bytes"),
            kind.table.deleted_at.label("deleted_at"),
        )
        own = (kind.table.owner_id == principal.user_id, trash.is_restorable(kind.table))
        queries.append(select(*columns).where(*own))
    return union_all(*queries).subquery()


def list_trash(
    session: Session, *, principal: Principal, limit: int = 50, after: str | None = None
) -> tuple[list[TrashedAnswer], str | None]:
    """What is in the trash of a user, the last deleted first, and the cursor of the next page: when the last row was
    deleted, and its ID, so that the row itself may be gone by then. Raises PanelError for another cursor.
    """
    rows = _rows(principal)
    place = tuple_(rows.c.deleted_at, rows.c.id)
    query = select(rows)
    if after is not None:
        deleted_at, row_id = _parse_cursor(after)
        query = query.where(place < tuple_(literal(deleted_at, rows.c.deleted_at.type), literal(row_id)))
    listed = session.execute(query.order_by(rows.c.deleted_at.desc(), rows.c.id.desc()).limit(limit + 1)).all()
    data = [_answer(row) for row in listed[:limit]]
    return data, _cursor(data[-1]) if len(listed) > limit else None


def _cursor(row: TrashedAnswer) -> str:
    return f"{(row.deleted_at - EPOCH) // timedelta(microseconds=1)}-{row.id}"


def _parse_cursor(cursor: str) -> tuple[datetime, str]:
    parts = re.fullmatch(r"([0-9]{1,17})-([0-9a-z]{1,32})", cursor)
    if parts is None:
        raise bad_field("after", "cursor_invalid", _("This is not the `next` of a page of the trash. Leave it out."))
    return EPOCH + timedelta(microseconds=int(parts[1])), parts[2]


def _answer(row: Any) -> TrashedAnswer:
    values = {name: getattr(row, name) for name in ("id", "kind", "name", "step", "num_bytes", "deleted_at")}
    if row.kind == "tokenizer":
        values["num_bytes"] = disk.freed_by_deleting([storage.tokenizer(row.id)])
    return TrashedAnswer(**values, ends_at=row.deleted_at + trash.LIFETIME)


def total(session: Session, *, principal: Principal) -> tuple[int, int]:
    """How many things a user has in the trash, and what emptying it frees of the quota of disk space, in bytes."""
    count = session.scalar(select(func.count()).select_from(_rows(principal)))
    return count or 0, quotas.trashed_bytes(session, principal.user_id)


def _find(session: Session, principal: Principal, row_id: str) -> tuple[Kind, Any]:
    """What is in the trash of a user under an ID, locked. Raises 404."""
    rows = _rows(principal)
    word = session.scalar(select(rows.c.kind).where(rows.c.id == row_id))
    kind = next((kind for kind in KINDS if kind.word == word), None)
    if kind is None:
        raise not_found()
    return kind, trash.get(session, kind.table, row_id, principal=principal)


def restore(session: Session, *, principal: Principal, row_id: str) -> TrashKind:
    """Take something out of the trash, and answer its kind. Raises 404."""
    kind, row = _find(session, principal, row_id)
    kind.restore(session, row)
    audit_log.record(
        session, "trash_restored", principal, subject=sharing.name_of(session, row), subject_id=row_id, detail=kind.word
    )
    return kind.word


def purge(session: Session, *, principal: Principal, row_id: str) -> TrashKind:
    """Delete something in the trash for good, and answer its kind; the sweep removes its files.

    Tasks that work on it are cancelled. Raises PanelError: 404, or 409 if a job, a deployment or a task of another
    user uses it.
    """
    kind, row = _find(session, principal, row_id)
    audit_log.record(
        session, "trash_emptied", principal, subject=sharing.name_of(session, row), subject_id=row_id, detail=kind.word
    )
    jobs.PURGES[kind.table](session, row)
    return kind.word


def name(session: Session, *, principal: Principal, row_id: str) -> str:
    """What something in the trash is called. Raises 404."""
    return sharing.name_of(session, _find(session, principal, row_id)[1])


def list_ids(session: Session, *, principal: Principal) -> list[str]:
    """The IDs of everything in the trash of a user, the last deleted first."""
    rows = _rows(principal)
    return list(session.scalars(select(rows.c.id).order_by(rows.c.deleted_at.desc(), rows.c.id.desc())))

"""What users share with others: read-only, with named users or with everyone of the installation.

`visible_to` in app/core/principal.py lets those see and use a row; every change goes through `own` there. A job is
shared with its checkpoints, and a corpus with all its versions. What was begun with a row goes on when it is no longer
shared, or moves to the trash.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, select
from sqlalchemy.orm import Session

from app.core import audit_log, db, paging
from app.core.account_models import User
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.models import Checkpoint, Corpus, Job
from app.core.names import comparison_key
from app.core.principal import Principal, name_owners, visible_parts
from app.core.share_models import Share

MAX_USERS = 200  # with whom one thing is shared


@dataclass(frozen=True)
class SharedWith:
    """With whom something is shared."""

    everyone: bool = False
    users: list[str] = field(default_factory=list)  # names, in alphabetical order


def listed(
    session: Session,
    principal: Principal,
    query: Select[Any],
    table: type[Any],
    order: ColumnElement[Any] | None,
    limit: int,
    after: str | None,
    owner: str | None,
) -> tuple[list[Any], str | None]:
    """The rows of a query that the user sees, of `owner` (a name of `visible_parts`; None: of anybody), with who shares
    them, and the next cursor.
    """
    db.plan_each_time(session)
    parts = visible_parts(table, principal)
    queries = [query.where(part) for name, part in parts.items() if owner in (None, name)]
    rows, cursor = paging.listed(session, table, queries, order, limit, after)
    name_owners(session, principal, rows)
    return rows, cursor


def subject_id(row: Any) -> str:
    """The ID under which a row is shared."""
    return row.lineage_id if isinstance(row, Corpus) else str(row.id)


def get(session: Session, row: Any) -> SharedWith:
    """With whom a row is shared."""
    shares = session.execute(
        select(Share.user_id, User.name)
        .outerjoin(User, User.id == Share.user_id)
        .where(Share.subject_id == subject_id(row), Share.user_id.is_distinct_from(row.owner_id))
    ).all()
    names = sorted((share.name for share in shares if share.user_id is not None), key=comparison_key)
    return SharedWith(any(share.user_id is None for share in shares), names)


def change(session: Session, principal: Principal, row: Any, *, everyone: bool, users: Sequence[str]) -> SharedWith:
    """Share a row of the user's, which is locked, with these users and no others. Raises 422 at `users`."""
    ids = _user_ids(session, principal, users)
    session.execute(delete(Share).where(Share.subject_id == subject_id(row)))
    for user_id in [*ids, *([None] if everyone else [])]:
        session.add(Share(owner_id=principal.user_id, subject_id=subject_id(row), user_id=user_id))
    session.flush()
    sharing = get(session, row)
    detail = ", ".join([*(["everyone"] if everyone else []), *sharing.users])
    audit_log.record(
        session, "sharing_changed", principal, subject=name_of(session, row), subject_id=row.id, detail=detail
    )
    return sharing


def _user_ids(session: Session, principal: Principal, names: Sequence[str]) -> list[str]:
    keys = {comparison_key(name): name for name in names if name.strip()}
    if len(keys) > MAX_USERS:
        message = _("Too many users are named; the limit is {n}. Share it with everyone instead.", n=MAX_USERS)
        raise bad_field("users", "users_many", message)
    rows = session.execute(select(User.name_key, User.id).where(User.name_key.in_(keys))).all()
    ids = {str(row.name_key): row.id for row in rows}
    unknown = next((name for key, name in keys.items() if key not in ids), None)
    if unknown is not None:
        raise bad_field("users", "user_unknown", _("There is no user “{name}”.", name=unknown[:80]))
    return [user_id for user_id in ids.values() if user_id != principal.user_id]


def forget(session: Session, row: Any) -> None:
    """A row is deleted for good: nothing is shared under its ID any more. Of a corpus, only with its last version."""
    if isinstance(row, Corpus):
        others = select(Corpus.id).where(Corpus.lineage_id == row.lineage_id, Corpus.id != row.id)
        if session.scalar(others.limit(1)) is not None:
            return
    ids = [subject_id(row)]
    if isinstance(row, Job):
        ids += session.scalars(select(Checkpoint.id).where(Checkpoint.job_id == row.id)).all()
    session.execute(delete(Share).where(Share.subject_id.in_(ids)))


def name_of(session: Session, row: Any) -> str:
    """The name of a row; of a checkpoint, that of its job."""
    return session.get_one(Job, row.job_id).name if isinstance(row, Checkpoint) else str(row.name)


def context(session: Session, principal: Principal, row: Any) -> dict[str, Any]:
    """What the page of a row shows: who shares it, or, for its owner, with whom it is shared."""
    is_own = row.owner_id == principal.user_id
    return {"shared_by": row.shared_by, "sharing": get(session, row) if is_own else None, "shared_id": row.id}


def shipped() -> PanelError:
    """The error for sharing what ships with Athanor."""
    return PanelError(403, "corpus_shipped", _("This corpus ships with Athanor: everybody sees it."))


def used_by_another(code: str) -> PanelError:
    """The error for deleting what another user's job, task or deployment uses, which is not named."""
    message = _("Another user is using this. Stop sharing it, and delete it when what uses it has ended.")
    return PanelError(409, code, message)

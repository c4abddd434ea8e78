"""The audit log: who did what, when and from which address. An action writes its entry in its own transaction.

Entries hold names, ids and settings, never passwords, codes, keys or tokens. They are kept for MEMORY.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Literal

from sqlalchemy import delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.core import db, paging
from app.core.account_models import User
from app.core.audit_models import MAX_ADDRESS, MAX_NAME, MAX_TEXT, AuditEntry
from app.core.principal import Principal, digest

MEMORY = timedelta(days=365)
MAX_FAILURES = 20  # entries of failed logins in a minute; all others of that minute share one

Action = Literal[
    "login",
    "login_failed",
    "login_by_provider",
    "identity_connected",
    "identity_disconnected",
    "password_changed",
    "password_reset",
    "reset_link_created",
    "user_created",
    "user_disabled",
    "user_enabled",
    "user_removed",
    "role_changed",
    "quotas_changed",
    "invitation_created",
    "invitation_used",
    "invitation_revoked",
    "join_token_created",
    "join_token_revoked",
    "node_joined",
    "node_removed",
    "node_drained",
    "node_resumed",
    "token_created",
    "token_revoked",
    "corpus_renamed",
    "tokenizer_renamed",
    "model_renamed",
    "job_renamed",
    "checkpoint_renamed",
    "corpus_deleted",
    "tokenizer_deleted",
    "model_deleted",
    "checkpoint_deleted",
    "job_deleted",
    "job_cancelled",
    "job_moved",
    "sharing_changed",
    "trash_restored",
    "trash_emptied",
    "deployment_created",
    "deployment_changed",
    "deployment_moved",
    "deployment_deleted",
    "conversation_shared",
    "conversation_unshared",
    "endpoint_created",
    "endpoint_changed",
    "endpoint_deleted",
    "notice_service_added",
    "notice_service_removed",
]

_address: ContextVar[str] = ContextVar("address", default="")


@contextmanager
def from_address(address: str) -> Iterator[None]:
    """What is recorded within the block came from this address."""
    token = _address.set(address)
    try:
        yield
    finally:
        _address.reset(token)


def record(
    session: Session,
    action: Action,
    who: Principal | User | None,
    *,
    subject: str = "",
    subject_id: str | None = None,
    detail: str = "",
) -> None:
    """Add an entry. `who` is None for a command on the machine of the installation. Longer texts are cut."""
    user_id = who.user_id if isinstance(who, Principal) else who and who.id
    entry = AuditEntry(
        user_id=user_id,
        user_name=who.name[:MAX_NAME] if who is not None else "",
        address=_address.get()[:MAX_ADDRESS],
        action=action,
        subject_id=subject_id,
        subject=subject[:MAX_TEXT],
        detail=detail[:MAX_TEXT],
    )
    session.add(entry)


def record_failed_login(session: Session, user: User | None, network: str) -> None:
    """Count a wrong password: in one entry per minute, account and network, at most MAX_FAILURES entries a minute.

    A name that no account has is not stored: people type passwords into the field for the name.
    """
    minute = db.now().replace(second=0, microsecond=0)
    key = f"{minute.isoformat()} {digest(f'{network} {user.id if user is not None else None}')[:16]}"
    subject_id, subject = (user.id, user.name[:MAX_NAME]) if user is not None else (None, "")
    address = _address.get()[:MAX_ADDRESS]
    recent = select(AuditEntry.failure_key).where(AuditEntry.at >= minute, AuditEntry.failure_key.is_not(None))
    keys = session.scalars(recent).all()
    if key not in keys and len(keys) >= MAX_FAILURES:
        key, subject_id, subject, address = minute.isoformat(), None, "", ""
    new = insert(AuditEntry).values(
        action="login_failed", address=address, subject_id=subject_id, subject=subject, failure_key=key
    )
    again = {"num_times": AuditEntry.num_times + 1}
    session.execute(new.on_conflict_do_update(index_elements=["failure_key"], set_=again))


def list_entries(
    session: Session,
    *,
    person: str = "",
    action: str | None = None,
    search: str = "",
    limit: int = 50,
    after: str | None = None,
) -> tuple[list[AuditEntry], str | None]:
    """The entries, newest first, and the cursor of the next page.

    `person` is the name of who did it or to whom it was done, whatever its case; `search` is a part of any text.
    """
    query = select(AuditEntry)
    if person := person.replace("\0", "").strip().lower():
        query = query.where(or_(func.lower(AuditEntry.user_name) == person, func.lower(AuditEntry.subject) == person))
    if action is not None:
        query = query.where(AuditEntry.action == action)
    if search := search.replace("\0", "").strip():
        places = (AuditEntry.user_name, AuditEntry.subject, AuditEntry.detail, AuditEntry.address)
        query = query.where(or_(*(place.icontains(search, autoescape=True) for place in places)))
    return paging.newest(session, query, AuditEntry.id, limit, after)


def forget_expired(session: Session) -> None:
    """Delete the entries that are older than MEMORY."""
    session.execute(delete(AuditEntry).where(AuditEntry.at < func.now() - MEMORY))

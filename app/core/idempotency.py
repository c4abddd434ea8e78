"""Requests with an Idempotency-Key, each with its answer: sending one again within a day has no second effect.

A key is reserved before its request is carried out and gets the answer afterwards. If the process ends in between,
nobody knows whether the request was carried out, so the key is refused until it expires. Neither keys nor requests are
stored, only hashes: of a request under its key, because the few passwords that people choose could be tried out on a
plain hash.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.installation_models import IdempotencyKey

HEADER = "Idempotency-Key"
MAX_KEY_LENGTH = 200
LIFETIME = timedelta(hours=24)
LEASE = timedelta(seconds=60)  # after which a request without an answer counts as interrupted
RENEW_SECONDS = 20.0
# Within which OpenAI's clients, which send no key, get the answer to the first try.
RETRY_MEMORY = timedelta(minutes=10)


@dataclass(frozen=True)
class KeyedRequest:
    """A request with a key, as far as it is known before its body."""

    owner_id: str
    key: str
    address: str  # method, path and query

    @property
    def key_sha256(self) -> str:
        return hashlib.sha256(self.key.encode()).hexdigest()

    @property
    def row(self) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        """The conditions for its row."""
        return IdempotencyKey.owner_id == self.owner_id, IdempotencyKey.key_sha256 == self.key_sha256

    def fingerprint(self, body_sha256: str) -> str:
        """What only the same request with the same key has in common."""
        text = f"{self.address}\n{body_sha256}"
        return hmac.new(self.key.encode(), text.encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class StoredAnswer:
    """What is stored of an answer. Without a body, because that contained a secret."""

    status: int
    body: str | None
    location: str | None


def check_key(key: str) -> None:
    """Raise PanelError for a key that is empty or too long."""
    if not 0 < len(key) <= MAX_KEY_LENGTH:
        message = _("The Idempotency-Key must have 1 to {max} characters.", max=MAX_KEY_LENGTH)
        raise bad_field(HEADER, "key_invalid", message)


def conflict() -> PanelError:
    """The error for a key that was used for another request."""
    message = _("This Idempotency-Key was used for another request. Use a new key.")
    return bad_field(HEADER, "idempotency_conflict", message, 409)


def reserve(session: Session, request: KeyedRequest) -> IdempotencyKey | None:
    """Reserve a key for a request, or return the row of the one that was carried out with it.

    Raises PanelError (409) while another one is being carried out, or if that was interrupted.
    """
    forget_expired(session)
    values = {"owner_id": request.owner_id, "key_sha256": request.key_sha256, "lease_until": func.now() + LEASE}
    new = insert(IdempotencyKey).values(**values).on_conflict_do_nothing().returning(IdempotencyKey.owner_id)
    if session.scalar(new) is not None:
        return None
    row = session.execute(select(IdempotencyKey, func.now()).where(*request.row)).one_or_none()
    if row is None or (row[0].status is None and row[0].lease_until > row[1]):
        message = _("A request with this Idempotency-Key is being carried out. Try again in a moment.")
        raise PanelError(409, "idempotency_in_progress", message, headers={"Retry-After": "1"})
    if row[0].status is None:
        message = _(
            "A request with this Idempotency-Key was interrupted, and whether it was carried out is not known. Look "
            "for what it would have created; if that is missing, use a new key."
        )
        raise bad_field(HEADER, "idempotency_interrupted", message, 409)
    return row[0]


def renew(session: Session, request: KeyedRequest) -> None:
    """Keep the reservation of a request whose body is still arriving."""
    session.execute(update(IdempotencyKey).where(*request.row).values(lease_until=func.now() + LEASE))


def complete(session: Session, request: KeyedRequest, fingerprint: str, answer: StoredAnswer) -> None:
    """Store the answer of a request that was carried out."""
    session.execute(update(IdempotencyKey).where(*request.row).values(fingerprint=fingerprint, **vars(answer)))


def release(session: Session, request: KeyedRequest) -> None:
    """Free the key of a request that was refused, so that it can be sent again."""
    session.execute(delete(IdempotencyKey).where(*request.row, IdempotencyKey.status.is_(None)))


def forget_expired(session: Session) -> None:
    """Delete the rows whose lifetime is over."""
    row = (IdempotencyKey.owner_id, IdempotencyKey.key_sha256)
    old = select(*row).where(IdempotencyKey.created_at < func.now() - LIFETIME).with_for_update(skip_locked=True)
    session.execute(delete(IdempotencyKey).where(tuple_(*row).in_(old)))

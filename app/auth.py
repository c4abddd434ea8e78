"""Who is asking: reads the session cookie or the API token of a request. Creating either is accounts' work."""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, Request
from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from app import db
from app.errors import PanelError
from app.i18n import _
from app.models import ApiToken, Checkpoint, Corpus, ImportedModel, Job, LoginSession, Tokenizer, User, Work

COOKIE = "athanor_session"
SESSION_LIFETIME = timedelta(days=30)
TOKEN_PREFIX = "ath_"  # noqa: S105 - it marks a token as ours and is none
Scope = Literal["read", "submit", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "submit", "admin")


Owned = TypeVar("Owned", Checkpoint, Corpus, ImportedModel, Job, Tokenizer, Work)


@dataclass(frozen=True)
class Principal:
    """The user behind a request, and what this way of asking may do."""

    user_id: str
    name: str
    role: str
    scopes: frozenset[str]
    by_cookie: bool

    @property
    def is_owner(self) -> bool:
        return self.role == "owner"


def new_secret() -> str:
    """32 random bytes as text for a cookie, a token or a code."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """How a secret of `new_secret` is stored. It is random, so a plain hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def identify(request: Request) -> Principal | None:
    """The principal of a request, or None for a visitor. Raises 401 for a token that is wrong, revoked or malformed."""
    header = request.headers.get("authorization")
    with db.transaction() as session:
        if header is not None:
            return _by_token(session, header)
        cookie = request.cookies.get(COOKIE)
        return _by_cookie(session, cookie) if cookie else None


def _by_cookie(session: Session, cookie: str) -> Principal | None:
    user = session.scalar(
        select(User)
        .join(LoginSession, LoginSession.user_id == User.id)
        .where(LoginSession.token_sha256 == digest(cookie), LoginSession.expires_at > func.now())
    )
    return Principal(user.id, user.name, user.role, frozenset(SCOPES), by_cookie=True) if user else None


def _by_token(session: Session, header: str) -> Principal:
    kind, _space, secret = header.partition(" ")
    found = session.execute(
        select(User, ApiToken)
        .join(ApiToken, ApiToken.user_id == User.id)
        .where(ApiToken.token_sha256 == digest(secret.strip()), ApiToken.revoked_at.is_(None))
    ).first()
    if kind.lower() != "bearer" or found is None:
        message = _("This API token is not valid. Create one on the account page.")
        raise PanelError(401, "token_invalid", message, headers={"WWW-Authenticate": "Bearer"})
    user, token = found
    session.execute(update(ApiToken).where(ApiToken.id == token.id).values(last_used_at=func.now()))
    return Principal(user.id, user.name, user.role, frozenset(token.scopes), by_cookie=False)


def require(scope: Scope) -> Callable[[Request], Principal]:
    """A dependency: the request's principal, who must have this scope."""

    def dependency(request: Request) -> Principal:
        principal = identify(request)
        if principal is None:
            message = _("Log in, or send an API token.")
            raise PanelError(401, "not_logged_in", message, headers={"WWW-Authenticate": "Bearer"})
        if scope not in principal.scopes:
            message = _("This API token lacks the scope {scope}. Create one that has it.", scope=scope)
            raise PanelError(403, "scope_missing", message)
        return principal

    return dependency


Reader = Annotated[Principal, Depends(require("read"))]
Submitter = Annotated[Principal, Depends(require("submit"))]
Admin = Annotated[Principal, Depends(require("admin"))]


def visible_to(owner_id: InstrumentedAttribute[Any], principal: Principal) -> ColumnElement[bool]:
    """The rows somebody may see: their own, and those that ship with Athanor and so have no owner."""
    return or_(owner_id == principal.user_id, owner_id.is_(None))


def not_found() -> PanelError:
    """What another's id answers, exactly as an id that never was."""
    return PanelError(404, "not_found", _("There is nothing here, or it is not yours."))


def visible(
    session: Session, table: type[Owned], row_id: str, *, principal: Principal, for_update: bool = False
) -> Owned:
    """The row of this id that somebody may see, locked where it is to be changed. Raises 404."""
    query = select(table).where(table.id == row_id, visible_to(table.owner_id, principal))
    row = session.scalar(query.with_for_update() if for_update else query)
    if row is None:
        raise not_found()
    return row

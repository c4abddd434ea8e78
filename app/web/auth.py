"""Authentication of requests by session cookie or API token. app/accounts creates both."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.core import db
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.models import ApiToken, LoginSession, User
from app.core.principal import SCOPES, Principal, Scope, digest

COOKIE = "athanor_session"


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
    row = session.execute(
        select(User, ApiToken)
        .join(ApiToken, ApiToken.user_id == User.id)
        .where(ApiToken.token_sha256 == digest(secret.strip()), ApiToken.revoked_at.is_(None))
    ).first()
    if kind.lower() != "bearer" or row is None:
        message = _("This API token is not valid. Create one on the account page.")
        raise PanelError(401, "token_invalid", message, headers={"WWW-Authenticate": "Bearer"})
    user, token = row
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

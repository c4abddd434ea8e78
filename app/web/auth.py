"""Authentication of requests by session cookie or API token. app/accounts creates both."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import Depends, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyCookie, HTTPBearer
from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.orm import Session
from starlette.types import Scope as ASGIScope

from app.core import db
from app.core.account_models import ApiToken, LoginSession, User
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.principal import Principal, Scope, digest, scopes_of
from app.core.roles import Role, refusal
from app.web import guess_limits

COOKIE = "athanor_session"
USE_PRECISION = timedelta(minutes=1)

# For the OpenAPI document only: `identify` reads both.
BEARER = HTTPBearer(
    scheme_name="API token", description="For programs. Create one on the account page.", auto_error=False
)
SESSION = APIKeyCookie(
    name=COOKIE, scheme_name="session cookie", description="For browsers: set by POST /api/v1/login.", auto_error=False
)


@dataclass(frozen=True)
class Credential:
    """What a request shows to say who it is, as it is stored."""

    kind: Literal["session", "token"]
    sha256: str


def credential_of(request: Request) -> Credential | None:
    """The API token or else the session cookie of a request, valid or not; None for a visitor."""
    header = request.headers.get("authorization")
    if header is not None:
        scheme, _space, secret = header.partition(" ")
        return Credential("token", digest(secret.strip()) if scheme.lower() == "bearer" else "")
    cookie = request.cookies.get(COOKIE)
    return Credential("session", digest(cookie)) if cookie else None


def identify(request: Request) -> Principal | None:
    """The principal of a request, or None for a visitor.

    Raises 401 for a token that is wrong, revoked or malformed, and 429 for many such tokens from one address.
    """
    credential = credential_of(request)
    if credential is None:
        return None
    look_up = _by_session if credential.kind == "session" else _by_token
    with db.transaction() as session:
        principal = look_up(session, credential.sha256)
    if principal is None and credential.kind == "token":
        raise _wrong_token(request)
    request.state.principal = principal
    return principal


def accepted_user(scope: ASGIScope) -> str | None:
    """The ID of the user whose credential a request had when it began; None if nothing asked for it."""
    principal: Principal | None = scope.get("state", {}).get("principal")
    return principal.user_id if principal is not None else None


def _by_session(session: Session, sha256: str) -> Principal | None:
    row = session.execute(_live_sessions().where(LoginSession.token_sha256 == sha256)).first()
    if row is None:
        return None
    user, login = row
    _note_use(session, LoginSession, login.last_used_at, LoginSession.id == login.id)
    return Principal(user.id, user.name, user.role, scopes_of(user.role), by_cookie=True, session_id=login.id)


def _by_token(session: Session, sha256: str) -> Principal | None:
    row = session.execute(_live_tokens().where(ApiToken.token_sha256 == sha256)).first()
    if row is None:
        return None
    user, token = row
    _note_use(session, ApiToken, token.last_used_at, ApiToken.id == token.id)
    scopes = scopes_of(user.role) & frozenset(token.scopes)
    return Principal(user.id, user.name, user.role, scopes, by_cookie=False, token_id=token.id)


def accepted(session: Session, credentials: Collection[Credential]) -> set[Credential]:
    """Those of the credentials that are accepted now."""
    hashes = [credential.sha256 for credential in credentials]
    sessions = _live_sessions().where(LoginSession.token_sha256.in_(hashes))
    tokens = _live_tokens().where(ApiToken.token_sha256.in_(hashes))
    return {
        *(Credential("session", row.token_sha256) for _user, row in session.execute(sessions)),
        *(Credential("token", row.token_sha256) for _user, row in session.execute(tokens)),
    }


def _live_sessions() -> Select[User, LoginSession]:
    """The sessions that are accepted now, with their users."""
    joined = select(User, LoginSession).join(LoginSession, LoginSession.user_id == User.id)
    return joined.where(User.disabled_at.is_(None), LoginSession.expires_at > func.now())


def _live_tokens() -> Select[User, ApiToken]:
    """The API tokens that are accepted now, with their users."""
    joined = select(User, ApiToken).join(ApiToken, ApiToken.user_id == User.id)
    return joined.where(User.disabled_at.is_(None), ApiToken.revoked_at.is_(None))


def _note_use(
    session: Session, table: type[LoginSession | ApiToken], last: datetime | None, row: ColumnElement[bool]
) -> None:
    """Store when a credential was used, once a minute: parallel requests would wait for each other otherwise."""
    if last is None or db.now() - last > USE_PRECISION:
        session.execute(update(table).where(row).values(last_used_at=func.now()))


def _wrong_token(request: Request) -> PanelError:
    """The error for a wrong token. Right ones are never refused for the wrong ones of others at the same address."""
    with db.transaction() as session:
        guess_limits.count(session, guess_limits.from_address(request, "token"))
    message = _("This API token is not valid. Create one on the account page.")
    return PanelError(401, "token_invalid", message, headers={"WWW-Authenticate": "Bearer"})


@dataclass(frozen=True)
class Right:
    """What a route needs: a scope of the token, and at least this role. As a dependency it is the principal."""

    scope: Scope
    role: Role

    def __call__(
        self, request: Request, _token: Annotated[Any, Depends(BEARER)], _cookie: Annotated[Any, Depends(SESSION)]
    ) -> Principal:
        """The principal of the request, who has the right."""
        return principal_with(request, self)


def right_of(route: APIRoute) -> Right | None:
    """The right that a route needs; None if it is open to visitors."""
    rights = (part.call for part in route.dependant.dependencies)
    return next((right for right in rights if isinstance(right, Right)), None)


def principal_with(request: Request, right: Right) -> Principal:
    """The principal of a request. Raises PanelError (401, 403, 429) for a visitor or without this right."""
    principal = identify(request)
    if principal is None:
        message = _("Log in, or send an API token.")
        raise PanelError(401, "not_logged_in", message, headers={"WWW-Authenticate": "Bearer"})
    if not principal.is_at_least(right.role):
        raise refusal(principal.role, right.role)
    if right.scope not in principal.scopes:
        message = _("This API token lacks the scope {scope}. Create one that has it.", scope=right.scope)
        raise PanelError(403, "scope_missing", message)
    return principal


# Every route that is not open to visitors has exactly one of these; docs/rights.md lists them.
Reader = Annotated[Principal, Security(Right("read", "viewer"), scopes=["read"])]
Submitter = Annotated[Principal, Security(Right("submit", "member"), scopes=["submit"])]
OwnAccount = Annotated[Principal, Security(Right("admin", "viewer"), scopes=["admin"])]
EveryonesReader = Annotated[Principal, Security(Right("read", "admin"), scopes=["read"])]
EveryonesManager = Annotated[Principal, Security(Right("submit", "admin"), scopes=["submit"])]
PeopleManager = Annotated[Principal, Security(Right("admin", "admin"), scopes=["admin"])]
Owner = Annotated[Principal, Security(Right("admin", "owner"), scopes=["admin"])]

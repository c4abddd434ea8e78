"""Accounts in the database: owner, users, sessions and API tokens. Passwords arrive hashed by access.py."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import db, paging
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.models import ApiToken, LoginSession, SetupCode, User
from app.core.principal import SCOPES, SESSION_LIFETIME, TOKEN_PREFIX, Principal, digest, new_secret, not_found

MAX_NAME_LENGTH = 40
FREE_FAILURES = 5  # wrong passwords in a row that do not lock the account
MAX_LOCK_SECONDS = 900


# ---- owner ----------------------------------------------------------------------------------------------------------


def owner_exists(session: Session) -> bool:
    """Whether the owner's account exists, that is, whether the setup link was used."""
    return session.scalar(select(User.id).where(User.role == "owner").limit(1)) is not None


def create_setup_code(session: Session) -> str:
    """A new one-time code for the setup link; earlier codes stop working. Only its hash is stored."""
    assert not owner_exists(session), "the owner exists already"
    code = new_secret()
    session.execute(delete(SetupCode))
    session.add(SetupCode(code_sha256=digest(code)))
    return code


def check_setup_code(session: Session, *, code: str) -> None:
    """Check the code of the setup link. Raises PanelError if it is wrong or was used."""
    stored = session.scalars(select(SetupCode.code_sha256).with_for_update()).all()
    if not stored and owner_exists(session):
        raise bad_field("code", "setup_done", _("This link has already been used. Log in instead."), 409)
    code_sha256 = digest(code)
    if not [row for row in stored if hmac.compare_digest(row, code_sha256)]:
        message = _("This link is not valid. Use the newest one that Athanor printed when it started.")
        raise bad_field("code", "setup_code_wrong", message, 403)


def create_owner(session: Session, *, code: str, name: str, password_hash: str) -> User:
    """Create the account of the owner and delete the setup code. Raises PanelError."""
    check_setup_code(session, code=code)
    session.execute(delete(SetupCode))
    return _add_user(session, name, password_hash, "owner")


# ---- users ----------------------------------------------------------------------------------------------------------


def create_member(session: Session, *, principal: Principal, name: str, password_hash: str) -> User:
    """Create a member's account. Only the owner may; raises PanelError."""
    require_owner(principal)
    return _add_user(session, name, password_hash, "member")


def list_users(
    session: Session, *, principal: Principal, limit: int = 100, after: str | None = None
) -> tuple[list[User], str | None]:
    """All users, newest first, and the cursor of the next page. Only for the owner; raises PanelError."""
    require_owner(principal)
    return paging.newest(session, select(User), User.id, limit, after)


def require_owner(principal: Principal) -> None:
    """Raise PanelError (403) unless the principal is the owner."""
    if not principal.is_owner:
        raise PanelError(403, "owner_only", _("Only the owner of this installation can manage users."))


def checked_name(name: str) -> str:
    """The name of a user or token without surrounding spaces.

    Raises PanelError if it is empty, too long or contains characters that cannot be displayed.
    """
    name = name.strip()
    if not name:
        raise bad_field("name", "name_missing", _("Enter a name."))
    if len(name) > MAX_NAME_LENGTH:
        raise bad_field("name", "name_too_long", _("The name can have at most {max} characters.", max=MAX_NAME_LENGTH))
    if not name.isprintable():
        raise bad_field("name", "name_invalid", _("The name contains characters that cannot be displayed."))
    return name


def _add_user(session: Session, name: str, password_hash: str, role: str) -> User:
    user = User(name=checked_name(name), password_hash=password_hash, role=role)
    try:
        with session.begin_nested():
            session.add(user)
    except IntegrityError:
        message = _("The name {name} is already in use. Choose another one.", name=user.name)
        raise bad_field("name", "name_taken", message, 409) from None
    return user


# ---- logging in -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoginTry:
    """The user of a login attempt; both fields are None if no user has the name."""

    user_id: str | None
    password_hash: str | None


def begin_login(session: Session, *, name: str) -> LoginTry:
    """Count a login attempt before its password is checked, so that parallel guesses count too.

    Raises PanelError (429) while the account is locked.
    """
    statement = select(User).where(func.lower(User.name) == func.lower(name.strip())).with_for_update()
    user = session.scalar(statement) if name.isprintable() else None
    if user is None:
        return LoginTry(None, None)
    now = db.now()
    if user.locked_until is not None and user.locked_until > now:
        raise _locked(round((user.locked_until - now).total_seconds()) or 1)
    user.failed_logins += 1
    if user.failed_logins >= FREE_FAILURES:
        user.locked_until = now + _lock_time(user.failed_logins)
    return LoginTry(user.id, user.password_hash)


def _lock_time(failures: int) -> timedelta:
    return timedelta(seconds=min(MAX_LOCK_SECONDS, 2 ** min(failures - FREE_FAILURES + 2, 10)))


def _locked(seconds: int) -> PanelError:
    message = _("Too many wrong passwords. Try again in {n} seconds.", n=seconds)
    return PanelError(429, "login_locked", message, headers={"Retry-After": str(seconds)})


def open_session(session: Session, *, user_id: str, replaces: str | None = None) -> str:
    """Create a session and return its secret. Resets the failed logins and deletes the session that it replaces."""
    session.execute(update(User).where(User.id == user_id).values(failed_logins=0, locked_until=None))
    session.execute(delete(LoginSession).where(LoginSession.expires_at < func.now()))
    if replaces is not None:
        close_session(session, secret=replaces)
    secret = new_secret()
    expires_at = func.now() + SESSION_LIFETIME
    session.add(LoginSession(token_sha256=digest(secret), user_id=user_id, expires_at=expires_at))
    return secret


def close_session(session: Session, *, secret: str) -> None:
    """Delete the session with this secret."""
    session.execute(delete(LoginSession).where(LoginSession.token_sha256 == digest(secret)))


def password_hash_of(session: Session, *, principal: Principal) -> str:
    """The stored hash of the principal's password."""
    return session.execute(select(User.password_hash).where(User.id == principal.user_id)).scalar_one()


def change_password(session: Session, *, principal: Principal, password_hash: str) -> str:
    """Store a new password hash and delete all sessions of the user; return the secret of a new session."""
    session.execute(update(User).where(User.id == principal.user_id).values(password_hash=password_hash))
    session.execute(delete(LoginSession).where(LoginSession.user_id == principal.user_id))
    return open_session(session, user_id=principal.user_id)


# ---- API tokens -----------------------------------------------------------------------------------------------------


def create_token(session: Session, *, principal: Principal, name: str, scopes: Sequence[str]) -> tuple[ApiToken, str]:
    """Create an API token; returns it with its secret, of which only the hash is stored.

    Raises PanelError for a bad name, an unknown scope, or a scope that the principal does not have.
    """
    name = checked_name(name)
    unknown = set(scopes) - set(SCOPES)
    if unknown or not scopes:
        expected = ", ".join(SCOPES)
        raise bad_field("scopes", "scopes_invalid", _("Choose at least one scope of: {expected}.", expected=expected))
    if not set(scopes) <= principal.scopes:
        raise bad_field("scopes", "scope_missing", _("A token cannot grant scopes that it does not have itself."), 403)
    secret = TOKEN_PREFIX + new_secret()
    ordered = [scope for scope in SCOPES if scope in scopes]
    token = ApiToken(
        user_id=principal.user_id,
        name=name,
        prefix=secret[:8],
        token_sha256=digest(secret),
        scopes=ordered,
    )
    session.add(token)
    session.flush()
    return token, secret


def list_tokens(
    session: Session, *, principal: Principal, limit: int = 100, after: str | None = None
) -> tuple[list[ApiToken], str | None]:
    """The user's tokens that are not revoked, newest first, and the cursor of the next page."""
    own_tokens = select(ApiToken).where(ApiToken.user_id == principal.user_id, ApiToken.revoked_at.is_(None))
    return paging.newest(session, own_tokens, ApiToken.id, limit, after)


def revoke_token(session: Session, *, principal: Principal, token_id: str) -> None:
    """Revoke a token, effective immediately. Raises 404."""
    conditions = (ApiToken.id == token_id, ApiToken.user_id == principal.user_id, ApiToken.revoked_at.is_(None))
    revoked = session.execute(update(ApiToken).where(*conditions).values(revoked_at=func.now()).returning(ApiToken.id))
    if revoked.first() is None:
        raise not_found()

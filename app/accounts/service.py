"""The verbs of accounts: the first owner, sessions, API tokens and people. Passwords arrive hashed, see access.py."""

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
FREE_FAILURES = 5  # wrong passwords in a row that cost no waiting
LONGEST_LOCK_SECONDS = 900


# ---- the first owner ------------------------------------------------------------------------------------------------


def owner_exists(session: Session) -> bool:
    """Whether the first link was used."""
    return session.scalar(select(User.id).where(User.role == "owner").limit(1)) is not None


def create_setup_code(session: Session) -> str:
    """A new one-time code for the first link; earlier ones stop working. Only its hash is stored."""
    assert not owner_exists(session), "the owner exists already"
    code = new_secret()
    session.execute(delete(SetupCode))
    session.add(SetupCode(code_sha256=digest(code)))
    return code


def check_setup_code(session: Session, *, code: str) -> None:
    """Refuse a code that is not the one of the first link."""
    stored = session.scalars(select(SetupCode.code_sha256).with_for_update()).all()
    if not stored and owner_exists(session):
        raise bad_field("code", "setup_done", _("This link has already been used. Log in instead."), 409)
    code_sha256 = digest(code)
    if not [row for row in stored if hmac.compare_digest(row, code_sha256)]:
        message = _("This link is not valid. Use the newest one that Athanor printed when it started.")
        raise bad_field("code", "setup_code_wrong", message, 403)


def create_owner(session: Session, *, code: str, name: str, password_hash: str) -> User:
    """Make the first user, who owns the installation. The code is gone with it."""
    check_setup_code(session, code=code)
    session.execute(delete(SetupCode))
    return _add_user(session, name, password_hash, "owner")


# ---- people ---------------------------------------------------------------------------------------------------------


def create_member(session: Session, *, principal: Principal, name: str, password_hash: str) -> User:
    """Add somebody who can log in. Only the owner may."""
    require_owner(principal)
    return _add_user(session, name, password_hash, "member")


def list_users(
    session: Session, *, principal: Principal, limit: int = 100, after: str | None = None
) -> tuple[list[User], str | None]:
    """Everybody who can log in, newest first. Only the owner may look."""
    require_owner(principal)
    return paging.newest(session, select(User), User.id, limit, after)


def require_owner(principal: Principal) -> None:
    """Refuse all but the owner."""
    if not principal.is_owner:
        raise PanelError(403, "owner_only", _("Only the owner of this installation can manage users."))


def checked_name(name: str) -> str:
    """A name for a person, trimmed. Refuses one that is empty, too long or holds characters nobody can see."""
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
    """Whom a login is about; both are None for a name that nobody has."""

    user_id: str | None
    password_hash: str | None


def begin_login(session: Session, *, name: str) -> LoginTry:
    """Count a try before its password is checked, so that parallel guesses count too. Raises 429 while locked."""
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
    return timedelta(seconds=min(LONGEST_LOCK_SECONDS, 2 ** min(failures - FREE_FAILURES + 2, 10)))


def _locked(seconds: int) -> PanelError:
    message = _("Too many wrong passwords. Try again in {n} seconds.", n=seconds)
    return PanelError(429, "login_locked", message, headers={"Retry-After": str(seconds)})


def open_session(session: Session, *, user_id: str, replaces: str | None = None) -> str:
    """Log a browser in: forget its failures and its old session, and return the secret for its cookie."""
    session.execute(update(User).where(User.id == user_id).values(failed_logins=0, locked_until=None))
    session.execute(delete(LoginSession).where(LoginSession.expires_at < func.now()))
    if replaces is not None:
        close_session(session, secret=replaces)
    secret = new_secret()
    expires_at = func.now() + SESSION_LIFETIME
    session.add(LoginSession(token_sha256=digest(secret), user_id=user_id, expires_at=expires_at))
    return secret


def close_session(session: Session, *, secret: str) -> None:
    """Log a browser out."""
    session.execute(delete(LoginSession).where(LoginSession.token_sha256 == digest(secret)))


def password_hash_of(session: Session, *, principal: Principal) -> str:
    """The stored hash, to check the present password against."""
    return session.execute(select(User.password_hash).where(User.id == principal.user_id)).scalar_one()


def change_password(session: Session, *, principal: Principal, password_hash: str) -> str:
    """Set a new password and end every session of the user; return the secret of a fresh one."""
    session.execute(update(User).where(User.id == principal.user_id).values(password_hash=password_hash))
    session.execute(delete(LoginSession).where(LoginSession.user_id == principal.user_id))
    return open_session(session, user_id=principal.user_id)


# ---- API tokens -----------------------------------------------------------------------------------------------------


def create_token(session: Session, *, principal: Principal, name: str, scopes: Sequence[str]) -> tuple[ApiToken, str]:
    """A key for programs and its secret, which is shown once. It may do no more than who makes it."""
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

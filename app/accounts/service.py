"""Accounts in the database: owner, users, sessions and API tokens. Passwords arrive hashed by access.py."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, get_args

from sqlalchemy import ColumnElement, and_, delete, false, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.accounts.browser import Browser
from app.core import audit_log, names, paging
from app.core.account_models import ApiToken, KnownBrowser, LoginSession, PasswordReset, SetupCode, User
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.principal import SCOPES, SESSION_LIFETIME, TOKEN_PREFIX, Principal, digest, new_secret, not_found
from app.core.quotas import Quotas
from app.core.roles import Role, may_manage, refusal
from app.web import guess_limits
from app.web.guess_limits import Guess

MAX_NAME_LENGTH = 40
Access = Literal["enabled", "disabled"]
ACCESS: tuple[Access, ...] = get_args(Access)
RESET_LIFETIME = timedelta(hours=24)
SECRET_LENGTH = 43  # characters of `new_secret`
BROWSER_LIFETIME = timedelta(days=365)  # since the last login, after which a browser is a stranger


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


def create_user(session: Session, *, name: str, password_hash: str | None, role: str) -> User:
    """Create an account, without a password if there is no hash.

    Raises PanelError for a bad name and one that is in use.
    """
    return _add_user(session, name, password_hash, role)


def list_users(
    session: Session,
    *,
    search: str = "",
    role: str | None = None,
    access: str | None = None,
    order: str = "newest",
    limit: int = 100,
    after: str | None = None,
) -> tuple[list[User], str | None]:
    """The users, newest first or by name, and the cursor of the next page.

    `search` is a part of their names in any case, `role` their role, and `access` one of ACCESS.
    """
    query = select(User)
    if search:
        query = query.where(User.name.icontains(search, autoescape=True))
    if role is not None:
        query = query.where(User.role == role)
    if access is not None:
        query = query.where(User.disabled_at.is_(None) if access == "enabled" else User.disabled_at.is_not(None))
    value = User.name_key.expression if order == "name" else None
    return paging.listed(session, User, [query], value, limit, after)


def find_user(session: Session, *, name: str) -> User | None:
    """The user of a name, or None. Some of earlier versions have one that others have in another spelling."""
    name = name.strip()
    if not name.isprintable():
        return None
    alike = or_(User.name == name, User.name_key == names.comparison_key(name))
    return session.scalar(select(User).where(alike).order_by((User.name == name).desc()).limit(1))


def get_user(session: Session, *, user_id: str) -> User:
    """A user. Raises 404."""
    user = session.get(User, user_id)
    if user is None:
        raise not_found()
    return user


def managed_user(session: Session, *, principal: Principal, user_id: str) -> User:
    """A user whom the principal is about to change, locked. Raises 404, and 403 if their role is too high for that.

    With an owner all owners are locked, in the order of their ids: of two owners who disable each other the second
    waits here. Each would otherwise hold the row that the other one needs next, in `require_another_owner`.
    """
    is_owner = session.scalar(select(User.role).where(User.id == user_id)) == "owner"
    locked_too = _is_active_owner() if is_owner else false()
    rows = select(User).where(or_(User.id == user_id, locked_too)).order_by(User.id)
    locked = session.scalars(rows.with_for_update(), execution_options={"populate_existing": True})
    user = next((user for user in locked if user.id == user_id), None)
    if user is None:
        raise not_found()
    require_may_manage(principal, user.role)
    return user


def require_may_manage(principal: Principal, role: str) -> None:
    """Raise PanelError (403) unless the principal may give this role and manage who has it."""
    if not may_manage(principal.role, role):
        raise refusal(principal.role, "owner" if principal.role == "admin" else "admin")


def set_role(session: Session, *, principal: Principal, user_id: str, role: Role) -> User:
    """Give a user another role, at once. Their jobs and deployments go on; a reset link that is open stops working, as
    whoever created it may not manage the new role.

    Raises PanelError for a role, before or after, that the principal may not give, for the last owner, and for an owner
    without a password: one must be able to log in when the provider of identities cannot be reached.
    """
    user = managed_user(session, principal=principal, user_id=user_id)
    require_may_manage(principal, role)
    if role != "owner":
        require_another_owner(session, user)
    elif user.password_hash is None:
        message = _("{name} has no password, which an owner needs. Create a reset link for one first.", name=user.name)
        raise PanelError(409, "password_missing", message)
    if user.role != role:
        change = f"{user.role} → {role}"
        audit_log.record(session, "role_changed", principal, subject=user.name, subject_id=user.id, detail=change)
        session.execute(delete(PasswordReset).where(PasswordReset.user_id == user_id))
    user.role = role
    return user


def set_quotas(session: Session, *, principal: Principal, user_id: str, quotas: Quotas) -> User:
    """Change what a user may take at most. What they have and what runs stays, even if it is more."""
    user = managed_user(session, principal=principal, user_id=user_id)
    user.quota_bytes, user.quota_jobs, user.quota_gpu_hours = quotas.disk_bytes, quotas.running_jobs, quotas.gpu_hours
    detail = ", ".join(f"{name} {value}" for name, value in quotas if value is not None)
    audit_log.record(session, "quotas_changed", principal, subject=user.name, subject_id=user.id, detail=detail)
    return user


def disable(session: Session, *, principal: Principal, user_id: str) -> User:
    """Stop accepting a user's password, sessions and tokens, at once. Jobs that run go on.

    Raises PanelError for the last owner.
    """
    user = managed_user(session, principal=principal, user_id=user_id)
    require_another_owner(session, user)
    audit_log.record(session, "user_disabled", principal, subject=user.name, subject_id=user.id)
    user.disabled_at = user.disabled_at or func.now()
    for table in (LoginSession, PasswordReset):
        session.execute(delete(table).where(table.user_id == user_id))
    session.flush()
    session.refresh(user)
    return user


def enable(session: Session, *, principal: Principal, user_id: str) -> User:
    """Accept a user's password and tokens again."""
    user = managed_user(session, principal=principal, user_id=user_id)
    user.disabled_at = None
    audit_log.record(session, "user_enabled", principal, subject=user.name, subject_id=user.id)
    return user


def require_another_owner(session: Session, user: User) -> None:
    """Raise PanelError (409) if the installation would be without an owner who can log in, but for this user, who
    comes from `managed_user`.
    """
    if user.role == "owner" and not set(session.scalars(select(User.id).where(_is_active_owner()))) - {user.id}:
        message = _("{name} is the only owner. An installation needs one who can log in.", name=user.name)
        raise PanelError(409, "last_owner", message)


def _is_active_owner() -> ColumnElement[bool]:
    return and_(User.role == "owner", User.disabled_at.is_(None))


def checked_name(name: str) -> str:
    """The name of a user or token as it is stored. Raises PanelError."""
    return names.checked_name(name, max_length=MAX_NAME_LENGTH)


def _add_user(session: Session, name: str, password_hash: str | None, role: str) -> User:
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
    """The user of a login attempt, None if nobody with this name may log in, and as what its guesses are counted."""

    user_id: str | None
    password_hash: str | None
    guess: Guess


@dataclass(frozen=True)
class Login:
    """The secrets of the two cookies of a browser that is logged in."""

    session_secret: str
    browser_secret: str


def begin_login(session: Session, *, name: str, browser: Browser) -> LoginTry:
    """Count a login attempt before its password is checked, so that parallel guesses count too.

    Raises PanelError (429) while this name is locked, whether a user has it or not.
    """
    user = find_user(session, name=name)
    guess = Guess("login", _login_subject(session, user, name, browser))
    guess_limits.count(session, guess)
    if user is None or user.disabled_at is not None:
        return LoginTry(None, None, guess)
    return LoginTry(user.id, user.password_hash, guess)


def _login_subject(session: Session, user: User | None, name: str, browser: Browser) -> str:
    """A browser that has logged in as this user counts for itself: wrong passwords of strangers do not lock it."""
    user_id, name = ("", name) if user is None else (user.id, user.name)
    browser_sha256 = digest(browser.secret or "")
    is_known = session.get(KnownBrowser, (browser_sha256, user_id)) is not None
    return f"{user_id} {browser_sha256}" if is_known else names.comparison_key(name)


def log_in(session: Session, *, user_id: str, browser: Browser) -> Login:
    """Create a session, which replaces that of the browser, and remember the browser."""
    secret = browser.secret if browser.secret and len(browser.secret) == SECRET_LENGTH else new_secret()
    row = insert(KnownBrowser).values(browser_sha256=digest(secret), user_id=user_id)
    keys = ["browser_sha256", "user_id"]
    session.execute(row.on_conflict_do_update(index_elements=keys, set_={"last_login_at": func.now()}))
    session.execute(delete(KnownBrowser).where(KnownBrowser.last_login_at < func.now() - BROWSER_LIFETIME))
    return Login(open_session(session, user_id=user_id, browser=browser), secret)


def open_session(session: Session, *, user_id: str, browser: Browser | None = None) -> str:
    """Create a session and return its secret. Deletes the session that it replaces, and all that have expired."""
    browser = browser or Browser()
    session.execute(delete(LoginSession).where(LoginSession.expires_at < func.now()))
    if browser.session_secret is not None:
        close_session(session, secret=browser.session_secret)
    secret = new_secret()
    new = LoginSession(token_sha256=digest(secret), user_id=user_id, browser=browser.label, address=browser.address)
    new.expires_at = func.now() + SESSION_LIFETIME
    session.add(new)
    return secret


def close_session(session: Session, *, secret: str) -> None:
    """Delete the session with this secret."""
    session.execute(delete(LoginSession).where(LoginSession.token_sha256 == digest(secret)))


def list_sessions(session: Session, *, principal: Principal) -> list[LoginSession]:
    """The user's sessions that have not expired, the last used first."""
    own = select(LoginSession).where(LoginSession.user_id == principal.user_id, LoginSession.expires_at > func.now())
    return list(session.scalars(own.order_by(LoginSession.last_used_at.desc(), LoginSession.id.desc())))


def revoke_session(session: Session, *, principal: Principal, session_id: str) -> None:
    """Log out another browser of the user. Raises 404."""
    own = delete(LoginSession).where(LoginSession.id == session_id, LoginSession.user_id == principal.user_id)
    if session.execute(own.returning(LoginSession.id)).first() is None:
        raise not_found()


def revoke_other_sessions(session: Session, *, principal: Principal) -> None:
    """Log out all browsers of the user but the one that asks."""
    others = delete(LoginSession).where(LoginSession.user_id == principal.user_id)
    session.execute(others.where(LoginSession.id.is_distinct_from(principal.session_id)))


# ---- passwords ------------------------------------------------------------------------------------------------------


def begin_password_change(session: Session, *, principal: Principal) -> tuple[str | None, Guess]:
    """Count a try of the present password before it is checked; the stored hash, or None. Raises PanelError (429)."""
    guess = Guess("password", principal.user_id)
    guess_limits.count(session, guess)
    return session.execute(select(User.password_hash).where(User.id == principal.user_id)).scalar_one(), guess


def set_password(session: Session, *, user_id: str, password_hash: str, revoke_tokens: bool) -> None:
    """Store a new password hash, end all sessions of the user, and revoke the API tokens if asked to."""
    session.execute(update(User).where(User.id == user_id).values(password_hash=password_hash))
    for table in (LoginSession, KnownBrowser, PasswordReset):
        session.execute(delete(table).where(table.user_id == user_id))
    if revoke_tokens:
        live = (ApiToken.user_id == user_id, ApiToken.revoked_at.is_(None))
        session.execute(update(ApiToken).where(*live).values(revoked_at=func.now()))


def create_password_reset(session: Session, *, user: User, principal: Principal | None) -> str:
    """A code for a link with which a user chooses a new password, once, within RESET_LIFETIME.

    Earlier ones stop working, and the user's name is unlocked. The principal is None for a command on the machine of
    the installation. Raises PanelError for a disabled user.
    """
    if user.disabled_at is not None:
        raise PanelError(409, "user_disabled", _("{name} is disabled. Enable the account first.", name=user.name))
    code = new_secret()
    session.execute(delete(PasswordReset).where(PasswordReset.user_id == user.id))
    session.add(PasswordReset(code_sha256=digest(code), user_id=user.id, expires_at=func.now() + RESET_LIFETIME))
    guess_limits.forget(session, Guess("login", names.comparison_key(user.name)))
    audit_log.record(session, "reset_link_created", principal, subject=user.name, subject_id=user.id)
    return code


def user_of_reset(session: Session, *, code: str, for_update: bool = False) -> User:
    """The user who may choose a new password with this code.

    Raises PanelError, the same one for a wrong, a used and an old code.
    """
    valid = (PasswordReset.code_sha256 == digest(code), PasswordReset.expires_at > func.now())
    query = select(User).join(PasswordReset, PasswordReset.user_id == User.id).where(*valid)
    user = session.scalar(query.with_for_update() if for_update else query)
    if user is None:
        message = _("This link is not valid: it was used, it is too old, or a newer one exists. Ask for a new one.")
        raise bad_field("code", "reset_code_wrong", message, 403)
    return user


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
    detail = ", ".join(ordered)
    audit_log.record(session, "token_created", principal, subject=name, subject_id=token.id, detail=detail)
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
    revoking = update(ApiToken).where(*conditions).values(revoked_at=func.now()).returning(ApiToken.name)
    name = session.scalar(revoking)
    if name is None:
        raise not_found()
    audit_log.record(session, "token_revoked", principal, subject=name, subject_id=token_id)

"""The verbs that hash passwords. Each opens its own short transactions, so that hashing holds no connection."""

from app.accounts import passwords, service
from app.core import db
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.models import User
from app.core.principal import Principal


def set_up(code: str, name: str, password: str) -> str:
    """Make the owner and return the secret of their first session."""
    with db.transaction() as session:
        service.check_setup_code(session, code=code)
    passwords.check(password, service.checked_name(name))
    password_hash = passwords.hash_password(password)
    with db.transaction() as session:
        user = service.create_owner(session, code=code, name=name, password_hash=password_hash)
        return service.open_session(session, user_id=user.id)


def log_in(name: str, password: str, replaces: str | None) -> str:
    """Check a password and return the secret of a new session. Every failure reads the same."""
    with db.transaction() as session:
        attempt = service.begin_login(session, name=name)
    if not passwords.verify_password(password, attempt.password_hash) or attempt.user_id is None:
        raise PanelError(401, "login_failed", _("Wrong name or password."))
    with db.transaction() as session:
        return service.open_session(session, user_id=attempt.user_id, replaces=replaces)


def add_member(principal: Principal, name: str, password: str) -> User:
    """Add somebody with an initial password."""
    service.require_owner(principal)
    passwords.check(password, service.checked_name(name))
    password_hash = passwords.hash_password(password)
    with db.transaction() as session:
        return service.create_member(session, principal=principal, name=name, password_hash=password_hash)


def change_password(principal: Principal, present: str, new: str) -> str:
    """Set a new password where the present one is right; return the secret of the only session left."""
    with db.transaction() as session:
        stored = service.password_hash_of(session, principal=principal)
    if not passwords.verify_password(present, stored):
        raise bad_field("present_password", "password_wrong", _("This is not your current password."))
    passwords.check(new, principal.name)
    password_hash = passwords.hash_password(new)
    with db.transaction() as session:
        return service.change_password(session, principal=principal, password_hash=password_hash)

"""The actions that hash passwords. Each uses short transactions of its own: no connection is held while hashing."""

from app.accounts import passwords, service
from app.core import db
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.models import User
from app.core.principal import Principal


def set_up(code: str, name: str, password: str) -> str:
    """Create the owner's account and return the secret of its first session. Raises PanelError."""
    with db.transaction() as session:
        service.check_setup_code(session, code=code)
    passwords.check(password, service.checked_name(name))
    password_hash = passwords.hash_password(password)
    with db.transaction() as session:
        user = service.create_owner(session, code=code, name=name, password_hash=password_hash)
        return service.open_session(session, user_id=user.id)


def log_in(name: str, password: str, replaces: str | None) -> str:
    """Check a password and return the secret of a new session, which replaces the one with the secret `replaces`.

    Raises PanelError, the same one for an unknown name and a wrong password.
    """
    with db.transaction() as session:
        attempt = service.begin_login(session, name=name)
    if not passwords.verify_password(password, attempt.password_hash) or attempt.user_id is None:
        raise PanelError(401, "login_failed", _("Wrong name or password."))
    with db.transaction() as session:
        return service.open_session(session, user_id=attempt.user_id, replaces=replaces)


def add_member(principal: Principal, name: str, password: str) -> User:
    """Create an account with an initial password. Only the owner may; raises PanelError."""
    service.require_owner(principal)
    passwords.check(password, service.checked_name(name))
    password_hash = passwords.hash_password(password)
    with db.transaction() as session:
        return service.create_member(session, principal=principal, name=name, password_hash=password_hash)


def change_password(principal: Principal, present: str, new: str) -> str:
    """Change a password and end all sessions; return the secret of a new one.

    Raises PanelError if the present password is wrong or the new one is not acceptable.
    """
    with db.transaction() as session:
        stored = service.password_hash_of(session, principal=principal)
    if not passwords.verify_password(present, stored):
        raise bad_field("present_password", "password_wrong", _("This is not your current password."))
    passwords.check(new, principal.name)
    password_hash = passwords.hash_password(new)
    with db.transaction() as session:
        return service.change_password(session, principal=principal, password_hash=password_hash)

"""The actions that hash passwords. Each uses short transactions of its own: no connection is held while hashing."""

from app.accounts import invitations, passwords, service
from app.accounts.browser import Browser
from app.accounts.service import Login
from app.core import audit_log, db
from app.core.account_models import User
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.principal import Principal
from app.core.roles import Role
from app.web import guess_limits
from app.web.client_address import network_of
from app.web.guess_limits import Guess


def set_up(code: str, name: str, password: str, browser: Browser, address: Guess) -> Login:
    """Create the owner's account and log in. A wrong code is counted for its address. Raises PanelError."""
    with guess_limits.count_wrong_code(address) as session:
        service.check_setup_code(session, code=code)
    passwords.check(password, service.checked_name(name))
    password_hash = passwords.hash_password(password)
    with db.transaction() as session:
        user = service.create_owner(session, code=code, name=name, password_hash=password_hash)
        audit_log.record(session, "user_created", user, subject=user.name, subject_id=user.id, detail=user.role)
        return service.log_in(session, user_id=user.id, browser=browser)


def reset_password(code: str, password: str, browser: Browser, address: Guess, *, revoke_tokens: bool) -> Login:
    """Choose a new password with the code of a reset link, end all sessions, and log in.

    A wrong code is counted for its address. Raises PanelError.
    """
    with guess_limits.count_wrong_code(address) as session:
        name = service.user_of_reset(session, code=code).name
    passwords.check(password, name)
    password_hash = passwords.hash_password(password)
    with db.transaction() as session:
        user = service.user_of_reset(session, code=code, for_update=True)
        service.set_password(session, user_id=user.id, password_hash=password_hash, revoke_tokens=revoke_tokens)
        audit_log.record(session, "password_reset", user)
        return service.log_in(session, user_id=user.id, browser=browser)


def accept_invitation(code: str, name: str, password: str, browser: Browser, address: Guess) -> Login:
    """Create the account of an invitation and log in. A wrong code is counted for its address. Raises PanelError."""
    with guess_limits.count_wrong_code(address) as session:
        invitations.of_code(session, code=code)
    passwords.check(password, service.checked_name(name))
    password_hash = passwords.hash_password(password)
    with db.transaction() as session:
        user = invitations.accept(session, code=code, name=name, password_hash=password_hash)
        return service.log_in(session, user_id=user.id, browser=browser)


def log_in(name: str, password: str, browser: Browser) -> Login:
    """Check a password and create a session, which replaces that of the browser.

    Raises PanelError, the same one for an unknown name, a disabled user and a wrong password.
    """
    with db.transaction() as session:
        attempt = service.begin_login(session, name=name, browser=browser)
    if not passwords.verify_password(password, attempt.password_hash) or attempt.user_id is None:
        with db.transaction() as session:
            user = service.find_user(session, name=name)
            audit_log.record_failed_login(session, user, network_of(browser.address))
        raise PanelError(401, "login_failed", _("Wrong name or password."))
    with db.transaction() as session:
        guess_limits.forget(session, attempt.guess)
        user = service.get_user(session, user_id=attempt.user_id)
        audit_log.record(session, "login", user, detail=browser.label)
        return service.log_in(session, user_id=attempt.user_id, browser=browser)


def add_user(principal: Principal, name: str, password: str, role: Role) -> User:
    """Create an account with an initial password. Raises PanelError, also for a role that is not theirs to give."""
    service.require_may_manage(principal, role)
    passwords.check(password, service.checked_name(name))
    password_hash = passwords.hash_password(password)
    with db.transaction() as session:
        user = service.create_user(session, name=name, password_hash=password_hash, role=role)
        audit_log.record(session, "user_created", principal, subject=user.name, subject_id=user.id, detail=role)
        return user


def change_password(
    principal: Principal, present: str, new: str, browser: Browser, *, revoke_tokens: bool
) -> Login | None:
    """Change a password, end all sessions, and revoke the API tokens if asked to; a browser stays logged in.

    Raises PanelError if the present password is wrong or the new one is not acceptable.
    """
    with db.transaction() as session:
        stored, guess = service.begin_password_change(session, principal=principal)
    if not passwords.verify_password(present, stored):
        raise bad_field("present_password", "password_wrong", _("This is not your current password."))
    with db.transaction() as session:
        guess_limits.forget(session, guess)
    passwords.check(new, principal.name)
    password_hash = passwords.hash_password(new)
    with db.transaction() as session:
        service.set_password(
            session, user_id=principal.user_id, password_hash=password_hash, revoke_tokens=revoke_tokens
        )
        audit_log.record(session, "password_changed", principal)
        return service.log_in(session, user_id=principal.user_id, browser=browser) if principal.by_cookie else None

"""Logins at the OpenID Connect provider in the database: those that have begun, and the identities of users.

An identity is the issuer and its claim `sub`. A name or an e-mail address never decides whose account it is: whoever
can choose those at the provider could take an account over.
"""

import logging
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.accounts import service
from app.accounts.browser import Browser
from app.accounts.oidc import policy
from app.accounts.service import Login
from app.core import audit_log
from app.core.account_models import ExternalIdentity, OidcLogin, PasswordReset, User
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.principal import Principal, digest, new_secret, not_found
from app.core.settings import settings

log = logging.getLogger(__name__)

LIFETIME = timedelta(minutes=10)  # that somebody may take at the provider
MAX_OPEN = 200  # logins that have begun, from one network; the oldest is forgotten for another one
MAX_NUMBERED_NAMES = 100


def is_configured() -> bool:
    """Whether there is a provider."""
    return bool(settings().oidc_issuer)


def provider_name() -> str:
    """What pages call the provider."""
    return settings().oidc_name


# ---- beginning and returning -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoginStart:
    """What the browser takes to the provider, and the secret of its cookie, by which it is known when it returns."""

    state: str
    nonce: str
    code_verifier: str
    browser_secret: str


def begin(
    session: Session, *, browser_secret: str | None, network: str, path: str, principal: Principal | None = None
) -> LoginStart:
    """Store a login that begins, or with a principal the connecting of an identity. Forgets what has expired."""
    session.execute(delete(OidcLogin).where(OidcLogin.expires_at < func.now()))
    newest = select(OidcLogin.state_sha256).where(OidcLogin.network == network)
    newest = newest.order_by(OidcLogin.created_at.desc()).limit(MAX_OPEN - 1)
    too_many = delete(OidcLogin).where(OidcLogin.network == network, OidcLogin.state_sha256.not_in(newest))
    session.execute(too_many)
    kept = browser_secret if browser_secret and len(browser_secret) == service.SECRET_LENGTH else None
    start = LoginStart(new_secret(), new_secret(), secrets.token_urlsafe(48), kept or new_secret())
    row = OidcLogin(
        state_sha256=digest(start.state),
        browser_sha256=digest(start.browser_secret),
        network=network,
        user_id=principal and principal.user_id,
        nonce=start.nonce,
        code_verifier=start.code_verifier,
        path=path,
    )
    row.expires_at = func.now() + LIFETIME
    session.add(row)
    return start


def take(session: Session, *, state: str, browser_secret: str | None) -> OidcLogin | None:
    """The login that a browser returns from, which nobody gets again; None if this browser began none with this state.

    A browser that did not begin it leaves it as it is.
    """
    own = delete(OidcLogin).where(
        OidcLogin.state_sha256 == digest(state),
        OidcLogin.browser_sha256 == digest(browser_secret or ""),
        OidcLogin.expires_at > func.now(),
    )
    return session.scalars(own.returning(OidcLogin)).one_or_none()


# ---- the identity ----------------------------------------------------------------------------------------------------


def require_admitted(claims: dict[str, Any]) -> None:
    """Raise PanelError (403) for a person whom the settings keep out."""
    reason = policy.refusal(claims)
    if reason is not None:
        log.warning("OIDC: %s may not log in: %s", policy.label(claims), _REASONS[reason])
        message = _("Your account at {provider} may not be used here. Ask an administrator.", provider=provider_name())
        raise PanelError(403, "identity_refused", message)


_REASONS: dict[policy.Refusal, str] = {
    "domain": "no verified e-mail address of ATHANOR_OIDC_ALLOWED_DOMAINS",
    "group": "in no group of ATHANOR_OIDC_ALLOWED_GROUPS",
}


def log_in(session: Session, *, issuer: str, claims: dict[str, Any], browser: Browser) -> Login:
    """Log in as the user of an identity, who is created if the settings say so, with the role that the groups name.

    Raises PanelError (403) for somebody who may not log in.
    """
    require_admitted(claims)
    identity = _locked_identity(session, issuer, claims["sub"])
    if identity is None:
        user = _create_user(session, issuer, claims)
    else:
        user = session.get_one(User, identity.user_id, with_for_update=True)
        if user.disabled_at is not None:
            log.warning("OIDC: the account of %s is disabled", user.name)
            raise PanelError(403, "user_disabled", _("Your account here is disabled. Ask an administrator."))
        identity.label, identity.last_login_at = policy.label(claims), func.now()
        _update_role(session, user, claims)
    audit_log.record(session, "login_by_provider", user, subject=provider_name(), detail=browser.label)
    return service.log_in(session, user_id=user.id, browser=browser)


def _locked_identity(session: Session, issuer: str, subject: str) -> ExternalIdentity | None:
    """The identity, if it is known. Until the transaction ends, nobody else looks it up or adds it."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"{issuer} {subject}", 0))))
    same = (ExternalIdentity.issuer == issuer, ExternalIdentity.subject == subject)
    return session.scalar(select(ExternalIdentity).where(*same))


def _create_user(session: Session, issuer: str, claims: dict[str, Any]) -> User:
    if not settings().oidc_create_users:
        log.warning("OIDC: nobody is connected with %s, and ATHANOR_OIDC_CREATE_USERS is off", policy.label(claims))
        message = _(
            "No account here is connected with yours at {provider}. Log in with your password and connect it on the "
            "account page, or ask an administrator for an account.",
            provider=provider_name(),
        )
        raise PanelError(403, "identity_unknown", message)
    user = _add_user(session, policy.user_name(claims), policy.role(claims))
    detail = f"{user.role} ({provider_name()})"
    audit_log.record(session, "user_created", user, subject=user.name, subject_id=user.id, detail=detail)
    row = _identity(user.id, issuer, claims)
    row.last_login_at = func.now()
    session.add(row)
    return user


def _add_user(session: Session, name: str, role: str) -> User:
    """A new user without a password. If the name is taken, it gets a number."""
    for number in range(1, MAX_NUMBERED_NAMES):
        suffix = f" {number}" if number > 1 else ""
        unique = name[: service.MAX_NAME_LENGTH - len(suffix)].rstrip() + suffix
        if service.find_user(session, name=unique) is None:
            with suppress(PanelError):  # somebody else took it just now
                return service.create_user(session, name=unique, password_hash=None, role=role)
    unique = f"{name[:20].rstrip()} {secrets.token_hex(4)}"
    return service.create_user(session, name=unique, password_hash=None, role=role)


def _identity(user_id: str, issuer: str, claims: dict[str, Any]) -> ExternalIdentity:
    return ExternalIdentity(user_id=user_id, issuer=issuer, subject=claims["sub"], label=policy.label(claims))


def _update_role(session: Session, user: User, claims: dict[str, Any]) -> None:
    """Give a user the role that their groups name now. That of owners is never changed from outside."""
    role = policy.role(claims)
    if not policy.has_roles() or user.role in ("owner", role):
        return
    detail = f"{user.role} → {role} ({provider_name()})"
    audit_log.record(session, "role_changed", user, subject=user.name, subject_id=user.id, detail=detail)
    session.execute(delete(PasswordReset).where(PasswordReset.user_id == user.id))
    user.role = role


def connect(session: Session, *, principal: Principal, issuer: str, claims: dict[str, Any]) -> None:
    """Connect an identity with the user who is logged in, so that it logs in as them.

    Raises PanelError for an identity of another user, and for a user who has one of this provider already.
    """
    require_admitted(claims)
    identity = _locked_identity(session, issuer, claims["sub"])
    if identity is not None and identity.user_id != principal.user_id:
        log.warning("OIDC: %s tried to connect an identity of another user", principal.name)
        message = _("Your account at {provider} is connected with another account here.", provider=provider_name())
        raise PanelError(409, "identity_taken", message)
    user = session.get_one(User, principal.user_id, with_for_update=True)
    of_provider = select(ExternalIdentity).where(ExternalIdentity.user_id == user.id, ExternalIdentity.issuer == issuer)
    if identity is None and session.scalar(of_provider) is not None:
        message = _(
            "You are connected with an account at {provider} already. Disconnect it first.", provider=provider_name()
        )
        raise PanelError(409, "identity_exists", message)
    if identity is None:
        row = _identity(user.id, issuer, claims)
        session.add(row)
        audit_log.record(session, "identity_connected", principal, subject=provider_name(), detail=row.label)


def identities(session: Session, *, user_id: str) -> list[ExternalIdentity]:
    """The identities of a user, the oldest first."""
    own = select(ExternalIdentity).where(ExternalIdentity.user_id == user_id)
    return list(session.scalars(own.order_by(ExternalIdentity.created_at, ExternalIdentity.id)))


def is_of_provider(identity: ExternalIdentity) -> bool:
    """Whether an identity is one of the provider of the settings, which may have been another one earlier."""
    return identity.issuer.rstrip("/") == settings().oidc_issuer.rstrip("/")


def disconnect(session: Session, *, principal: Principal, identity_id: str) -> None:
    """Delete an identity, so that it no longer logs in as this user.

    Raises PanelError: 404, and 409 for a user who has no password.
    """
    user = session.get_one(User, principal.user_id, with_for_update=True)
    own = (ExternalIdentity.id == identity_id, ExternalIdentity.user_id == user.id)
    identity = session.scalar(select(ExternalIdentity).where(*own))
    if identity is None:
        raise not_found()
    if user.password_hash is None:
        message = _("You have no password, so you could not log in any more. Ask an administrator for a reset link.")
        raise PanelError(409, "password_missing", message)
    subject = provider_name() if is_of_provider(identity) else identity.issuer
    audit_log.record(session, "identity_disconnected", principal, subject=subject, detail=identity.label)
    session.delete(identity)

"""The two halves of a login at the provider: to its page, and back from it. No transaction is open while it is asked.

Errors are sentences for the person who logs in; what an operator needs to know is logged.
"""

import logging
import re
from dataclasses import dataclass
from typing import Any

from app.accounts.browser import Browser
from app.accounts.oidc import policy, provider, service
from app.accounts.oidc.id_token import ClocksDiffer, TokenInvalid, checked_claims
from app.accounts.oidc.provider import CACHE, ProviderAnswerInvalid, ProviderUnreachable
from app.accounts.service import Login
from app.core import db
from app.core.account_models import OidcLogin
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.principal import Principal
from app.web.client_address import network_of

log = logging.getLogger(__name__)

ERROR_CODE = re.compile("[a-z_]{1,40}")


@dataclass(frozen=True)
class Departure:
    """Where the browser goes, and the secret of the cookie that it takes along."""

    url: str
    browser_secret: str


@dataclass(frozen=True)
class ProviderRedirect:
    """What the provider's redirect brought, by the names of its parameters."""

    state: str
    code: str
    error: str
    iss: str


@dataclass(frozen=True)
class LoginOutcome:
    """What a return has led to: a login, or None where an identity was connected; and the page to show."""

    login: Login | None
    path: str


class ReturnFailed(Exception):
    """A return that led to nothing: why, and whether an identity was to be connected (None: not known)."""

    def __init__(self, problem: PanelError, *, connecting: bool, path: str = "/") -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.connecting = connecting
        self.path = path


def depart(
    redirect_uri: str, path: str, browser: Browser, browser_secret: str | None, principal: Principal | None = None
) -> Departure:
    """Begin a login, or with a principal the connecting of an identity. Raises PanelError."""
    try:
        source = CACHE.get()
        provider.client_secret()
    except (ProviderUnreachable, ProviderAnswerInvalid) as error:
        raise _provider_problem(error) from None
    network = network_of(browser.address)
    with db.transaction() as session:
        start = service.begin(session, browser_secret=browser_secret, network=network, path=path, principal=principal)
    url = provider.authorization_url(
        source,
        redirect_uri=redirect_uri,
        state=start.state,
        nonce=start.nonce,
        code_verifier=start.code_verifier,
    )
    return Departure(url, start.browser_secret)


def arrive(
    returned: ProviderRedirect,
    redirect_uri: str,
    browser: Browser,
    browser_secret: str | None,
    principal: Principal | None,
) -> LoginOutcome:
    """Finish what a browser has begun; the principal is who is logged in there, if anybody. Raises ReturnFailed."""
    with db.transaction() as session:
        begun = service.take(session, state=returned.state, browser_secret=browser_secret)
    if begun is None:
        log.warning("OIDC: a browser returned with a state that it did not begin with, that was used or has expired")
        message = _("This login took too long, was used already or began in another browser. Start again.")
        raise ReturnFailed(PanelError(400, "login_expired", message), connecting=False)
    connecting = begun.user_id is not None
    try:
        if connecting and (principal is None or principal.user_id != begun.user_id or not principal.by_cookie):
            message = _("You were logged out or logged in as somebody else meanwhile. Log in and start again.")
            raise PanelError(409, "login_expired", message)
        issuer, claims = _claims(returned, redirect_uri, begun)
        with db.transaction() as session:
            if principal is not None and connecting:
                service.connect(session, principal=principal, issuer=issuer, claims=claims)
                return LoginOutcome(None, begun.path)
            return LoginOutcome(service.log_in(session, issuer=issuer, claims=claims, browser=browser), begun.path)
    except PanelError as error:
        raise ReturnFailed(error, connecting=connecting, path=begun.path) from None


def _claims(returned: ProviderRedirect, redirect_uri: str, begun: OidcLogin) -> tuple[str, dict[str, Any]]:
    """The issuer and the claims of the person who returned. Raises PanelError."""
    if returned.error:
        raise _denied(returned.error)
    try:
        source = CACHE.get()
        if not returned.code or (returned.iss and returned.iss != source.issuer):
            raise ProviderAnswerInvalid("its redirect has no code, or names another issuer")
        tokens = provider.exchange_code(
            source, code=returned.code, redirect_uri=redirect_uri, code_verifier=begun.code_verifier
        )
        claims = checked_claims(source, tokens, nonce=begun.nonce)
        if policy.lacks_claims(claims):
            claims = policy.completed(claims, provider.user_info(source, tokens, subject=claims["sub"]))
        return source.issuer, claims
    except (ProviderUnreachable, ProviderAnswerInvalid) as error:
        raise _provider_problem(error) from None
    except ClocksDiffer as error:
        log.warning("OIDC: an ID token is not valid now: %s. Compare the clocks of both machines.", error)
        message = _(
            "{provider} vouched for you at a time that is not now: the clocks of the two servers differ. Start again; "
            "if it happens again, tell an administrator.",
            provider=service.provider_name(),
        )
        raise PanelError(502, "provider_clock", message) from None
    except TokenInvalid as error:
        log.warning("OIDC: an ID token was refused: %s", error)
        raise _invalid_answer() from None


def _denied(code: str) -> PanelError:
    """The error for a provider that redirects back with an error. Its description is not shown: anybody can write one
    into a link.
    """
    error_code = code if ERROR_CODE.fullmatch(code) else "unknown"
    log.warning("OIDC: the provider redirected back with the error %s", error_code)
    if error_code == "access_denied":
        message = _("The login at {provider} was denied or cancelled.", provider=service.provider_name())
        return PanelError(403, "login_denied", message)
    message = _(
        "{provider} could not log you in ({code}). Try again; if it happens again, tell an administrator.",
        provider=service.provider_name(),
        code=error_code,
    )
    return PanelError(502, "provider_failed", message)


def _provider_problem(error: ProviderUnreachable | ProviderAnswerInvalid) -> PanelError:
    if isinstance(error, ProviderAnswerInvalid):
        log.error("OIDC: an answer of the provider cannot be used: %s", error)
        return _invalid_answer()
    log.error("OIDC: the provider cannot be reached: %s", error)
    message = _(
        "{provider} cannot be reached at the moment. Try again later, or log in with a password.",
        provider=service.provider_name(),
    )
    return PanelError(503, "provider_unreachable", message)


def _invalid_answer() -> PanelError:
    message = _(
        "What {provider} answered is not valid, so you are not logged in. Start again; if it happens again, tell an "
        "administrator, who finds the reason in the log.",
        provider=service.provider_name(),
    )
    return PanelError(502, "provider_invalid", message)

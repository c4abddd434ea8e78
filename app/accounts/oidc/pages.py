"""HTML routes of logins by an OpenID Connect provider, and of the identities on the account page."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from app.accounts import cookies
from app.accounts import pages as accounts
from app.accounts.browser import browser_of
from app.accounts.oidc import login_flow, service
from app.accounts.oidc.login_flow import Departure, ProviderRedirect, ReturnFailed
from app.core.errors import PanelError
from app.core.principal import not_found
from app.web import auth
from app.web.auth import OwnAccount
from app.web.errors import busy
from app.web.pages import handle_form_action, page
from app.web.parameters import Id
from app.web.pools import Pool

router = APIRouter()
COOKIE = "athanor_oidc"
PATH = "/login/oidc"
# The provider is waited for by threads of their own, so that a slow one keeps nothing else waiting.
ASKING = Pool(4, max_waiting=32, max_per_client=8, refusal=busy)

Parameter = Annotated[str, Query(max_length=8192)]


@router.get(PATH)
@ASKING
def begin_login(request: Request, next: Annotated[str, Query(max_length=500)] = "/") -> Response:
    """Send a visitor to the provider."""
    _require_configured()
    path = accounts.local(next)
    if auth.identify(request) is not None:
        return RedirectResponse(path, status_code=303)
    try:
        departure = login_flow.depart(_redirect_uri(request), path, browser_of(request), request.cookies.get(COOKIE))
    except PanelError as error:
        return accounts.refused_login(request, error, path)
    return _with_cookie(request, RedirectResponse(departure.url, status_code=303), departure)


@router.get(f"{PATH}/callback")
@ASKING
def finish(
    request: Request, state: Parameter = "", code: Parameter = "", error: Parameter = "", iss: Parameter = ""
) -> Response:
    """Log in whom the provider sends back, or connect the identity with the user who is logged in."""
    _require_configured()
    principal = auth.identify(request)
    returned = ProviderRedirect(state, code, error, iss)
    try:
        outcome = login_flow.arrive(
            returned, _redirect_uri(request), browser_of(request), request.cookies.get(COOKIE), principal
        )
    except ReturnFailed as failure:
        if failure.connecting and principal is not None:
            return accounts.account_page(request, principal, failure.problem, form="identity")
        return accounts.refused_login(request, failure.problem, failure.path)
    response = RedirectResponse(outcome.path, status_code=303)
    if outcome.login is not None:
        cookies.set_login_cookies(request, response, outcome.login)
    return response


@router.post("/account/identities")
@ASKING
def connect(request: Request, principal: OwnAccount) -> Response:
    """Show a page that leads to the provider, to connect an identity there with this account.

    It is no redirect: browsers let forms of a page with our content security policy lead to this site only.
    """
    _require_configured()
    path = "/account?done=connected"
    secret = request.cookies.get(COOKIE)
    try:
        departure = login_flow.depart(_redirect_uri(request), path, browser_of(request), secret, principal)
    except PanelError as error:
        return accounts.account_page(request, principal, error, form="identity")
    name = service.provider_name()
    response = page(request, "accounts/continue.html", principal=principal, url=departure.url, provider=name)
    return _with_cookie(request, response, departure)


@router.post("/account/identities/{identity_id}/disconnect")
def disconnect(request: Request, principal: OwnAccount, identity_id: Id) -> Response:
    """Disconnect an identity from this account."""
    return handle_form_action(
        lambda session: service.disconnect(session, principal=principal, identity_id=identity_id),
        "/account?done=disconnected",
        lambda error: accounts.account_page(request, principal, error, form="identity"),
    )


def _require_configured() -> None:
    """Raise 404 where there is no provider."""
    if not service.is_configured():
        raise not_found()


def _redirect_uri(request: Request) -> str:
    """The address that the provider sends the browser back to, which the operator has registered there."""
    return f"{str(request.base_url).rstrip('/')}{PATH}/callback"


def _with_cookie(request: Request, response: Response, departure: Departure) -> Response:
    """A response with the cookie by which the browser is known when it returns. It is sent with links only (Lax)."""
    secure = request.url.scheme == "https"
    age = int(service.LIFETIME.total_seconds())
    response.set_cookie(
        COOKIE, departure.browser_secret, max_age=age, path="/", httponly=True, samesite="lax", secure=secure
    )
    return response

"""HTML routes of accounts: the setup link, login, the account page, language and theme."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from app.accounts import access, cookies, invitations, service
from app.accounts.api import end_session
from app.accounts.browser import browser_of
from app.accounts.oidc import service as oidc
from app.accounts.passwords import HASHING
from app.accounts.service import Login
from app.core import db, i18n, quotas
from app.core.errors import PanelError
from app.core.principal import SCOPES, Principal
from app.web import auth, guess_limits
from app.web.auth import OwnAccount
from app.web.pages import LANGUAGE_COOKIE, THEME_COOKIE, page
from app.web.paging import After
from app.web.parameters import Id

router = APIRouter()
THEMES = ("light", "dark", "system")
ONE_YEAR = 365 * 24 * 3600

Text = Annotated[str, Form()]


def local(path: str, otherwise: str = "/") -> str:
    """The path to redirect to, or `otherwise` if it could lead to another site."""
    safe = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if safe else otherwise


def redirect(path: str) -> RedirectResponse:
    """To a page after a form was sent."""
    return RedirectResponse(path, status_code=303)


def _errors(error: PanelError) -> dict[str, Any]:
    """The template variables for the errors of a form: a sentence for each field, or one for the whole form."""
    by_field = {field.field: field.message for field in error.fields}
    return {"errors": by_field, "error": None if by_field else error.message}


def refused(request: Request, template: str, error: PanelError, **context: Any) -> Response:
    """A page with the error of its form."""
    status = 422 if error.status == 401 else error.status
    response = page(request, template, status, **_errors(error), **context)
    response.headers.update({name: value for name, value in error.headers.items() if name == "Retry-After"})
    return response


# ---- setup link, login ----------------------------------------------------------------------------------------------


@router.get("/setup")
def show_setup(request: Request, code: Annotated[str, Query(max_length=200)] = "") -> Response:
    """The page of the setup link, where the owner's account is created."""
    with db.transaction() as session:
        if service.owner_exists(session):
            return redirect("/login")
    return page(request, "accounts/setup.html", code=code, name="", errors={}, error=None)


@router.post("/setup")
@HASHING
def set_up(request: Request, code: Text = "", name: Text = "", password: Text = "") -> Response:
    """Create the owner's account and log in."""
    try:
        address = guess_limits.from_address(request, "code")
        login = access.set_up(code, name, password, browser_of(request), address)
    except PanelError as error:
        return refused(request, "accounts/setup.html", error, code=code, name=name)
    return _logged_in(request, login, "/")


@router.get("/login")
def show_login(request: Request, next: Annotated[str, Query(max_length=500)] = "/") -> Response:
    """The login page; redirects a user who is logged in already."""
    if auth.identify(request) is not None:
        return redirect(local(next))
    with db.transaction() as session:
        fresh = not service.owner_exists(session)
    context: dict[str, Any] = {"fresh": fresh, "next": local(next), "name": "", "provider": _provider()}
    return page(request, "accounts/login.html", errors={}, error=None, **context)


@router.post("/login")
@HASHING
def log_in(request: Request, name: Text = "", password: Text = "", next: Text = "/") -> Response:
    """Check the password, set the session cookie and redirect to the requested page."""
    try:
        login = access.log_in(name, password, browser_of(request))
    except PanelError as error:
        return refused_login(request, error, local(next), name)
    return _logged_in(request, login, local(next))


def refused_login(request: Request, error: PanelError, path: str, name: str = "") -> Response:
    """The login page with the reason why a login failed. `path` is the page to show after the next one."""
    context = {"fresh": False, "next": path, "name": name, "provider": _provider()}
    return refused(request, "accounts/login.html", error, **context)


def _provider() -> str:
    """The name of the provider that people may log in with; empty if there is none."""
    return oidc.provider_name() if oidc.is_configured() else ""


def _logged_in(request: Request, login: Login | None, path: str) -> Response:
    response = redirect(path)
    if login is not None:
        cookies.set_login_cookies(request, response, login)
    return response


@router.get("/reset-password")
def show_reset(request: Request, code: Annotated[str, Query(max_length=200)] = "") -> Response:
    """The page of a reset link, where a user chooses a new password."""
    if code and (error := _problem_of(service.user_of_reset, code)):
        return refused(request, "accounts/reset.html", error, code="", revoke_tokens=True, is_link_invalid=True)
    return page(request, "accounts/reset.html", code=code, revoke_tokens=True, errors={}, error=None)


@router.post("/reset-password")
@HASHING
def reset_password(request: Request, code: Text = "", password: Text = "", revoke_tokens: Text = "") -> Response:
    """Store the new password and log in."""
    revoke, browser = bool(revoke_tokens), browser_of(request)
    address = guess_limits.from_address(request, "code")
    try:
        login = access.reset_password(code, password, browser, address, revoke_tokens=revoke)
    except PanelError as error:
        return refused(request, "accounts/reset.html", error, code=code, revoke_tokens=revoke)
    return _logged_in(request, login, "/account?done=password")


def _problem_of(check: Callable[..., Any], code: str) -> PanelError | None:
    """What is wrong with the code of a link. It is no guess that counts: another site can make a browser follow it."""
    try:
        with db.transaction() as session:
            check(session, code=code)
    except PanelError as error:
        return error
    return None


@router.get("/invitation")
def show_invitation(request: Request, code: Annotated[str, Query(max_length=200)] = "") -> Response:
    """The page of an invitation, where somebody creates an account."""
    if error := _problem_of(invitations.of_code, code):
        return refused(request, "accounts/invitation.html", error, code="", name="")
    return page(request, "accounts/invitation.html", code=code, name="", errors={}, error=None)


@router.post("/invitation")
@HASHING
def accept_invitation(request: Request, code: Text = "", name: Text = "", password: Text = "") -> Response:
    """Create the account and log in."""
    address = guess_limits.from_address(request, "code")
    try:
        login = access.accept_invitation(code, name, password, browser_of(request), address)
    except PanelError as error:
        return refused(request, "accounts/invitation.html", error, code=code, name=name)
    return _logged_in(request, login, "/")


@router.post("/logout")
def log_out(request: Request) -> Response:
    """End the session."""
    response = redirect("/login")
    end_session(request, response)
    return response


@router.post("/preferences")
def set_preferences(request: Request, language: Text = "", theme: Text = "", next: Text = "/") -> Response:
    """Store language and theme in cookies and redirect back."""
    response = redirect(local(next))
    for cookie, value, allowed in ((LANGUAGE_COOKIE, language, i18n.LOCALES), (THEME_COOKIE, theme, THEMES)):
        if value in allowed:
            secure = request.url.scheme == "https"
            response.set_cookie(cookie, value, max_age=ONE_YEAR, path="/", samesite="lax", httponly=True, secure=secure)
    return response


# ---- the account ----------------------------------------------------------------------------------------------------


def account_page(
    request: Request, principal: Principal, error: PanelError | None = None, after: str | None = None, **context: Any
) -> Response:
    """Draw the account page, with the API tokens after a cursor.

    With an error, `form` names the form that it belongs to, and `values` are its input.
    """
    with db.transaction() as session:
        sessions = service.list_sessions(session, principal=principal)
        tokens, more_tokens = service.list_tokens(session, principal=principal, after=after)
        user = service.get_user(session, user_id=principal.user_id)
        used = quotas.usage(session, principal.user_id)
        identities = oidc.identities(session, user_id=principal.user_id)
    variables: dict[str, Any] = {
        "form": "",
        "values": {},
        "secret": None,
        "done": "",
        "principal": principal,
        "sessions": sessions,
        "tokens": tokens,
        "more_tokens": more_tokens,
        "after": after,
        "usage": used,
        "quotas": quotas.of_user(user),
        "has_password": user.password_hash is not None,
        "provider": _provider(),
        "identities": [(row, _provider() if oidc.is_of_provider(row) else row.issuer) for row in identities],
        "is_connected": any(map(oidc.is_of_provider, identities)),
        "scopes": [scope for scope in SCOPES if scope in principal.scopes],
        "base": str(request.base_url),
        **context,
    }
    if error is not None:
        return refused(request, "accounts/account.html", error, **variables)
    return page(request, "accounts/account.html", errors={}, error=None, **variables)


@router.get("/account")
def show_account(request: Request, principal: OwnAccount, after: After = None) -> Response:
    """The account page: the user's name, password, browsers and API tokens."""
    return account_page(request, principal, after=after, done=request.query_params.get("done", ""))


@router.post("/account/password")
@HASHING
def change_password(
    request: Request, principal: OwnAccount, present_password: Text = "", password: Text = "", revoke_tokens: Text = ""
) -> Response:
    """Change the password, which logs out all other browsers, and revoke the API tokens if asked to."""
    revoke, browser = bool(revoke_tokens), browser_of(request)
    try:
        login = access.change_password(principal, present_password, password, browser, revoke_tokens=revoke)
    except PanelError as error:
        return account_page(request, principal, error, form="password", values={"revoke_tokens": revoke})
    return _logged_in(request, login, "/account?done=password")


@router.post("/account/sessions/{session_id}/revoke")
def revoke_session(principal: OwnAccount, session_id: Id) -> Response:
    """Log out a browser, effective immediately."""
    with db.transaction() as session:
        service.revoke_session(session, principal=principal, session_id=session_id)
    return redirect("/account?done=session")


@router.post("/account/sessions/revoke")
def revoke_other_sessions(principal: OwnAccount) -> Response:
    """Log out every other browser."""
    with db.transaction() as session:
        service.revoke_other_sessions(session, principal=principal)
    return redirect("/account?done=sessions")


@router.post("/account/tokens")
def create_token(
    request: Request, principal: OwnAccount, name: Text = "", scopes: Annotated[tuple[str, ...], Form()] = ()
) -> Response:
    """Create an API token and show its secret once."""
    try:
        with db.transaction() as session:
            _token, secret = service.create_token(session, principal=principal, name=name, scopes=scopes)
    except PanelError as error:
        return account_page(request, principal, error, form="token", values={"name": name, "scopes": scopes})
    return account_page(request, principal, secret=secret)


@router.post("/account/tokens/{token_id}/revoke")
def revoke_token(principal: OwnAccount, token_id: Id) -> Response:
    """Revoke an API token, effective immediately."""
    with db.transaction() as session:
        service.revoke_token(session, principal=principal, token_id=token_id)
    return redirect("/account?done=token")

"""HTML routes of accounts: the first link, login, the account page, language and theme."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from app.accounts import access, cookies, service
from app.accounts.api import end_session
from app.core import db, i18n
from app.core.errors import PanelError
from app.core.principal import SCOPES, Principal
from app.web import auth
from app.web.auth import Admin
from app.web.pages import LANGUAGE_COOKIE, THEME_COOKIE, page

router = APIRouter()
THEMES = ("light", "dark", "system")
ONE_YEAR = 365 * 24 * 3600

Text = Annotated[str, Form()]


def local(path: str, otherwise: str = "/") -> str:
    """A path of this panel to go on to; anything that could lead to another site is replaced."""
    safe = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if safe else otherwise


def _go(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=303)


def _errors(error: PanelError) -> dict[str, Any]:
    """What a form is drawn with again: the sentence for each field, or one for the whole."""
    by_field = {field.field: field.message for field in error.fields}
    return {"errors": by_field, "error": None if by_field else error.message}


def _refused(request: Request, template: str, error: PanelError, **context: Any) -> Response:
    status = 422 if error.status == 401 else error.status
    response = page(request, template, status, **_errors(error), **context)
    response.headers.update({name: value for name, value in error.headers.items() if name == "Retry-After"})
    return response


# ---- the first link, login ------------------------------------------------------------------------------------------


@router.get("/setup")
def show_setup(request: Request, code: Annotated[str, Query(max_length=200)] = "") -> Response:
    """The page of the first link."""
    with db.transaction() as session:
        if service.owner_exists(session):
            return _go("/login")
    return page(request, "accounts/setup.html", code=code, name="", errors={}, error=None)


@router.post("/setup")
def set_up(request: Request, code: Text = "", name: Text = "", password: Text = "") -> Response:
    """Make the owner and log in."""
    try:
        secret = access.set_up(code, name, password)
    except PanelError as error:
        return _refused(request, "accounts/setup.html", error, code=code, name=name)
    return _logged_in(request, secret, "/")


@router.get("/login")
def show_login(request: Request, next: Annotated[str, Query(max_length=500)] = "/") -> Response:
    """The page to log in; somebody who is logged in goes on at once."""
    if auth.identify(request) is not None:
        return _go(local(next))
    with db.transaction() as session:
        fresh = not service.owner_exists(session)
    return page(request, "accounts/login.html", fresh=fresh, next=local(next), name="", errors={}, error=None)


@router.post("/login")
def log_in(request: Request, name: Text = "", password: Text = "", next: Text = "/") -> Response:
    """Check the password and go on where the visitor wanted to."""
    try:
        secret = access.log_in(name, password, request.cookies.get(auth.COOKIE))
    except PanelError as error:
        return _refused(request, "accounts/login.html", error, fresh=False, next=local(next), name=name)
    return _logged_in(request, secret, local(next))


def _logged_in(request: Request, secret: str, path: str) -> Response:
    response = _go(path)
    cookies.set_session_cookie(request, response, secret)
    return response


@router.post("/logout")
def log_out(request: Request) -> Response:
    """End the session."""
    response = _go("/login")
    end_session(request, response)
    return response


@router.post("/preferences")
def set_preferences(request: Request, language: Text = "", theme: Text = "", next: Text = "/") -> Response:
    """Keep language and theme in this browser, and go back."""
    response = _go(local(next))
    for cookie, value, allowed in ((LANGUAGE_COOKIE, language, i18n.LOCALES), (THEME_COOKIE, theme, THEMES)):
        if value in allowed:
            secure = request.url.scheme == "https"
            response.set_cookie(cookie, value, max_age=ONE_YEAR, path="/", samesite="lax", httponly=True, secure=secure)
    return response


# ---- the account ----------------------------------------------------------------------------------------------------


def _account(request: Request, principal: Principal, error: PanelError | None = None, **context: Any) -> Response:
    """The page, or with an error the same page with the form's values kept; `form` says which one it concerns."""
    with db.transaction() as session:
        tokens, _more = service.list_tokens(session, principal=principal)
        people = service.list_users(session, principal=principal)[0] if principal.is_owner else []
    shown: dict[str, Any] = {"form": "", "values": {}, "secret": None, "done": "", "errors": {}, "error": None}
    shown.update(principal=principal, tokens=tokens, people=people, scopes=SCOPES, base=str(request.base_url))
    shown.update(context)
    if error is None:
        return page(request, "accounts/account.html", **shown)
    for name in ("errors", "error"):
        del shown[name]
    return _refused(request, "accounts/account.html", error, **shown)


@router.get("/account")
def show_account(request: Request, principal: Admin) -> Response:
    """Who you are, your password, your API tokens, and for the owner the people."""
    return _account(request, principal, done=request.query_params.get("done", ""))


@router.post("/account/password")
def change_password(request: Request, principal: Admin, present_password: Text = "", password: Text = "") -> Response:
    """Set a new password. Every other browser is logged out."""
    try:
        secret = access.change_password(principal, present_password, password)
    except PanelError as error:
        return _account(request, principal, error, form="password")
    return _logged_in(request, secret, "/account?done=password")


@router.post("/account/tokens")
def create_token(
    request: Request, principal: Admin, name: Text = "", scopes: Annotated[tuple[str, ...], Form()] = ()
) -> Response:
    """Create an API token and show its secret, this once."""
    try:
        with db.transaction() as session:
            _token, secret = service.create_token(session, principal=principal, name=name, scopes=scopes)
    except PanelError as error:
        return _account(request, principal, error, form="token", values={"name": name, "scopes": scopes})
    return _account(request, principal, secret=secret)


@router.post("/account/tokens/{token_id}/revoke")
def revoke_token(principal: Admin, token_id: str) -> Response:
    """Make a token stop working."""
    with db.transaction() as session:
        service.revoke_token(session, principal=principal, token_id=token_id)
    return _go("/account?done=token")


@router.post("/account/people")
def add_person(request: Request, principal: Admin, name: Text = "", password: Text = "") -> Response:
    """Add somebody with an initial password."""
    try:
        access.add_member(principal, name, password)
    except PanelError as error:
        return _account(request, principal, error, form="person", values={"name": name})
    return _go("/account?done=person")

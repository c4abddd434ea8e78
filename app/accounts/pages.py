"""HTML routes of accounts: the setup link, login, the account page, language and theme."""

import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from app.accounts import access, cookies, invitations, removal, service
from app.accounts.api import end_session, reset_link
from app.accounts.browser import browser_of
from app.accounts.oidc import service as oidc
from app.accounts.passwords import HASHING
from app.accounts.service import Login
from app.core import db, i18n, names, quotas
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.principal import SCOPES, Principal
from app.core.roles import ROLES, Role, may_manage
from app.web import auth, guess_limits
from app.web.auth import OwnAccount, PeopleManager
from app.web.pages import LANGUAGE_COOKIE, THEME_COOKIE, handle_form_action, page
from app.web.parameters import Id

router = APIRouter()
THEMES = ("light", "dark", "system")
ONE_YEAR = 365 * 24 * 3600
INVITATION_DAYS = 7
AMBIGUOUS = re.compile(r",\d{3}(?!\d)")  # a comma that separates thousands, or decimals

Text = Annotated[str, Form()]
RoleField = Annotated[Role, Form()]


def local(path: str, otherwise: str = "/") -> str:
    """The path to redirect to, or `otherwise` if it could lead to another site."""
    safe = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if safe else otherwise


def _go(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=303)


def _errors(error: PanelError) -> dict[str, Any]:
    """The template variables for the errors of a form: a sentence for each field, or one for the whole form."""
    by_field = {field.field: field.message for field in error.fields}
    return {"errors": by_field, "error": None if by_field else error.message}


def _refused(request: Request, template: str, error: PanelError, **context: Any) -> Response:
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
            return _go("/login")
    return page(request, "accounts/setup.html", code=code, name="", errors={}, error=None)


@router.post("/setup")
@HASHING
def set_up(request: Request, code: Text = "", name: Text = "", password: Text = "") -> Response:
    """Create the owner's account and log in."""
    try:
        address = guess_limits.from_address(request, "code")
        login = access.set_up(code, name, password, browser_of(request), address)
    except PanelError as error:
        return _refused(request, "accounts/setup.html", error, code=code, name=name)
    return _logged_in(request, login, "/")


@router.get("/login")
def show_login(request: Request, next: Annotated[str, Query(max_length=500)] = "/") -> Response:
    """The login page; redirects a user who is logged in already."""
    if auth.identify(request) is not None:
        return _go(local(next))
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
    return _refused(request, "accounts/login.html", error, **context)


def _provider() -> str:
    """The name of the provider that people may log in with; empty if there is none."""
    return oidc.provider_name() if oidc.is_configured() else ""


def _logged_in(request: Request, login: Login | None, path: str) -> Response:
    response = _go(path)
    if login is not None:
        cookies.set_login_cookies(request, response, login)
    return response


@router.get("/reset-password")
def show_reset(request: Request, code: Annotated[str, Query(max_length=200)] = "") -> Response:
    """The page of a reset link, where a user chooses a new password."""
    if code and (error := _problem_of(service.user_of_reset, code)):
        return _refused(request, "accounts/reset.html", error, code="", revoke_tokens=True, is_link_invalid=True)
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
        return _refused(request, "accounts/reset.html", error, code=code, revoke_tokens=revoke)
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
        return _refused(request, "accounts/invitation.html", error, code="", name="")
    return page(request, "accounts/invitation.html", code=code, name="", errors={}, error=None)


@router.post("/invitation")
@HASHING
def accept_invitation(request: Request, code: Text = "", name: Text = "", password: Text = "") -> Response:
    """Create the account and log in."""
    address = guess_limits.from_address(request, "code")
    try:
        login = access.accept_invitation(code, name, password, browser_of(request), address)
    except PanelError as error:
        return _refused(request, "accounts/invitation.html", error, code=code, name=name)
    return _logged_in(request, login, "/")


@router.post("/logout")
def log_out(request: Request) -> Response:
    """End the session."""
    response = _go("/login")
    end_session(request, response)
    return response


@router.post("/preferences")
def set_preferences(request: Request, language: Text = "", theme: Text = "", next: Text = "/") -> Response:
    """Store language and theme in cookies and redirect back."""
    response = _go(local(next))
    for cookie, value, allowed in ((LANGUAGE_COOKIE, language, i18n.LOCALES), (THEME_COOKIE, theme, THEMES)):
        if value in allowed:
            secure = request.url.scheme == "https"
            response.set_cookie(cookie, value, max_age=ONE_YEAR, path="/", samesite="lax", httponly=True, secure=secure)
    return response


# ---- the account ----------------------------------------------------------------------------------------------------


def account_page(request: Request, principal: Principal, error: PanelError | None = None, **context: Any) -> Response:
    """Draw the account page. With an error, `form` names the form that it belongs to, and `values` are its input."""
    with db.transaction() as session:
        sessions = service.list_sessions(session, principal=principal)
        tokens, _more = service.list_tokens(session, principal=principal)
        people = service.list_users(session)[0] if principal.is_at_least("admin") else []
        invited = invitations.list_open(session)[0] if principal.is_at_least("admin") else []
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
        "usage": used,
        "quotas": quotas.of_user(user),
        "has_password": user.password_hash is not None,
        "provider": _provider(),
        "identities": [(row, _provider() if oidc.is_of_provider(row) else row.issuer) for row in identities],
        "is_connected": any(map(oidc.is_of_provider, identities)),
        "people": people,
        "invitations": invited,
        "invitation_link": None,
        "scopes": [scope for scope in SCOPES if scope in principal.scopes],
        "roles": [role for role in ROLES if may_manage(principal.role, role)],
        "base": str(request.base_url),
        **context,
    }
    if error is not None:
        return _refused(request, "accounts/account.html", error, **variables)
    return page(request, "accounts/account.html", errors={}, error=None, **variables)


@router.get("/account")
def show_account(request: Request, principal: OwnAccount) -> Response:
    """The account page: the user's name, password and API tokens, and all users for those who manage them."""
    return account_page(request, principal, done=request.query_params.get("done", ""))


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
    return _go("/account?done=session")


@router.post("/account/sessions/revoke")
def revoke_other_sessions(principal: OwnAccount) -> Response:
    """Log out every other browser."""
    with db.transaction() as session:
        service.revoke_other_sessions(session, principal=principal)
    return _go("/account?done=sessions")


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
    return _go("/account?done=token")


@router.post("/account/people")
@HASHING
def add_person(
    request: Request, principal: PeopleManager, name: Text = "", password: Text = "", role: RoleField = "member"
) -> Response:
    """Create an account with an initial password."""
    try:
        access.add_user(principal, name, password, role)
    except PanelError as error:
        return account_page(request, principal, error, form="person", values={"name": name, "role": role})
    return _go("/account?done=person")


@router.post("/account/invitations")
def invite(request: Request, principal: PeopleManager, role: RoleField = "member") -> Response:
    """Create an invitation and show its link once."""
    try:
        with db.transaction() as session:
            _row, code = invitations.create(session, principal=principal, role=role, days=INVITATION_DAYS)
    except PanelError as error:
        return account_page(request, principal, error, form="invitation", values={"role": role})
    return account_page(request, principal, invitation_link=invitations.link(str(request.base_url), code))


@router.post("/account/invitations/{invitation_id}/revoke")
def revoke_invitation(request: Request, principal: PeopleManager, invitation_id: Id) -> Response:
    """Revoke an invitation."""
    return handle_form_action(
        lambda session: invitations.revoke(session, principal=principal, invitation_id=invitation_id),
        "/account?done=invitation",
        lambda error: account_page(request, principal, error, form="invitation"),
    )


# ---- one person -----------------------------------------------------------------------------------------------------


def _person(
    request: Request, principal: Principal, user_id: str, error: PanelError | None = None, **context: Any
) -> Response:
    """Draw the page of a user. With an error, `form` names the form that it belongs to."""
    with db.transaction() as session:
        person = service.get_user(session, user_id=user_id)
        belongings = removal.belongings(session, user_id)
        used = quotas.usage(session, user_id)
    variables: dict[str, Any] = {"form": "", "choice": "", "reset_link": None, "done": "", **context}
    variables |= {"principal": principal, "person": person, "belongings": belongings, "usage": used}
    variables["quotas"] = limits = quotas.of_user(person)
    gigabytes = None if limits.disk_bytes is None else limits.disk_bytes / 10**9
    numbers = {"disk_gigabytes": gigabytes, "running_jobs": limits.running_jobs, "gpu_hours": limits.gpu_hours}
    variables.setdefault("entered", {name: "" if n is None else f"{n:.12g}" for name, n in numbers.items()})
    variables["is_managed"] = may_manage(principal.role, person.role)
    variables["roles"] = [role for role in ROLES if may_manage(principal.role, role)]
    if error is not None:
        return _refused(request, "accounts/person.html", error, **variables)
    return page(request, "accounts/person.html", errors={}, error=None, **variables)


@router.get("/account/people/{user_id}")
def show_person(request: Request, principal: PeopleManager, user_id: Id) -> Response:
    """The page of a user."""
    return _person(request, principal, user_id, done=request.query_params.get("done", ""))


@router.post("/account/people/{user_id}/role")
def change_role(request: Request, principal: PeopleManager, user_id: Id, role: RoleField) -> Response:
    """Give a user another role."""
    return _change_account(request, principal, user_id, partial(service.set_role, role=role), "role", form="role")


@router.post("/account/people/{user_id}/quotas")
def set_quotas(
    request: Request,
    principal: PeopleManager,
    user_id: Id,
    disk_gigabytes: Text = "",
    running_jobs: Text = "",
    gpu_hours: Text = "",
) -> Response:
    """Change what a user may take at most; an empty field is no limit."""
    entered = {"disk_gigabytes": disk_gigabytes, "running_jobs": running_jobs, "gpu_hours": gpu_hours}
    try:
        values: dict[str, Any] = {name: _decimal(text) or None for name, text in entered.items()}
        gigabytes = values.pop("disk_gigabytes")
        num_bytes = None if gigabytes is None else round(float(gigabytes) * 10**9)
        changed = quotas.Quotas.model_validate({"disk_bytes": num_bytes, **values})
    except (ValueError, OverflowError):
        message = _("Enter numbers that are not negative, such as 1500 or 1.5, or leave fields empty.")
        error = PanelError(422, "request_invalid", message)
        return _person(request, principal, user_id, error, form="quotas", entered=entered)
    return _change_account(request, principal, user_id, partial(service.set_quotas, quotas=changed), "quotas", "quotas")


def _decimal(text: str) -> str:
    """A number with its decimal comma as a point. Raises ValueError for one such as 1,500, which has two readings."""
    if AMBIGUOUS.search(text):
        raise ValueError(text)
    return text.strip().replace(",", ".")


@router.post("/account/people/{user_id}/disable")
def disable_person(request: Request, principal: PeopleManager, user_id: Id) -> Response:
    """Disable a user."""
    return _change_account(request, principal, user_id, service.disable, "disabled")


@router.post("/account/people/{user_id}/enable")
def enable_person(request: Request, principal: PeopleManager, user_id: Id) -> Response:
    """Enable a user again."""
    return _change_account(request, principal, user_id, service.enable, "enabled")


def _change_account(
    request: Request, principal: Principal, user_id: str, verb: Callable[..., Any], done: str, form: str = "access"
) -> Response:
    return handle_form_action(
        lambda session: verb(session, principal=principal, user_id=user_id),
        f"/account/people/{user_id}?done={done}",
        lambda error: _person(request, principal, user_id, error, form=form),
    )


@router.post("/account/people/{user_id}/password-reset")
def create_password_reset(request: Request, principal: PeopleManager, user_id: Id) -> Response:
    """Create a reset link and show it once."""
    try:
        with db.transaction() as session:
            user = service.managed_user(session, principal=principal, user_id=user_id)
            code = service.create_password_reset(session, user=user, principal=principal)
    except PanelError as error:
        if error.status == 404:
            raise
        return _person(request, principal, user_id, error, form="reset")
    return _person(request, principal, user_id, reset_link=reset_link(str(request.base_url), code))


@router.post("/account/people/{user_id}/remove")
def remove_person(
    request: Request, principal: PeopleManager, user_id: Id, data: Text = "", confirmation: Text = ""
) -> Response:
    """Remove a user, once their name was typed."""

    def remove(session: Session) -> None:
        user = service.managed_user(session, principal=principal, user_id=user_id)
        if names.comparison_key(confirmation) != names.comparison_key(user.name):
            raise bad_field("confirmation", "name_differs", _("This is not the name of the account."))
        removal.remove(session, principal=principal, user_id=user_id, choice=data)

    return handle_form_action(
        remove,
        "/account?done=removed",
        lambda error: _person(request, principal, user_id, error, form="remove", choice=data),
    )

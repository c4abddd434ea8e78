"""HTML routes of those who manage people: the list, invitations, and the page of a person."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from sqlalchemy.orm import Session

from app.accounts import access, invitations, removal, service
from app.accounts.api import reset_link
from app.accounts.pages import redirect, refused
from app.accounts.passwords import HASHING
from app.core import db, names, quotas
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.principal import Principal
from app.core.roles import ROLES, Role, may_manage
from app.web.auth import PeopleManager
from app.web.list_view import ListView
from app.web.pages import handle_form_action, page
from app.web.paging import After
from app.web.parameters import Id

router = APIRouter()
PAGE_ROWS = 50
INVITATION_DAYS = 7
AMBIGUOUS = re.compile(r",\d{3}(?!\d)")  # a comma that separates thousands, or decimals

Text = Annotated[str, Form()]
RoleField = Annotated[Role, Form()]


def _grantable_roles(principal: Principal) -> list[Role]:
    """The roles that somebody may give."""
    return [role for role in ROLES if may_manage(principal.role, role)]


# ---- the list -------------------------------------------------------------------------------------------------------


def _view(query: Mapping[str, str]) -> ListView:
    """Which people the list shows."""
    return ListView.of("/account/people", query, ("newest", "name"), role=("", *ROLES), access=("", *service.ACCESS))


def _people_page(
    request: Request,
    principal: Principal,
    error: PanelError | None = None,
    after: str | None = None,
    invited_after: str | None = None,
    **context: Any,
) -> Response:
    """Draw the list of people. With an error, `form` names the form that it belongs to, and `values` are its input."""
    view = _view(request.query_params)
    with db.transaction() as session:
        people, cursor = service.list_users(
            session,
            search=view["q"],
            role=view["role"] or None,
            access=view["access"] or None,
            order=view["order"],
            limit=PAGE_ROWS,
            after=after,
        )
        invited, more_invited = invitations.list_open(session, limit=PAGE_ROWS, after=invited_after)
    variables: dict[str, Any] = {
        "form": "",
        "values": {},
        "done": "",
        "principal": principal,
        "view": view,
        "people": people,
        "next": cursor,
        "after": after,
        "invitations": invited,
        "more_invitations": more_invited,
        "invitation_link": None,
        "roles": _grantable_roles(principal),
        **context,
    }
    if error is not None:
        return refused(request, "accounts/people.html", error, **variables)
    return page(request, "accounts/people.html", errors={}, error=None, **variables)


@router.get("/account/people")
def show_people(
    request: Request, principal: PeopleManager, after: After = None, invited_after: After = None
) -> Response:
    """All people, with a search, and the invitations that can be used."""
    return _people_page(request, principal, None, after, invited_after, done=request.query_params.get("done", ""))


@router.post("/account/people")
@HASHING
def add_person(
    request: Request, principal: PeopleManager, name: Text = "", password: Text = "", role: RoleField = "member"
) -> Response:
    """Create an account with an initial password."""
    try:
        access.add_user(principal, name, password, role)
    except PanelError as error:
        return _people_page(request, principal, error, form="person", values={"name": name, "role": role})
    return redirect("/account/people?done=person")


@router.post("/account/invitations")
def invite(request: Request, principal: PeopleManager, role: RoleField = "member") -> Response:
    """Create an invitation and show its link once."""
    try:
        with db.transaction() as session:
            _row, code = invitations.create(session, principal=principal, role=role, days=INVITATION_DAYS)
    except PanelError as error:
        return _people_page(request, principal, error, form="invitation", values={"role": role})
    return _people_page(request, principal, invitation_link=invitations.link(str(request.base_url), code))


@router.post("/account/invitations/{invitation_id}/revoke")
def revoke_invitation(request: Request, principal: PeopleManager, invitation_id: Id) -> Response:
    """Revoke an invitation."""
    return handle_form_action(
        lambda session: invitations.revoke(session, principal=principal, invitation_id=invitation_id),
        "/account/people?done=invitation",
        lambda error: _people_page(request, principal, error, form="invitation"),
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
    variables["roles"] = _grantable_roles(principal)
    if error is not None:
        return refused(request, "accounts/person.html", error, **variables)
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
        "/account/people?done=removed",
        lambda error: _person(request, principal, user_id, error, form="remove", choice=data),
    )

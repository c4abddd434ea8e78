"""HTML routes of notices: the list of a user's notices, and how the user is notified."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Form, Header, Query, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse

from app.core import db, i18n
from app.core.errors import PanelError
from app.core.principal import Principal
from app.notices import apprise_process, email, email_addresses, events, schemas, service, services, stream
from app.notices.sending import SENDING
from app.web.auth import OwnAccount, Owner, Reader
from app.web.event_source import event_source
from app.web.pages import page
from app.web.paging import After
from app.web.parameters import Id, ShortText

router = APIRouter()
SETTINGS_PATH = "/account/notices"
PER_PAGE = 50


def _go(path: str) -> RedirectResponse:
    return RedirectResponse(path, status_code=303)


@router.get("/notices")
def show_notices(request: Request, principal: Reader, after: After = None) -> Response:
    """The notices of the user, newest first."""
    with db.transaction() as session:
        rows, cursor = service.list_notices(session, principal=principal, limit=PER_PAGE, after=after)
        notices = schemas.notice_answers(session, rows)
    return page(request, "notices/list.html", principal=principal, notices=notices, next=cursor, after=after)


@router.post("/notices/read")
def mark_all_read(principal: OwnAccount) -> Response:
    """Mark all notices as read."""
    with db.transaction() as session:
        service.mark_all_read(session, principal=principal)
    return _go("/notices")


@router.post("/notices/{notice_id}/read")
def open_notice(principal: OwnAccount, notice_id: Id) -> Response:
    """Mark a notice as read and go to the job that it is about."""
    with db.transaction() as session:
        notice = service.mark_read(session, principal=principal, notice_id=notice_id)
    return _go(f"/jobs/{notice.job_id}" if notice.job_id else "/notices")


@router.get("/notices/events")
def stream_notices(
    request: Request,
    principal: Reader,
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
) -> EventSourceResponse:
    """Follow the notices: a server-sent event for each new one, for pages that are open."""
    language = i18n.locale()
    read = stream.reader(principal.user_id, language)
    return event_source(request, stream.topic(principal.user_id, language), read, last_event_id or "")


# ---- settings -------------------------------------------------------------------------------------------------------


def _settings_page(request: Request, principal: Principal, error: PanelError | None = None, **context: Any) -> Response:
    """Draw the settings. With an error, `form` names the form that it belongs to, and `values` are its input."""
    with db.transaction() as session:
        answer = schemas.settings_answer(session, principal)
    by_field = {problem.field: problem.message for problem in error.fields} if error is not None else {}
    variables = {
        "principal": principal,
        "choices": answer,
        "events": events.EVENTS,
        "channels": service.CHANNELS,
        "languages": i18n.LOCALES,
        "has_mail_server": email.is_configured(),
        "has_services": principal.is_at_least("owner"),
        "has_apprise": apprise_process.is_installed(),
        "form": "",
        "values": {},
        "done": "",
        "errors": by_field,
        "error": error.message if error is not None and not by_field else None,
        **context,
    }
    return page(request, "notices/settings.html", 200 if error is None else error.status, **variables)


@router.get(SETTINGS_PATH)
def show_settings(request: Request, principal: OwnAccount, done: Annotated[ShortText, Query()] = "") -> Response:
    """The page on which a user chooses how to be notified."""
    return _settings_page(request, principal, done=done)


@router.post(SETTINGS_PATH)
def change_settings(
    request: Request,
    principal: OwnAccount,
    choice: Annotated[tuple[str, ...], Form()] = (),
    language: Annotated[str, Form()] = "",
) -> Response:
    """Store the boxes that are checked, each named by its event and channel, and the language."""
    channels: dict[str, list[str]] = {event: [] for event in service.events_for(principal)}
    for entry in choice:
        event, _space, channel = entry.partition(" ")
        channels.setdefault(event, []).append(channel)
    return _handle(
        request,
        principal,
        "channels",
        lambda session: service.choose(
            session, principal=principal, panel_url=_panel_url(request), channels=channels, language=language
        ),
    )


def _panel_url(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _handle(request: Request, principal: Principal, form: str, verb: Callable[[Session], object]) -> Response:
    """Run `verb` in a transaction and go to the settings; an error is shown at its form."""
    try:
        with db.transaction() as session:
            verb(session)
    except PanelError as error:
        if error.status == 404:
            raise
        return _settings_page(request, principal, error, form=form)
    return _go(f"{SETTINGS_PATH}?done={form}#{form}")


# ---- e-mail ---------------------------------------------------------------------------------------------------------


@router.post(f"{SETTINGS_PATH}/email")
@SENDING
def set_email(request: Request, principal: OwnAccount, address: Annotated[str, Form()] = "") -> Response:
    """Send a link to an address, which confirms it."""
    try:
        email_addresses.ask(principal, _panel_url(request), address)
    except PanelError as error:
        return _settings_page(request, principal, error, form="email", values={"address": address})
    return _go(f"{SETTINGS_PATH}?done=email#email")


@router.post(f"{SETTINGS_PATH}/email/test")
@SENDING
def send_test_email(request: Request, principal: OwnAccount) -> Response:
    """Send a message to the user's address now."""
    try:
        email_addresses.send_test(principal)
    except PanelError as error:
        return _settings_page(request, principal, error, form="email")
    return _go(f"{SETTINGS_PATH}?done=test#email")


@router.post(f"{SETTINGS_PATH}/email/remove")
def remove_email(request: Request, principal: OwnAccount) -> Response:
    """Forget the user's address."""
    return _handle(request, principal, "removed", lambda session: email_addresses.remove(session, principal=principal))


# ---- services -------------------------------------------------------------------------------------------------------


@router.post(f"{SETTINGS_PATH}/services")
@SENDING
def add_service(
    request: Request, principal: Owner, name: Annotated[str, Form()] = "", url: Annotated[str, Form()] = ""
) -> Response:
    """Notify the user through a messaging service, too."""
    try:
        services.add(principal, _panel_url(request), name=name, url=url)
    except PanelError as error:
        return _settings_page(request, principal, error, form="services", values={"name": name})
    return _go(f"{SETTINGS_PATH}?done=services#services")


@router.post(SETTINGS_PATH + "/services/{service_id}/test")
@SENDING
def test_service(request: Request, principal: Owner, service_id: Id) -> Response:
    """Send a message to a service now."""
    try:
        services.send_test(principal, service_id)
    except PanelError as error:
        if error.status == 404:
            raise
        return _settings_page(request, principal, error, form="services")
    return _go(f"{SETTINGS_PATH}?done=test#services")


@router.post(SETTINGS_PATH + "/services/{service_id}/remove")
def remove_service(request: Request, principal: Owner, service_id: Id) -> Response:
    """Forget a service."""
    verb = lambda session: services.remove(session, principal=principal, service_id=service_id)  # noqa: E731
    return _handle(request, principal, "service-removed", verb)


# The links in e-mails work without a login. They only show a button: programs that look at links change nothing.


@router.get("/confirm-email")
def show_confirmation(request: Request, code: Annotated[str, Query(max_length=200)] = "") -> Response:
    """The page of a link that confirms an address."""
    return page(request, "notices/link.html", kind="confirm", code=code, is_done=False, error=None)


@router.post("/confirm-email")
def confirm_email(request: Request, code: Annotated[str, Form()] = "") -> Response:
    """Notify the user at the address of the link from now on."""
    try:
        with db.transaction() as session:
            email_addresses.confirm(session, code=code)
    except PanelError as error:
        return page(
            request, "notices/link.html", error.status, kind="confirm", code="", is_done=False, error=error.message
        )
    return page(request, "notices/link.html", kind="confirm", code="", is_done=True, error=None)


@router.get("/unsubscribe")
def show_unsubscribe(request: Request, code: Annotated[str, Query(max_length=200)] = "") -> Response:
    """The page of the link in every e-mail."""
    return page(request, "notices/link.html", kind="unsubscribe", code=code, is_done=False, error=None)


@router.post("/unsubscribe")
def unsubscribe(request: Request, code: Annotated[str, Query(max_length=200)] = "") -> Response:
    """Forget the address. Mail programs send this, too (RFC 8058)."""
    with db.transaction() as session:
        email_addresses.unsubscribe(session, code=code)
    return page(request, "notices/link.html", kind="unsubscribe", code="", is_done=True, error=None)

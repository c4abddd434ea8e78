"""The messaging services that notices of an owner are sent to, each by an Apprise URL, which is never shown again."""

import re

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core import audit_log, db
from app.core.audit_log import Action
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.names import checked_name
from app.core.notice_models import NoticeDelivery, NoticeService
from app.core.principal import Principal, not_found
from app.notices import apprise_process, service
from app.notices.delivery_errors import DeliveryFailed, sentence

MAX_SERVICES = 20
MAX_NAME_LENGTH = 60
MAX_URL_LENGTH = 2000
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30})://.*")
LOCAL = ("blink1", "dbus", "gio", "glib", "gnome", "kde", "macosx", "qt", "syslog", "windows")  # of the server itself


def add(principal: Principal, panel_url: str, *, name: str, url: str) -> NoticeService:
    """Send notices of the user to a service from now on. Raises PanelError."""
    row = NoticeService(user_id=principal.user_id, name=checked_name(name, max_length=MAX_NAME_LENGTH))
    row.url = url.strip()
    row.scheme = _scheme(row.url)
    try:
        apprise_process.check(row.url)
    except DeliveryFailed as error:
        raise _refusal(error) from None
    with db.transaction() as session:
        service.changed_settings(session, principal=principal, panel_url=panel_url)  # locked until the count is stored
        if len(service.services_of(session, principal.user_id)) >= MAX_SERVICES:
            message = _("There are as many services as there can be: {limit}. Remove one.", limit=MAX_SERVICES)
            raise bad_field("url", "services_many", message)
        session.add(row)
        session.flush()
        _record(session, "notice_service_added", principal, row)
    return row


def _record(session: Session, action: Action, principal: Principal, row: NoticeService) -> None:
    # Not the URL, which holds secrets.
    audit_log.record(session, action, principal, subject=row.name, subject_id=row.id, detail=row.scheme)


def _refusal(error: DeliveryFailed) -> PanelError:
    """The error for a URL that was checked."""
    message = sentence(error.code)
    if error.code == "apprise_missing":
        return PanelError(409, "apprise_missing", message)
    if error.code == "service_unknown":
        return bad_field("url", "service_unknown", message)
    if error.code == "service_private":
        return bad_field("url", "service_private", message)
    return bad_field("url", "service_failed", message, 502)


def _scheme(url: str) -> str:
    match = URL.fullmatch(url)
    if match is None or len(url) > MAX_URL_LENGTH or not url.isprintable():
        raise bad_field("url", "service_unknown", sentence("service_unknown"))
    scheme = match.group(1).lower()
    if scheme in LOCAL:
        message = _("{scheme}:// shows notices on the server itself, where nobody sees them.", scheme=scheme)
        raise bad_field("url", "service_local", message)
    return scheme


def get(session: Session, *, principal: Principal, service_id: str) -> NoticeService:
    """A service of the user. Raises 404."""
    own = (NoticeService.id == service_id, NoticeService.user_id == principal.user_id)
    row = session.scalar(select(NoticeService).where(*own))
    if row is None:
        raise not_found()
    return row


def send_test(principal: Principal, service_id: str) -> None:
    """Send a message to a service now. Raises PanelError."""
    with db.transaction() as session:
        url = get(session, principal=principal, service_id=service_id).url
        panel_url = service.stored_settings(session, principal.user_id).panel_url
    try:
        text = _("Notices of {url} arrive here.", url=panel_url)
        apprise_process.send(url, title=f"Athanor: {_('Test')}", text=text)
    except DeliveryFailed as error:
        raise PanelError(502, "service_failed", sentence(error.code)) from None


def remove(session: Session, *, principal: Principal, service_id: str) -> None:
    """Send nothing to a service any more, and forget its URL. Raises 404."""
    row = get(session, principal=principal, service_id=service_id)
    _record(session, "notice_service_removed", principal, row)
    session.delete(row)


def last_deliveries(session: Session, user_id: str) -> dict[str, NoticeDelivery]:
    """By the ID of a user's service, the last delivery to it that was tried."""
    last = select(func.max(NoticeDelivery.id)).join(NoticeService, NoticeService.id == NoticeDelivery.service_id)
    tried = (NoticeService.user_id == user_id, NoticeDelivery.num_tries > 0)
    query = select(NoticeDelivery).where(NoticeDelivery.id.in_(last.where(*tried).group_by(NoticeDelivery.service_id)))
    return {str(row.service_id): row for row in session.scalars(query)}

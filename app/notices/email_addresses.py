"""The address that a user is notified at: it is used once a link that was sent there was opened."""

import re
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core import db
from app.core.errors import PanelError, bad_field
from app.core.i18n import _
from app.core.notice_models import NoticeSettings
from app.core.principal import Principal, digest, new_secret
from app.notices import email, service
from app.notices.delivery_errors import DeliveryFailed, sentence

MAX_LENGTH = 254
ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
CODE_LIFETIME = timedelta(hours=24)
PAUSE = timedelta(minutes=1)  # between two links of a user


def ask(principal: Principal, panel_url: str, address: str) -> None:
    """Send a link to an address, which confirms it. Raises PanelError."""
    with db.transaction() as session:
        code = note(session, principal=principal, panel_url=panel_url, address=address)
    _send_link(address.strip(), panel_url, code)


def note(session: Session, *, principal: Principal, panel_url: str, address: str) -> str:
    """Note an address and return the code of the link that confirms it. Earlier codes stop working.

    Raises PanelError for what is no address, and where no mail server is configured.
    """
    address = address.strip()
    if len(address) > MAX_LENGTH or not ADDRESS.fullmatch(address):
        raise bad_field("address", "email_invalid", _("This is not an e-mail address."))
    if not email.is_configured():
        raise PanelError(409, "email_unconfigured", sentence("email_unconfigured"))
    row = service.changed_settings(session, principal=principal, panel_url=panel_url)
    if row.code_expires_at is not None and row.code_expires_at > db.now() + CODE_LIFETIME - PAUSE:
        message = _("A link was sent less than a minute ago. Look for it, or try again in a minute.")
        raise PanelError(429, "email_soon", message, headers={"Retry-After": "60"})
    code = new_secret()
    row.pending_email, row.code_sha256 = address, digest(code)
    row.code_expires_at = func.now() + CODE_LIFETIME
    return code


def _send_link(address: str, panel_url: str, code: str) -> None:
    """Send the link. It names nobody, as anybody's address may be entered. Raises PanelError at `address`."""
    text = _(
        "This address was entered at {url}, to be notified at. If it was you who entered it, open this link within "
        "24 hours:\n\n{link}\n\nOtherwise ignore this message.",
        url=panel_url,
        link=f"{panel_url}/confirm-email?code={code}",
    )
    _send(address, _("Confirm your address"), text)


def send_test(principal: Principal) -> None:
    """Send a message to the user's address. Raises PanelError."""
    with db.transaction() as session:
        row = service.stored_settings(session, principal.user_id)
    if row.email is None:
        raise bad_field("address", "email_missing", _("No address is confirmed."), 409)
    _send(row.email, _("Test"), _("Notices of {url} arrive at this address.", url=row.panel_url))


def _send(address: str, subject: str, text: str) -> None:
    try:
        email.send(address, f"Athanor: {subject}", text)
    except DeliveryFailed as error:
        raise bad_field("address", "email_failed", sentence(error.code), 502) from None


def confirm(session: Session, *, code: str, user_id: str | None = None) -> None:
    """Use the address of a link from now on; with `user_id` only for this user.

    Raises PanelError, the same one for a wrong and an old code.
    """
    valid = (NoticeSettings.code_sha256 == digest(code), NoticeSettings.code_expires_at > func.now())
    row = session.scalar(select(NoticeSettings).where(*valid).with_for_update())
    if row is None or user_id not in (None, row.user_id):
        message = _("This link is not valid: it was used, it is too old, or a newer one exists.")
        raise bad_field("code", "email_code_wrong", message, 403)
    row.email = row.pending_email
    row.pending_email = row.code_sha256 = None
    row.unsubscribe_code = new_secret()


def remove(session: Session, *, principal: Principal) -> None:
    """Notify the user by e-mail no more, and forget the address."""
    row = session.get(NoticeSettings, principal.user_id, with_for_update=True)
    if row is not None:
        _forget(row)


def unsubscribe(session: Session, *, code: str) -> None:
    """Forget the address of a link to unsubscribe; a wrong code changes nothing, so that a link can be opened twice."""
    row = session.scalar(select(NoticeSettings).where(NoticeSettings.unsubscribe_code == code).with_for_update())
    if row is not None:
        _forget(row)


def _forget(row: NoticeSettings) -> None:
    row.email = row.pending_email = row.code_sha256 = row.unsubscribe_code = None

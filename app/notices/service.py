"""Notices: which events go to whom through which channel, the list of a user's notices, and the user's choices.

With email_addresses.py, services.py and delivery.py the only writer of the tables of notices.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.core import disk, i18n, paging
from app.core.account_models import User
from app.core.errors import bad_field
from app.core.i18n import _, gettext_noop
from app.core.json_shapes import MessageValues
from app.core.notice_models import NoticeDelivery, NoticeService, NoticeSettings, UserNotice
from app.core.principal import Principal, not_found
from app.core.settings import settings
from app.notices import apprise_process, email
from app.notices.events import EVENTS, OWNER_EVENTS

CHANNELS = {
    "page": gettext_noop("In the panel"),
    "browser": gettext_noop("In the browser"),
    "email": gettext_noop("E-mail"),
    "service": gettext_noop("Services"),
}
LIFETIME = timedelta(days=90)
DISK_PAUSE = timedelta(days=1)  # between two notices that the disk is low


# ---- writing notices ------------------------------------------------------------------------------------------------


def notify(
    session: Session, *, user_id: str, event: str, values: MessageValues, job_id: str | None = None
) -> UserNotice | None:
    """Notify a user through the channels that the user wants, within this transaction.

    Returns None where the user wants none, is disabled, or no longer exists.
    """
    user = session.get(User, user_id)
    if user is None or user.disabled_at is not None:
        return None
    chosen = stored_settings(session, user_id)
    services = services_of(session, user_id)
    missing = {
        "email": chosen.email is None or not email.is_configured(),
        "service": not services,
    }
    channels = [name for name in CHANNELS if not missing.get(name) and f"{event} {name}" not in chosen.muted]
    if not channels:
        return None
    notice = UserNotice(user_id=user_id, event=event, job_id=job_id, values=values)
    notice.is_listed, notice.is_for_browser = "page" in channels, "browser" in channels
    session.add(notice)
    session.flush()
    if "email" in channels:
        session.add(NoticeDelivery(notice_id=notice.id, channel="email"))
    if "service" in channels:
        session.add_all(NoticeDelivery(notice_id=notice.id, channel="service", service_id=row.id) for row in services)
    return notice


def in_every_language(sentence: Callable[[], str]) -> MessageValues:
    """A sentence in every language, as a value of a notice."""
    sentences: MessageValues = {}
    for language in i18n.LOCALES:
        with i18n.use_locale(language):
            sentences[language] = sentence()
    return sentences


def notify_of_low_disk(session: Session) -> None:
    """Notify the owners while the disk is low, each at most once in DISK_PAUSE."""
    if not disk.is_low():
        return
    lately = select(UserNotice.user_id).where(
        UserNotice.event == "disk_low", UserNotice.created_at > func.now() - DISK_PAUSE
    )
    owners = select(User.id).where(User.role == "owner", User.id.not_in(lately))
    values: MessageValues = {"free": disk.free_bytes(), "reserve": settings().disk_reserve_bytes}
    for user_id in session.scalars(owners).all():
        notify(session, user_id=user_id, event="disk_low", values=values)


def forget_old(session: Session) -> None:
    """Delete the notices that are older than LIFETIME."""
    session.execute(delete(UserNotice).where(UserNotice.created_at < func.now() - LIFETIME))


# ---- the list -------------------------------------------------------------------------------------------------------


def list_notices(
    session: Session, *, principal: Principal, is_unread: bool = False, limit: int = 50, after: str | None = None
) -> tuple[list[UserNotice], str | None]:
    """The user's notices, newest first, and the cursor of the next page."""
    query = select(UserNotice).where(UserNotice.user_id == principal.user_id, UserNotice.is_listed)
    if is_unread:
        query = query.where(UserNotice.read_at.is_(None))
    return paging.newest(session, query, UserNotice.id, limit, after)


def mark_read(session: Session, *, principal: Principal, notice_id: str) -> UserNotice:
    """Mark a notice as read. Raises 404."""
    own = (UserNotice.id == notice_id, UserNotice.user_id == principal.user_id)
    notice = session.scalar(select(UserNotice).where(*own).with_for_update())
    if notice is None:
        raise not_found()
    if notice.read_at is None:
        notice.read_at = func.now()
        session.flush()
        session.refresh(notice)
    return notice


def mark_all_read(session: Session, *, principal: Principal) -> None:
    """Mark all notices of the user as read."""
    unread = update(UserNotice).where(UserNotice.user_id == principal.user_id, UserNotice.read_at.is_(None))
    session.execute(unread.values(read_at=func.now()))


# ---- choices --------------------------------------------------------------------------------------------------------


def stored_settings(session: Session, user_id: str) -> NoticeSettings:
    """The user's choices; those of a user who has chosen nothing are not stored."""
    return session.get(NoticeSettings, user_id) or NoticeSettings(user_id=user_id, language="en", muted=[])


def changed_settings(session: Session, *, principal: Principal, panel_url: str) -> NoticeSettings:
    """The user's choices, stored and locked. `panel_url` is where the user's browser reaches the panel."""
    new = insert(NoticeSettings).values(user_id=principal.user_id, language=i18n.locale())
    session.execute(new.on_conflict_do_nothing())
    row = session.get_one(NoticeSettings, principal.user_id, with_for_update=True)
    row.panel_url = panel_url
    return row


def events_for(principal: Principal) -> list[str]:
    """The events that concern a user."""
    return [event for event in EVENTS if principal.is_at_least("owner") or event not in OWNER_EVENTS]


def channels_for(principal: Principal) -> list[str]:
    """The channels that a user can choose."""
    missing = {
        "email": not email.is_configured(),
        "service": not principal.is_at_least("owner") or not apprise_process.is_installed(),
    }
    return [name for name in CHANNELS if not missing.get(name)]


def choose(
    session: Session,
    *,
    principal: Principal,
    panel_url: str,
    channels: Mapping[str, Sequence[str]] | None = None,
    language: str | None = None,
) -> NoticeSettings:
    """Set through which channels the user is notified of each event, and in which language; None leaves it.

    Events that `channels` does not name stay as they are. Raises PanelError.
    """
    row = changed_settings(session, principal=principal, panel_url=panel_url)
    if language is not None:
        if language not in i18n.LOCALES:
            message = _("Choose a language of: {expected}.", expected=", ".join(i18n.LOCALES))
            raise bad_field("language", "language_unknown", message)
        row.language = language
    if channels is not None:
        row.muted = _muted(row.muted, channels, principal)
    return row


def _muted(before: Sequence[str], channels: Mapping[str, Sequence[str]], principal: Principal) -> list[str]:
    events, offered = events_for(principal), channels_for(principal)
    unknown = next((event for event in channels if event not in events), None)
    if unknown is not None:
        message = _("Choose events of: {expected}.", expected=", ".join(events))
        raise bad_field("channels", "event_unknown", message)
    if any(channel not in offered for names in channels.values() for channel in names):
        message = _("Choose channels of: {expected}.", expected=", ".join(offered))
        raise bad_field("channels", "channel_unknown", message)
    others = [entry for entry in before if entry.split()[0] not in channels or entry.split()[1] not in offered]
    return others + [f"{event} {name}" for event in channels for name in offered if name not in channels[event]]


def services_of(session: Session, user_id: str) -> list[NoticeService]:
    """The services of a user, oldest first; none of a user who is no owner any more."""
    query = select(NoticeService).join(User, User.id == NoticeService.user_id)
    own = (NoticeService.user_id == user_id, User.role == "owner")
    return list(session.scalars(query.where(*own).order_by(NoticeService.id)))


def deliveries_of(session: Session, notice_ids: Sequence[str]) -> list[tuple[NoticeDelivery, NoticeService | None]]:
    """The deliveries of notices, with the service of each that goes to one."""
    query = select(NoticeDelivery, NoticeService).outerjoin(
        NoticeService, NoticeService.id == NoticeDelivery.service_id
    )
    rows = session.execute(query.where(NoticeDelivery.notice_id.in_(notice_ids)).order_by(NoticeDelivery.id))
    return [(delivery, service) for delivery, service in rows]


def last_email(session: Session, user_id: str) -> NoticeDelivery | None:
    """The last e-mail to a user that was tried."""
    query = select(NoticeDelivery).join(UserNotice, UserNotice.id == NoticeDelivery.notice_id)
    tried = (UserNotice.user_id == user_id, NoticeDelivery.channel == "email", NoticeDelivery.num_tries > 0)
    return session.scalar(query.where(*tried).order_by(NoticeDelivery.id.desc()).limit(1))

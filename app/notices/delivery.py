"""Delivers notices by e-mail and to services, again and again until they are accepted or two days have passed.

The scheduler's process does it in threads of its own, as it does with webhooks.
"""

import logging
from datetime import timedelta

from sqlalchemy import func

from app.core import db, i18n
from app.core.account_models import User
from app.core.i18n import _
from app.core.notice_models import NoticeDelivery, NoticeService, NoticeSettings, UserNotice
from app.notices import apprise_process, email, events
from app.notices.delivery_errors import FINAL, DeliveryFailed
from app.webhooks.delivery import PAUSES, claim_due

log = logging.getLogger(__name__)


def claim(limit: int) -> list[str]:
    """The IDs of the deliveries that are due, which nobody else gets for a while."""
    return claim_due(NoticeDelivery, limit)


def deliver(delivery_id: str) -> None:
    """Try a claimed delivery; if it fails, plan the next try or give it up."""
    with db.transaction() as session:
        delivery = session.get(NoticeDelivery, delivery_id)
        if delivery is None:  # its user or service was removed
            return
        notice = session.get_one(UserNotice, delivery.notice_id)
        choices = session.get_one(NoticeSettings, notice.user_id)
        service = session.get(NoticeService, delivery.service_id) if delivery.service_id is not None else None
        is_disabled = session.get_one(User, notice.user_id).disabled_at is not None
    error = None
    try:
        if is_disabled:
            raise DeliveryFailed("user_disabled")
        _send(notice, choices, service)
    except DeliveryFailed as failure:
        error = failure.code
        log.info("notice %s was not delivered: %s", delivery_id, error)
    with db.transaction() as session:
        row = session.get(NoticeDelivery, delivery_id, with_for_update=True)
        if row is None:
            return
        if error is None:
            row.delivered_at, row.due_at, row.error = func.now(), None, None
            return
        row.error, row.failed_at = error, func.now()
        is_over = error in FINAL or row.num_tries > len(PAUSES)
        row.due_at = None if is_over else func.now() + timedelta(seconds=PAUSES[row.num_tries - 1])


def _send(notice: UserNotice, choices: NoticeSettings, service: NoticeService | None) -> None:
    """Send a notice to a service, or by e-mail. Raises DeliveryFailed."""
    with i18n.use_locale(choices.language):
        described = events.describe(notice.event, notice.values)
        address = f"{choices.panel_url}/jobs/{notice.job_id}" if notice.job_id else choices.panel_url
        if service is not None:
            text = f"{described.text}\n\n{address}"
            apprise_process.send(service.url, title=f"Athanor: {described.title}", text=text, event=notice.event)
            return
        if choices.email is None:
            raise DeliveryFailed("email_removed")
        settings_url = f"{choices.panel_url}/account/notices"
        reason = _("You get this because you turned on notices. Choose what is sent at {url}.", url=settings_url)
        unsubscribe_url = f"{choices.panel_url}/unsubscribe?code={choices.unsubscribe_code}"
        text = f"{described.text}\n\n{address}\n\n-- \n{reason}\n"
        email.send(choices.email, f"Athanor: {described.title}", text, unsubscribe_url)

"""The new notices of a user after a cursor, which is the ID of a notice, for the hub in app/core/live.py."""

import json

from sqlalchemy import func, select

from app.core import db, i18n
from app.core.live import News, Reader, Update
from app.core.notice_models import UserNotice
from app.notices import events
from app.web.unread import count_unread

BEFORE_ALL = "0"  # sorts before every ID


def topic(user_id: str, language: str) -> str:
    """The hub's topic of a user's notices: sentences differ by language, so each has its own."""
    return f"notices:{user_id}:{language}"


def reader(user_id: str, language: str) -> Reader:
    """What the hub calls to see what is new. A viewer without a cursor gets the notices that come from now on."""

    def read(cursor: str, until: str | None) -> News:
        with i18n.use_locale(language), db.transaction() as session:
            own = UserNotice.user_id == user_id
            end = until or session.scalar(select(func.max(UserNotice.id)).where(own)) or BEFORE_ALL
            if not cursor or cursor >= end:
                return News([], end)
            new = select(UserNotice).where(own, UserNotice.id > cursor, UserNotice.id <= end).order_by(UserNotice.id)
            notices = session.scalars(new).all()
            num_unread = count_unread(session, user_id)
        return News([_update(notice, num_unread) for notice in notices], end)

    def _update(notice: UserNotice, num_unread: int) -> Update:
        with i18n.use_locale(language):
            described = events.describe(notice.event, notice.values)
        data = {
            "id": notice.id,
            **vars(described),
            "address": f"/jobs/{notice.job_id}" if notice.job_id else "/notices",
            "is_for_browser": notice.is_for_browser,
            "unread": num_unread,
        }
        return Update(notice.id, "notice", json.dumps(data))

    return read

"""Notices that a user has taken nearly or all of a quota: of disk space, and of GPU hours within thirty days.

Each crossing is one notice; another one follows only when the use was MARGIN below it in between, as checkpoints come
and go. Jobs at once have none: those above the quota wait, and the queue says so.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.core import quotas
from app.core.account_models import User
from app.core.formatting import file_size, number
from app.core.i18n import _
from app.core.json_shapes import MessageValues
from app.core.notice_models import QuotaLevel
from app.notices import service

LEVELS = (100, 90)  # percent
MARGIN = 5  # percent
PAUSE_SECONDS = 60.0  # between two looks, each of which sums up what users have


@dataclass(frozen=True)
class _Use:
    """What a user has of a quota, which is not 0, and the sentence that says so."""

    user_id: str
    quota: str
    used: float
    limit: float
    sentence: Callable[[], str]

    def level(self, before: int) -> int:
        """The highest of LEVELS that is reached; 0 below all. The level before stays until the use is well below it."""
        percent = 100 * self.used / self.limit
        reached = next((level for level in LEVELS if percent >= level), 0)
        return before if reached < before and percent >= before - MARGIN else reached


class QuotaNotices:
    """Looks at the quotas every PAUSE_SECONDS of a clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due_at = clock()

    def step(self, session: Session) -> None:
        """Notify of the quotas, if it is time."""
        if self._clock() >= self._due_at:
            self._due_at = self._clock() + PAUSE_SECONDS
            notify_of_quotas(session)


def notify_of_quotas(session: Session) -> None:
    """Notify each user once of each level of a quota that is reached."""
    rows = {(row.user_id, row.quota): row for row in session.scalars(select(QuotaLevel).with_for_update())}
    for use in _uses(session):
        row = rows.pop((use.user_id, use.quota), None)
        before = row.percent if row is not None else 0
        level = use.level(before)
        if level > before:
            values: MessageValues = {"percent": level, "reason": service.in_every_language(use.sentence)}
            service.notify(session, user_id=use.user_id, event="quota_low", values=values)
        if row is not None:
            row.percent = level
        elif level:
            session.add(QuotaLevel(user_id=use.user_id, quota=use.quota, percent=level))
    for row in rows.values():  # of quotas that there are not any more
        session.delete(row)


def _uses(session: Session) -> Iterator[_Use]:
    """What users have of their quotas."""
    limited = select(User).where(or_(User.quota_bytes > 0, User.quota_gpu_hours > 0), User.disabled_at.is_(None))
    users = session.scalars(limited.order_by(User.id)).all()
    hours = quotas.gpu_hours(session, [user.id for user in users if user.quota_gpu_hours])
    for user in users:
        if user.quota_bytes:
            used, limit = quotas.used_bytes(session, user.id), user.quota_bytes
            yield _Use(user.id, "disk", used, limit, _disk_sentence(used, limit))
        if user.quota_gpu_hours:
            of_user, quota = hours.get(user.id, 0.0), user.quota_gpu_hours
            yield _Use(user.id, "gpu_hours", of_user, quota, _gpu_sentence(of_user, quota))


def _disk_sentence(used: int, limit: int) -> Callable[[], str]:
    return lambda: _(
        "Disk space: {used} of {quota}. What needs more is refused. Delete what you no longer need and empty the "
        "trash, or ask an administrator for more.",
        used=file_size(used),
        quota=file_size(limit),
    )


def _gpu_sentence(used: float, limit: float) -> Callable[[], str]:
    return lambda: _(
        "GPU hours within 30 days: {used} of {quota}. Once all are used, new jobs wait until earlier hours leave the "
        "30 days.",
        used=number(round(used, 1)),
        quota=number(limit),
    )

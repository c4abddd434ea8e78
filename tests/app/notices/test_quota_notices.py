"""Notices of quotas: once per level, again after the use was well below it, and only for what has a quota."""

from collections.abc import Iterator

import pytest
from sqlalchemy import delete, select, update

from app.core import db, i18n, quotas
from app.core.account_models import User
from app.core.notice_models import QuotaLevel, UserNotice
from app.notices import events
from app.notices.quota_notices import PAUSE_SECONDS, QuotaNotices, notify_of_quotas
from tests.users import Person


@pytest.fixture(autouse=True)
def _nothing(database: str, bob_user: Person) -> Iterator[None]:
    yield
    with db.transaction() as session:
        for table in (UserNotice, QuotaLevel):
            session.execute(delete(table))
        session.execute(update(User).values(quota_bytes=None, quota_jobs=None, quota_gpu_hours=None))


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What everybody has: bytes on the disk, and GPU hours."""
    now = {"disk": 0.0, "gpu_hours": 0.0}
    monkeypatch.setattr(quotas, "used_bytes", lambda _session, _user_id: int(now["disk"]))
    monkeypatch.setattr(quotas, "gpu_hours", lambda _session, ids: dict.fromkeys(ids, now["gpu_hours"]))
    return now


def limit(person: Person, **values: float) -> None:
    with db.transaction() as session:
        session.execute(update(User).where(User.id == person.id).values(**values))


def levels(person: Person) -> list[object]:
    """The levels of the notices of a user, in their order, after a look."""
    with db.transaction() as session:
        notify_of_quotas(session)
    with db.transaction() as session:
        rows = select(UserNotice).where(UserNotice.user_id == person.id).order_by(UserNotice.id)
        return [row.values["percent"] for row in session.scalars(rows)]


def test_each_level_is_one_notice(bob_user: Person, alice_user: Person, use: dict[str, float]) -> None:
    limit(bob_user, quota_bytes=1000)
    steps = ((899, []), (900, [90]), (999, [90]), (1000, [90, 100]), (2000, [90, 100]))
    for used, expected in steps:
        use["disk"] = used
        assert levels(bob_user) == expected
    assert levels(alice_user) == [], "who has no quota"


def test_a_level_is_noticed_again_after_the_use_was_well_below_it(bob_user: Person, use: dict[str, float]) -> None:
    limit(bob_user, quota_bytes=1000)
    steps = ((950, [90]), (860, [90]), (950, [90]), (840, [90]), (950, [90, 90]))
    for used, expected in steps:
        use["disk"] = used
        assert levels(bob_user) == expected


def test_a_first_look_beyond_all_levels_is_one_notice_that_says_what_to_do(
    bob_user: Person, use: dict[str, float]
) -> None:
    limit(bob_user, quota_gpu_hours=10.0, quota_bytes=0, quota_jobs=1)
    use["gpu_hours"] = 12.34
    assert levels(bob_user) == [100]
    with db.transaction() as session:
        (row,) = session.scalars(select(UserNotice)).all()
        assert row.event == "quota_low"
        english = events.describe(row.event, row.values)
        with i18n.use_locale("zh-CN"):
            chinese = events.describe(row.event, row.values)
    assert english.title == "100 % of a quota of yours is used"
    assert english.text.startswith("GPU hours within 30 days: 12.3 of 10.")
    assert (chinese.title, chinese.text[:11]) == ("你的一项配额已用 100 %", "30 天内的 GPU ")


def test_the_level_of_a_quota_that_ends_is_forgotten(bob_user: Person, use: dict[str, float]) -> None:
    limit(bob_user, quota_bytes=1000)
    use["disk"] = 1000
    assert levels(bob_user) == [100]
    limit(bob_user, quota_bytes=None)
    assert levels(bob_user) == [100]
    limit(bob_user, quota_bytes=1000)
    assert levels(bob_user) == [100, 100]


def test_the_scheduler_looks_once_a_minute(bob_user: Person, use: dict[str, float]) -> None:
    limit(bob_user, quota_bytes=1000)
    now = [0.0]
    looks = QuotaNotices(lambda: now[0])

    def noticed() -> int:
        with db.transaction() as session:
            looks.step(session)
            return len(session.scalars(select(UserNotice)).all())

    assert noticed() == 0
    use["disk"] = 1000
    now[0] = PAUSE_SECONDS - 1
    assert noticed() == 0
    now[0] = PAUSE_SECONDS
    assert noticed() == 1

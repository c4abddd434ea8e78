"""Notices: which events go to whom, the list, the choices, and the stream."""

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import delete, func, select, update
from starlette.testclient import TestClient

from app.core import db, disk, i18n
from app.core.account_models import User
from app.core.json_shapes import JobProgress
from app.core.models import Attempt, Job, Node
from app.core.notice_models import JobStall, NoticeSettings, UserNotice
from app.core.settings import settings
from app.jobs.attempts import attempts
from app.jobs.lifecycle import wait_reasons
from app.jobs.scheduling import stalls
from app.jobs.scheduling.scheduler import Scheduler
from app.notices import service, stream
from tests.app.jobs import factories
from tests.users import Person

SMALL = {"max_steps": 4, "warmup_steps": 1, "name": "Scribe"}


@pytest.fixture(autouse=True)
def empty(database: str) -> Iterator[None]:
    """A node, and nothing else."""
    factories.node(slots=100)
    yield
    with db.transaction() as session:
        for table in (UserNotice, NoticeSettings, JobStall, Job):
            session.execute(delete(table))


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    return factories.corpus(alice_user)


def notices(person: Person) -> list[UserNotice]:
    with db.transaction() as session:
        own = select(UserNotice).where(UserNotice.user_id == person.id).order_by(UserNotice.id)
        return list(session.scalars(own))


def fail(job_id: str, fence: int) -> None:
    with db.transaction() as session:
        attempts.fail(session, job_id=job_id, fence=fence, code="data_short", values={"found": 3, "needed": 9})


def change(job_id: str, **values: object) -> None:
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(**values))


def look_for_stalls() -> list[str]:
    with db.transaction() as session:
        return stalls.notify_of_stalls(session)


def test_the_end_of_a_job_is_a_notice_of_its_owner_only(
    alice_user: Person, corpus: str, alice: TestClient, bob: TestClient
) -> None:
    job_id, _checkpoint_id = factories.finished(alice_user, corpus, **SMALL)
    (notice,) = alice.get("/api/v1/notices").json()["data"]
    assert (notice["event"], notice["title"], notice["job_id"]) == ("job_finished", "“Scribe” has finished", job_id)
    assert notice["text"] == "All steps are done: 4."
    assert bob.get("/api/v1/notices").json()["data"] == []
    assert bob.post(f"/api/v1/notices/{notice['id']}/read").status_code == 404


def test_a_notice_of_a_failure_has_the_reason_in_the_readers_language(
    alice_user: Person, corpus: str, alice: TestClient
) -> None:
    fail(*factories.started(alice_user, corpus, **SMALL))
    assert "The text has 3 tokens" in alice.get("/api/v1/notices").json()["data"][0]["text"]
    chinese = alice.get("/api/v1/notices", headers={"Accept-Language": "zh-CN"}).json()["data"][0]
    assert "3" in chinese["text"]
    assert "The text" not in chinese["text"]


def test_a_muted_job_has_no_notices(alice_user: Person, corpus: str, alice: TestClient) -> None:
    job_id, fence = factories.started(alice_user, corpus, **SMALL)
    changed = alice.patch(f"/api/v1/jobs/{job_id}", json={"is_notified": False})
    assert changed.json()["is_notified"] is False
    fail(job_id, fence)
    assert notices(alice_user) == []


def test_the_form_of_a_job_mutes_it(alice_user: Person, corpus: str, alice: TestClient) -> None:
    job_id = factories.submitted(alice_user, corpus, **SMALL)
    assert 'name="is_notified"' in alice.get(f"/jobs/{job_id}/edit").text
    alice.post(f"/jobs/{job_id}/edit", data={"name": "Scribe"})
    assert factories.row(job_id).is_notified is False
    alice.post(f"/jobs/{job_id}/edit", data={"name": "Scribe", "is_notified": "true"})
    assert factories.row(job_id).is_notified is True


def test_choices_decide_the_channels_of_each_event(alice_user: Person, corpus: str, alice: TestClient) -> None:
    choices = {"channels": {"job_failed": ["browser"], "job_finished": []}}
    answer = alice.patch("/api/v1/notice-settings", json=choices).json()["channels"]
    assert (answer["job_failed"], answer["job_finished"], answer["job_stalled"]) == (
        ["browser"],
        [],
        ["page", "browser", "service"],
    )
    factories.finished(alice_user, corpus, **SMALL)
    assert notices(alice_user) == []
    fail(*factories.started(alice_user, corpus, **SMALL))
    (row,) = notices(alice_user)
    assert (row.is_listed, row.is_for_browser) == (False, True)
    assert alice.get("/api/v1/notices").json()["data"] == []
    assert alice.get("/api/v1/notices/unread").json() == {"unread": 0}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"channels": {"nothing": []}}, "event_unknown"),
        ({"channels": {"job_failed": ["pigeon"]}}, "channel_unknown"),
        ({"language": "tlh"}, "language_unknown"),
    ],
)
def test_unknown_choices_are_refused(alice: TestClient, body: dict[str, object], code: str) -> None:
    answer = alice.patch("/api/v1/notice-settings", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_events_of_the_installation_are_for_owners(alice: TestClient, bob: TestClient) -> None:
    assert "disk_low" in alice.get("/api/v1/notice-settings").json()["events"]
    assert "disk_low" not in bob.get("/api/v1/notice-settings").json()["events"]
    assert bob.patch("/api/v1/notice-settings", json={"channels": {"disk_low": ["page"]}}).status_code == 422


def test_the_form_stores_the_boxes_that_are_checked(alice: TestClient) -> None:
    text = alice.get("/account/notices").text
    offered = alice.get("/api/v1/notice-settings").json()
    assert text.count('name="choice"') == len(offered["events"]) * len(offered["offered_channels"])
    answer = alice.post("/account/notices", data={"choice": ["job_failed page"], "language": "zh-CN"})
    assert answer.status_code == 303
    chosen = alice.get("/api/v1/notice-settings").json()
    assert {event: names for event, names in chosen["channels"].items() if names} == {"job_failed": ["page"]}
    assert chosen["language"] == "zh-CN"
    assert alice.post("/account/notices", data={"choice": ["x y"], "language": "en"}).status_code == 422


def test_unread_notices_are_counted_on_every_page_until_they_are_read(
    alice_user: Person, corpus: str, alice: TestClient
) -> None:
    assert "data-unread hidden" in alice.get("/jobs").text
    for _number in range(2):
        factories.finished(alice_user, corpus, **SMALL)
    assert "data-unread >2<" in alice.get("/jobs").text
    page = alice.get("/notices").text
    assert page.count("“Scribe” has finished") >= 2
    first = notices(alice_user)[0]
    opened = alice.post(f"/notices/{first.id}/read")
    assert opened.headers["location"] == f"/jobs/{first.job_id}"
    assert alice.get("/api/v1/notices/unread").json() == {"unread": 1}
    assert [row["id"] for row in alice.get("/api/v1/notices?unread=true").json()["data"]] == [notices(alice_user)[1].id]
    assert alice.post("/notices/read").status_code == 303
    assert alice.get("/api/v1/notices/unread").json() == {"unread": 0}


def test_without_notices_the_page_says_what_will_be_there(alice: TestClient) -> None:
    assert "No notices" in alice.get("/notices").text


def test_a_notice_outlives_its_job(alice_user: Person, corpus: str, alice: TestClient) -> None:
    job_id, fence = factories.started(alice_user, corpus, **SMALL)
    fail(job_id, fence)
    for address in (f"/api/v1/jobs/{job_id}", f"/api/v1/trash/{job_id}"):
        assert alice.delete(address).status_code == 204
    (notice,) = alice.get("/api/v1/notices").json()["data"]
    assert (notice["job_id"], notice["title"]) == (None, "“Scribe” has failed")


def test_a_disabled_user_is_not_notified(alice_user: Person, bob_user: Person) -> None:
    with db.transaction() as session:
        session.execute(update(User).where(User.id == bob_user.id).values(disabled_at=func.now()))
        assert service.notify(session, user_id=bob_user.id, event="job_finished", values={}) is None
        session.execute(update(User).where(User.id == bob_user.id).values(disabled_at=None))
        assert service.notify(session, user_id=bob_user.id, event="job_finished", values={}) is not None


def test_old_notices_are_forgotten(alice_user: Person) -> None:
    with db.transaction() as session:
        for days in (89, 91):
            old = UserNotice(user_id=alice_user.id, event="disk_low", values={"days": days})
            old.created_at = func.now() - timedelta(days=days)
            session.add(old)
        session.flush()
        service.forget_old(session)
    assert [row.values for row in notices(alice_user)] == [{"days": 89}]


# ---- stalls and the disk --------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stalls are noticed at once."""
    monkeypatch.setenv("ATHANOR_STALL_SECONDS", "0.000001")
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


def waiting_job(person: Person, corpus: str, code: str, **values: object) -> str:
    job_id = factories.submitted(person, corpus, **SMALL)
    change(job_id, wait_reason=wait_reasons.encoded(code, **values))
    return job_id


def test_a_job_that_no_node_can_run_is_noticed_once_after_a_while(alice_user: Person, corpus: str) -> None:
    job_id = waiting_job(alice_user, corpus, "no_node", position=1)
    assert look_for_stalls() == []
    later = timedelta(seconds=settings().stall_seconds)
    with db.transaction() as session:
        session.execute(update(JobStall).values(since=JobStall.since - later))
    assert look_for_stalls() == [job_id]
    assert look_for_stalls() == []
    (notice,) = notices(alice_user)
    assert notice.event == "job_stalled"
    assert notice.values["reason"]["en"] == "Number 1 in the queue: no worker is running."  # type: ignore[index, call-overload]


def test_a_new_stall_is_noticed_again(alice_user: Person, corpus: str, impatient: None) -> None:
    job_id = waiting_job(alice_user, corpus, "no_node", position=1)
    look_for_stalls()
    look_for_stalls()
    change(job_id, wait_reason=wait_reasons.encoded("next_slot", busy=1, total=1))
    assert look_for_stalls() == []
    change(job_id, wait_reason=wait_reasons.encoded("no_node", position=1))
    look_for_stalls()
    look_for_stalls()
    assert [row.event for row in notices(alice_user)] == ["job_stalled", "job_stalled"]


def test_a_job_in_line_is_not_stalled(alice_user: Person, corpus: str, impatient: None) -> None:
    waiting_job(alice_user, corpus, "next_slot", busy=1, total=1)
    assert look_for_stalls() + look_for_stalls() == []


def test_a_running_job_without_steps_is_stalled(alice_user: Person, corpus: str) -> None:
    job_id, fence = factories.started(alice_user, corpus, **SMALL)
    factories.record(job_id, fence, factories.losses([4.0]))  # long ago by the clock of its node
    assert look_for_stalls() == []  # but its attempt has just begun
    with db.transaction() as session:
        session.execute(update(Attempt).values(started_at=func.now() - timedelta(hours=2)))
    assert look_for_stalls() == [job_id]
    assert "No step was done for 2 hours." in str(notices(alice_user)[0].values["reason"])


def test_a_time_that_no_calendar_has_does_not_stop_the_scheduler(alice_user: Person, corpus: str) -> None:
    job_id, _fence = factories.started(alice_user, corpus, **SMALL)
    change(job_id, progress=JobProgress(at=1e300))
    assert look_for_stalls() == []


def test_a_muted_job_may_stall(alice_user: Person, corpus: str, impatient: None) -> None:
    change(waiting_job(alice_user, corpus, "too_large", needed=8, node="ada", largest=0), is_notified=False)
    assert look_for_stalls() + look_for_stalls() == []
    assert notices(alice_user) == []


def test_a_job_that_a_full_disk_paused_is_stalled(alice_user: Person, corpus: str) -> None:
    job_id, fence = factories.started(alice_user, corpus, **SMALL)
    with db.transaction() as session:
        attempts.release(session, job_id=job_id, fence=fence, reason="disk_full", free=1, needed=2)
    change(job_id, state="paused")
    assert look_for_stalls() == [job_id]


def test_owners_are_notified_once_a_day_that_the_disk_is_low(
    alice_user: Person, bob_user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> int:
        with db.transaction() as session:
            service.notify_of_low_disk(session)
        return len(notices(alice_user))

    assert look() == 0
    monkeypatch.setattr(disk, "free_bytes", lambda: settings().disk_reserve_bytes * 3 // 2)
    assert (look(), look()) == (1, 1)
    with db.transaction() as session:
        session.execute(update(UserNotice).values(created_at=func.now() - timedelta(days=1, minutes=1)))
    assert look() == 2
    assert notices(bob_user) == []


# ---- the stream -----------------------------------------------------------------------------------------------------


def test_the_stream_has_the_notices_after_the_cursor(alice_user: Person, bob_user: Person, corpus: str) -> None:
    read = stream.reader(alice_user.id, "zh-CN")
    start = read("", None)
    assert start.updates == []
    job_id, _checkpoint_id = factories.finished(alice_user, corpus, **SMALL)
    news = read(start.cursor, None)
    (update_,) = news.updates
    data = json.loads(update_.data)
    with i18n.use_locale("zh-CN"):
        assert data["title"] == i18n._("“{name}” has finished", name="Scribe")
    assert (data["address"], data["is_for_browser"], data["unread"]) == (f"/jobs/{job_id}", True, 1)
    assert news.cursor == update_.cursor == notices(alice_user)[0].id
    assert read(news.cursor, None).updates == []
    assert read("zzzz", None) == stream.News([], news.cursor)
    assert stream.reader(bob_user.id, "en")("0", None).updates == []


def test_the_scheduler_looks_for_stalls_and_the_disk(
    alice_user: Person, corpus: str, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with db.transaction() as session:
        session.execute(delete(Node))
    monkeypatch.setattr(disk, "free_bytes", lambda: settings().disk_reserve_bytes * 3 // 2)
    factories.submitted(alice_user, corpus, **SMALL)
    scheduler = Scheduler()
    try:
        assert scheduler.step()
        assert scheduler.step()
    finally:
        scheduler.close()
    assert {row.event for row in notices(alice_user)} == {"job_stalled", "disk_low"}

"""When forwarding ends: with its thread, with the lead of its scheduler, and while a job is in the trash."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from app.core import db
from app.jobs.attempts import attempts
from app.jobs.forwarding import forwarder
from app.jobs.forwarding.forwarder import TrackerThread, forward_due
from app.jobs.forwarding.tracker_process import TrackerProcess
from app.jobs.forwarding.trackers import Tracker
from app.jobs.scheduling.scheduler import Scheduler
from tests.app.jobs.forwarding.conftest import Configure, begin, row, training
from tests.users import Person
from tests.waiting import until

Start = Callable[..., TrackerProcess]


@pytest.fixture
def tracker(configure: Configure, tmp_path: Path) -> Tracker:
    return configure(tensorboard_dir=str(tmp_path))


def test_forwarding_that_is_over_ends_after_the_batch_under_way(
    alice_user: Person, tracker: Tracker, process: Start, tmp_path: Path
) -> None:
    for _ in range(2):
        training(alice_user, 2)
    begin()
    sender = process(tracker)
    assert forward_due(tracker, sender, lambda: any(tmp_path.iterdir())) == 1
    assert forward_due(tracker, sender) == 1


def test_an_idle_process_ends_although_its_thread_is_not_woken(
    alice_user: Person, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "IDLE_SECONDS", 0.1)
    job_id, _fence = training(alice_user, 2)
    begin()
    thread = TrackerThread(tracker)
    thread.start()
    thread.wake.set()
    until(lambda: row(job_id, tracker).forwarded_at is not None, 60, "the batch in the tracker")
    until(lambda: thread._process._child is None, 10, "the end of the process")
    thread.is_over = True
    thread.wake.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_scheduler_that_leads_no_more_does_not_forward(tracker: Tracker) -> None:
    scheduler = Scheduler()
    assert scheduler.step()
    assert names().count("forward-tensorboard") == 1
    with db.transaction() as session:  # what a restarting server does to its clients
        session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND datname = current_database()"
            )
        )
    assert not scheduler.step()
    until(lambda: "forward-tensorboard" not in names(), 10, "the end of the thread")
    scheduler.close()


def names() -> list[str]:
    """The names of all threads."""
    return [thread.name for thread in threading.enumerate()]


def test_a_job_in_the_trash_is_not_sent_until_it_is_restored(
    alice_user: Person, alice: TestClient, tracker: Tracker, process: Start
) -> None:
    job_id, fence = training(alice_user, 2)
    begin()
    with db.transaction() as session:
        attempts.finish(session, job_id=job_id, fence=fence)
    assert alice.delete(f"/api/v1/jobs/{job_id}").status_code == 204
    assert forward_due(tracker, process(tracker)) == 0
    assert "0 jobs are being forwarded to" in alice.get("/health").text
    assert alice.post(f"/api/v1/trash/{job_id}/restore").status_code == 204
    assert forward_due(tracker, process(tracker)) == 1

"""The scheduler against a real database: it places, hints again, gives up, tries again, and leads alone."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, func, select, text, update

from app.core import db, queue
from app.core.account_models import User
from app.core.models import BackgroundTask, Job, Node, Outbox
from app.core.settings import settings
from app.jobs import schemas, service
from app.jobs.attempts import attempts
from app.jobs.scheduling import dispatch, evaluations, stalls
from app.jobs.scheduling.scheduler import Scheduler
from app.jobs.searches import service as hyperparameter_search
from tests.app.jobs import factories
from tests.users import Person


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    return factories.corpus(alice_user)


@pytest.fixture(autouse=True)
def sent(database: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """An empty queue of jobs, no nodes; what is sent to Celery is kept here instead."""
    with db.transaction() as session:
        for table in (Outbox, Node, Job):
            session.execute(delete(table))
    messages: list[tuple[str, ...]] = []
    monkeypatch.setattr(queue, "send", lambda task, *args, queue: messages.append((task, *args, queue)))
    return messages


class Clock:
    """A clock that a test sets forward, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_grace(self) -> None:
        """Let as much time pass as a scheduler waits for silent attempts after its start or an outage."""
        self.now += 2 * settings().lease_seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scheduler(clock: Clock) -> Iterator[Scheduler]:
    """One that started long ago."""
    started = Scheduler(clock)
    clock.pass_grace()
    yield started
    started.close()


def change(job_id: str, **values: Any) -> None:
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(**values))


def ago(seconds: float) -> Any:
    return func.now() - timedelta(seconds=seconds)


def test_a_queued_job_is_placed_on_a_live_node_and_its_message_sent(
    alice_user: Person, corpus: str, scheduler: Scheduler, sent: list[tuple[str, ...]]
) -> None:
    factories.node()
    job_id = factories.submitted(alice_user, corpus)
    assert scheduler.step()
    assert factories.row(job_id).node == "ada"
    assert sent == [("jobs.start", job_id, "node.ada")]
    scheduler.step()
    assert len(sent) == 1


def test_an_error_in_one_part_of_a_round_does_not_stop_the_others(
    alice_user: Person, corpus: str, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_session: Any) -> list[str]:
        raise OverflowError("cannot convert float infinity to integer")

    for part in (hyperparameter_search, evaluations, stalls):
        name = {"stop_worse_jobs", "start_due", "notify_of_stalls"} & set(vars(part))
        monkeypatch.setattr(part, name.pop(), fail)
    factories.node()
    job_id = factories.submitted(alice_user, corpus)

    assert scheduler.step()

    assert factories.row(job_id).node == "ada"


def test_the_second_job_waits_and_has_a_queue_position(alice_user: Person, corpus: str, scheduler: Scheduler) -> None:
    factories.node()
    jobs = [factories.submitted(alice_user, corpus) for _ in range(3)]
    scheduler.step()
    assert [factories.row(job_id).node for job_id in jobs] == ["ada", None, None]
    assert [str(factories.row(job_id).wait_reason).split('"')[1] for job_id in jobs[1:]] == ["next_slot", "no_slot"]


def test_jobs_in_line_have_an_expected_start(alice_user: Person, corpus: str, scheduler: Scheduler) -> None:
    factories.node()
    jobs = [factories.row(factories.submitted(alice_user, corpus, max_steps=1000)) for _ in range(3)]
    scheduler.step()
    planned = jobs[0].facts.planned
    assert planned is not None
    assert planned.startup_seconds is not None
    each = planned.startup_seconds.value + 1000 * planned.step_seconds.value
    with db.transaction() as session:
        now = session.scalar(select(func.now()))
        answers = [service.get(session, principal=alice_user.principal, job_id=job.id) for job in jobs]
        waits = [schemas.job_answer(session, job).wait for job in answers]
    seconds = [(wait.until - now).total_seconds() for wait in waits[1:] if wait is not None and wait.until is not None]
    assert seconds == pytest.approx([each, 2 * each], abs=5)
    assert waits[0] is not None
    assert waits[0].until is None


def test_without_a_node_a_job_waits_and_says_so(alice_user: Person, corpus: str, scheduler: Scheduler) -> None:
    factories.node("gone")
    with db.transaction() as session:
        session.execute(update(Node).values(last_seen_at=ago(3600)))
    job_id = factories.submitted(alice_user, corpus)
    scheduler.step()
    assert (factories.row(job_id).node, factories.row(job_id).wait_reason) == (None, '["no_node", {"position": 1}]')


def test_a_job_waits_an_hour_for_silent_gpus_and_then_uses_another_node(
    alice_user: Person, corpus: str, scheduler: Scheduler
) -> None:
    factories.node("gpus", gpus=4)
    with db.transaction() as session:
        session.execute(update(Node).values(last_seen_at=ago(3000)))
    factories.node("ada")
    job_id = factories.submitted(alice_user, corpus)
    scheduler.step()
    assert (factories.row(job_id).node, factories.row(job_id).wait_reason) == (None, '["silent", {"position": 1}]')
    with db.transaction() as session:
        session.execute(update(Node).where(Node.name == "gpus").values(last_seen_at=ago(3601)))
    scheduler.step()
    assert factories.row(job_id).node == "ada"


def test_a_lost_message_of_a_job_is_sent_again(
    alice_user: Person, corpus: str, scheduler: Scheduler, sent: list[tuple[str, ...]]
) -> None:
    factories.node()
    job_id = factories.submitted(alice_user, corpus)
    scheduler.step()
    change(job_id, hinted_at=ago(11))
    scheduler.step()
    assert sent == [("jobs.start", job_id, "node.ada")] * 2


def test_a_job_placed_on_a_node_that_died_goes_to_another(
    alice_user: Person, corpus: str, scheduler: Scheduler, sent: list[tuple[str, ...]]
) -> None:
    factories.node("ada")
    job_id = factories.submitted(alice_user, corpus)
    scheduler.step()
    with db.transaction() as session:
        session.execute(update(Node).values(last_seen_at=ago(3600)))
    factories.node("grace")
    scheduler.step()
    assert factories.row(job_id).node == "grace"
    assert sent[-1] == ("jobs.start", job_id, "node.grace")


def test_a_silent_attempt_expires_and_the_job_is_retried_after_a_delay(
    alice_user: Person, corpus: str, scheduler: Scheduler
) -> None:
    factories.node()
    job_id, fence = factories.started(alice_user, corpus)
    scheduler.step()
    assert factories.row(job_id).state == "starting"
    change(job_id, lease_until=ago(1))
    scheduler.step()
    job = factories.row(job_id)
    assert (job.state, job.node, job.no_progress) == ("recovering", None, 0)
    change(job_id, not_before=ago(1))
    scheduler.step()
    job = factories.row(job_id)
    assert (job.state, job.node) == ("queued", "ada")
    with db.transaction() as session:
        assert attempts.claim(session, job_id=job_id, node="ada") == fence + 1


def test_a_cancel_request_survives_a_lost_attempt(alice_user: Person, corpus: str, scheduler: Scheduler) -> None:
    job_id, _fence = factories.started(alice_user, corpus)
    change(job_id, lease_until=ago(1), desired="cancel")
    scheduler.step()
    assert factories.row(job_id).state == "cancelled"
    assert [state for state, _ in factories.reasons(job_id)][-2:] == ["recovering", "cancelled"]


def test_three_attempts_without_progress_are_a_crash_loop(
    alice_user: Person, corpus: str, scheduler: Scheduler
) -> None:
    factories.node()
    job_id = factories.submitted(alice_user, corpus)
    for _ in range(3):
        scheduler.step()
        with db.transaction() as session:
            fence = attempts.claim(session, job_id=job_id, node="ada")
            assert fence is not None
        with db.transaction() as session:
            attempts.release(session, job_id=job_id, fence=fence, reason="gang_rank_died", how="rank 0: SIGKILL")
        change(job_id, not_before=ago(1))
        scheduler.step()
    job = factories.row(job_id)
    assert (job.state, job.failure_code) == ("failed", "crash_loop")
    assert job.failure == {"attempts": 3, "last": "gang_rank_died", "last_values": {"how": "rank 0: SIGKILL"}}


def test_a_node_shutdown_costs_no_retry_and_no_delay(alice_user: Person, corpus: str, scheduler: Scheduler) -> None:
    factories.node()
    job_id = factories.submitted(alice_user, corpus)
    for _ in range(5):
        scheduler.step()
        with db.transaction() as session:
            fence = attempts.claim(session, job_id=job_id, node="ada")
            assert fence is not None
        with db.transaction() as session:
            attempts.release(session, job_id=job_id, fence=fence, reason="shutdown")
        scheduler.step()
    assert factories.row(job_id).state == "queued"


def test_one_of_two_schedulers_leads_until_it_exits(scheduler: Scheduler) -> None:
    assert scheduler.step()
    second = Scheduler()
    assert not second.step()
    scheduler.close()
    assert second.step()
    assert not scheduler.step()
    second.close()


def test_no_lease_expires_during_a_database_outage(
    alice_user: Person, corpus: str, scheduler: Scheduler, clock: Clock
) -> None:
    scheduler.step()
    job_id, _fence = factories.started(alice_user, corpus)
    change(job_id, lease_until=ago(1))
    with db.transaction() as session:  # what a restarting server does to its clients
        session.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                 " AND datname = current_database()")
        )  # fmt: skip
    assert not scheduler.step()
    assert scheduler.step()
    assert factories.row(job_id).state == "starting"
    clock.pass_grace()
    scheduler.step()
    assert factories.row(job_id).state == "recovering"


def test_after_a_start_or_an_outage_leases_expire_only_after_two_periods(
    alice_user: Person, corpus: str, scheduler: Scheduler, clock: Clock
) -> None:
    factories.node()
    silent, _fence = factories.started(alice_user, corpus)
    change(silent, lease_until=ago(1))
    new = factories.submitted(alice_user, corpus, num_processes=1)
    factories.node(slots=2)
    restarted = Scheduler(clock)
    assert restarted.step()
    assert (factories.row(silent).state, factories.row(new).node) == ("starting", "ada")
    clock.pass_grace()
    assert restarted.step()
    assert factories.row(silent).state == "recovering"
    restarted.close()


def test_leases_of_background_tasks_expire_as_late(alice_user: Person, corpus: str, clock: Clock) -> None:
    values = {"kind": "parse", "state": "running", "lease_until": ago(1), "corpus_id": corpus, "memory_bytes": 1}
    with db.transaction() as session:
        task = BackgroundTask(owner_id=alice_user.id, **values)
        session.add(task)
    restarted = Scheduler(clock)
    states = []
    for _round in range(2):
        assert restarted.step()
        with db.transaction() as session:
            states.append(session.get_one(BackgroundTask, task.id).state)
        clock.pass_grace()
    restarted.close()
    assert states == ["running", "queued"]
    with db.transaction() as session:
        session.delete(session.get_one(BackgroundTask, task.id))


def test_many_queued_jobs_keep_their_order(alice_user: Person, corpus: str, scheduler: Scheduler) -> None:
    factories.node(slots=5)
    jobs = [factories.submitted(alice_user, corpus) for _ in range(12)]
    scheduler.step()
    with db.transaction() as session:
        placed = session.scalars(select(Job.id).where(Job.state == "queued", Job.node.is_not(None))).all()
    assert sorted(placed) == sorted(jobs[:5])


def test_users_take_turns_and_priority_goes_first(
    alice_user: Person, bob_user: Person, corpus: str, scheduler: Scheduler
) -> None:
    bobs = factories.corpus(bob_user)
    mine = [factories.submitted(alice_user, corpus) for _ in range(3)]
    theirs = factories.submitted(bob_user, bobs)
    urgent = factories.submitted(alice_user, corpus, priority="high")
    placed: list[str] = []
    for slots in range(1, 6):
        factories.node(slots=slots)
        scheduler.step()
        placed += [job_id for job_id in (*mine, theirs, urgent) if factories.row(job_id).node and job_id not in placed]
    assert placed == [urgent, theirs, *mine]


def test_a_job_that_waited_long_goes_before_newer_ones_of_higher_priority(
    alice_user: Person, corpus: str, scheduler: Scheduler
) -> None:
    old = factories.submitted(alice_user, corpus, priority="low")
    new = factories.submitted(alice_user, corpus)
    change(old, queued_at=ago(3601))
    factories.node()
    scheduler.step()
    assert (factories.row(old).node, factories.row(new).node) == ("ada", None)


def test_time_spent_paused_does_not_age_a_job(alice_user: Person, corpus: str) -> None:
    job_id = factories.submitted(alice_user, corpus)
    change(job_id, queued_at=ago(9999))
    with db.transaction() as session:
        service.pause(session, principal=alice_user.principal, job_id=job_id)
    with db.transaction() as session:
        service.resume(session, principal=alice_user.principal, job_id=job_id)
        assert session.scalar(select(Job.queued_at > ago(60)).where(Job.id == job_id))


def test_a_user_runs_no_more_concurrent_jobs_than_the_limit(
    alice_user: Person, corpus: str, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = settings().model_copy(update={"max_running_per_user": 2})
    monkeypatch.setattr(dispatch, "settings", lambda: limited)
    factories.node(slots=5)
    jobs = [factories.submitted(alice_user, corpus) for _ in range(4)]
    scheduler.step()
    assert [factories.row(job_id).node for job_id in jobs] == ["ada", "ada", None, None]
    with db.transaction() as session:
        told = schemas.job_answer(session, factories.row(jobs[3])).wait
    assert told is not None
    assert (told.code, told.position) == ("own_limit", 2)
    with db.transaction() as session:
        service.cancel(session, principal=alice_user.principal, job_id=jobs[0])
    scheduler.step()
    assert factories.row(jobs[2]).node == "ada"


def test_quotas_of_a_user_keep_only_their_jobs_waiting(
    alice_user: Person, bob_user: Person, corpus: str, scheduler: Scheduler
) -> None:
    factories.node(gpus=8)
    theirs = [factories.submitted(bob_user, factories.corpus(bob_user)) for _ in range(2)]
    quotas: tuple[tuple[dict[str, Any], str], ...] = (
        ({"quota_gpu_hours": 0}, "gpu_quota"),
        ({"quota_jobs": 0}, "own_limit"),
        ({"quota_gpu_hours": 0.5, "quota_jobs": 1}, "own_limit"),
    )
    for values, code in quotas:
        none = {"quota_gpu_hours": None, "quota_jobs": None}
        with db.transaction() as session:
            session.execute(update(User).where(User.id == bob_user.id).values({**none, **values}))
        mine = factories.submitted(alice_user, corpus)
        scheduler.step()
        assert factories.row(mine).node == "ada", values
        assert f'["{code}"' in str(factories.row(theirs[1]).wait_reason), values
    assert [factories.row(job_id).node for job_id in theirs] == ["ada", None]
    with db.transaction() as session:
        session.execute(update(User).where(User.id == bob_user.id).values(none))


def test_jobs_share_a_node_by_its_gpus(alice_user: Person, corpus: str, scheduler: Scheduler) -> None:
    factories.node(gpus=4)
    jobs = [factories.submitted(alice_user, corpus, num_processes=n, per_device_batch_size=8) for n in (2, 1, 2)]
    scheduler.step()
    assert [factories.row(job_id).gpus for job_id in jobs] == [["ada-0", "ada-1"], ["ada-2"], []]
    with db.transaction() as session:
        told = schemas.job_answer(session, factories.row(jobs[2])).wait
    assert told is not None
    assert told.message == "Next in the queue. GPUs in use: 3 of 4; needed on one node: 2."

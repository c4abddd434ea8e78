"""Many at once on the real database and the real broker: one holder, one attempt, one legal end."""

from collections import Counter

import pytest
from kombu.simple import SimpleQueue
from sqlalchemy import delete, select, update

from app.core import db, queue
from app.core.errors import PanelError
from app.core.models import Job, Node, Outbox
from app.jobs import service
from app.jobs.attempts import attempts
from app.jobs.scheduling import dispatch
from tests.app.jobs import factories
from tests.app.jobs.concurrency import do, events_of, race_for, together
from tests.users import Person
from worker.tasks import start_job


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    return factories.corpus(alice_user)


@pytest.fixture(autouse=True)
def _one_node_and_no_jobs(database: str) -> None:
    with db.transaction() as session:
        for table in (Outbox, Node, Job):
            session.execute(delete(table))
    factories.node(slots=1_000)


# ---- claims ---------------------------------------------------------------------------------------------------------


def test_sixteen_concurrent_claims_never_give_two_owners(alice_user: Person, corpus: str) -> None:
    race = race_for(alice_user, corpus, num_claims=800, num_jobs=12)
    assert race.won >= 20


# ---- messages -------------------------------------------------------------------------------------------------------


def test_a_message_delivered_fifty_times_to_four_workers_starts_one_attempt(
    alice_user: Person, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, int]] = []
    monkeypatch.setattr(start_job, "start_supervisor", lambda job_id, fence: started.append((job_id, fence)))
    monkeypatch.setattr(start_job, "_children", [])
    monkeypatch.setattr(start_job, "settings", lambda: type("OnAda", (), {"node_name": "ada"}))
    job_id = factories.submitted(alice_user, corpus)
    do(dispatch.place)
    for _ in range(50):
        queue.send(queue.START_JOB, job_id, queue=queue.node_queue("ada"))

    def worker() -> int:
        """Take messages as a Celery worker does until there is none, and do what they say."""
        num_taken = 0
        with queue.celery.connection_for_read() as connection:
            inbox = SimpleQueue(connection, queue.node_queue("ada"))
            while True:
                try:
                    message = inbox.get(block=False)
                except inbox.Empty:
                    return num_taken
                message.ack()
                arguments, _named, _embedded = message.payload
                start_job.start_job(*arguments)
                num_taken += 1
                monkeypatch.setattr(start_job, "_children", [])

    assert sum(together([worker] * 4)) == 50
    assert started == [(job_id, 1)]
    assert Counter(event.reason for event in events_of(job_id)) == {"submitted": 1, "claimed": 1}


# ---- ends -----------------------------------------------------------------------------------------------------------


def test_a_hundred_cancels_racing_the_end_give_legal_transitions(alice_user: Person, corpus: str) -> None:
    """The supervisor that has finished checks the desired state, then reports its outcome, while its user cancels."""
    seen = Counter[tuple[str, str, str]]()
    for number in range(100):
        job_id, fence = factories.started(alice_user, corpus)

        def supervisor(job_id: str = job_id, fence: int = fence, delay: int = number) -> None:
            desired = "run"
            for _ in range(delay % 4):  # the later it ends, the likelier it sees the cancel
                desired = do(attempts.renew, job_id=job_id, fence=fence)
            if desired == "cancel":
                do(attempts.begin_stop, job_id=job_id, fence=fence, state="cancelling")
                do(attempts.release, job_id=job_id, fence=fence, reason="shutdown")
            else:
                do(attempts.finish, job_id=job_id, fence=fence)

        def user(job_id: str = job_id) -> str:
            try:
                do(service.cancel, principal=alice_user.principal, job_id=job_id)
            except PanelError as error:
                return error.code
            return "accepted"

        _nothing, answer = together([supervisor, user])
        last = events_of(job_id)[-1]
        seen[answer, factories.row(job_id).state, str(last.reason)] += 1
    assert set(seen) <= {
        ("accepted", "cancelled", "stopped"),
        ("accepted", "succeeded", "finished_first"),
        ("job_ended", "succeeded", "finished"),
    }
    assert {state for _answer, state, _reason in seen} == {"cancelled", "succeeded"}


def test_a_late_cancel_is_reported_in_the_response_or_the_history(alice_user: Person, corpus: str) -> None:
    job_id, fence = factories.started(alice_user, corpus)
    do(service.cancel, principal=alice_user.principal, job_id=job_id)
    do(attempts.finish, job_id=job_id, fence=fence)
    assert events_of(job_id)[-1].reason == "finished_first"
    with pytest.raises(PanelError, match="nothing left to cancel"):
        do(service.cancel, principal=alice_user.principal, job_id=job_id)


def test_a_job_is_placed_once_even_by_several_leaders(alice_user: Person, corpus: str) -> None:
    with db.transaction() as session:
        session.execute(update(Node).values(slots=5))
    for _ in range(10):
        factories.submitted(alice_user, corpus)
    together([lambda: do(dispatch.place)] * 8)
    with db.transaction() as session:
        placed = session.scalars(select(Job.id).where(Job.node.is_not(None))).all()
        owed = session.scalars(select(Outbox.args)).all()
    assert len(placed) == 5
    assert sorted(placed) == sorted(args[0] for args in owed)

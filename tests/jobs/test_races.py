"""Many at once on the real database and the real broker: one holder, one attempt, one legal end."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from kombu.simple import SimpleQueue
from sqlalchemy import delete, func, select, update

from app import db, queue
from app.errors import PanelError
from app.jobs import attempts, dispatch, service
from app.models import Attempt, Job, JobEvent, Node, Outbox
from tests.jobs import cast
from tests.people import Person
from worker import tasks

RACERS = 16
HELD_BY_NOBODY = ("queued", "recovering", "paused", "succeeded", "failed", "cancelled")


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    return cast.corpus(alice_user)


@pytest.fixture(autouse=True)
def _one_node_and_no_jobs(database: str) -> None:
    with db.transaction() as session:
        for table in (Outbox, Node, Job):
            session.execute(delete(table))
    cast.node(slots=1_000)


def do(verb: Callable[..., Any], **given: Any) -> Any:
    with db.transaction() as session:
        return verb(session, **given)


def together(works: list[Callable[[], Any]]) -> list[Any]:
    """Do all of it at once, each in a thread of its own, from one starting shot on."""
    barrier = threading.Barrier(len(works))

    def one(work: Callable[[], Any]) -> Any:
        barrier.wait(20)
        return work()

    with ThreadPoolExecutor(len(works)) as threads:
        return [future.result() for future in [threads.submit(one, work) for work in works]]


def events_of(job_id: str) -> list[JobEvent]:
    with db.transaction() as session:
        return service.history(session, job_id=job_id)


# ---- claims ---------------------------------------------------------------------------------------------------------


class Race:
    """Racers claim whatever they can get and give it back at once, so that every job is claimed again and again."""

    def __init__(self, jobs: list[str], num_claims: int) -> None:
        self.jobs, self.left, self.lock = jobs, num_claims, threading.Lock()
        self.held, self.doubles, self.won = set[str](), 0, 0
        self.is_over = threading.Event()

    def racer(self, number: int) -> None:
        chance = random.Random(number)
        while self._may_go_on():
            job_id = chance.choice(self.jobs)
            fence = do(attempts.claim, job_id=job_id, node="ada")
            if fence is None:
                continue
            with self.lock:
                self.doubles += job_id in self.held
                self.held.add(job_id)
                self.won += 1
            assert do(attempts.renew, job_id=job_id, fence=fence) == "run"
            with self.lock:
                self.held.remove(job_id)
            assert do(attempts.release, job_id=job_id, fence=fence, reason="shutdown")

    def scheduler(self) -> None:
        while not self.is_over.is_set():
            do(dispatch.settle)
            do(dispatch.place)

    def run(self) -> None:
        scheduler = threading.Thread(target=self.scheduler)
        scheduler.start()
        try:
            together([lambda number=number: self.racer(number) for number in range(RACERS)])  # type: ignore[misc]
        finally:
            self.is_over.set()
            scheduler.join()

    def _may_go_on(self) -> bool:
        with self.lock:
            self.left -= 1
            return self.left >= 0


def double_holders(job_id: str) -> int:
    """How often the history shows a claim of a job that was held, or a fence that is not the next one."""
    told = events_of(job_id)
    claims = [event for event in told if event.reason == "claimed"]
    assert [event.fence for event in claims] == list(range(1, len(claims) + 1))
    return sum(now.reason == "claimed" and before.to_state not in HELD_BY_NOBODY for before, now in pairwise(told))


def race_for(person: Person, corpus: str, *, num_claims: int, num_jobs: int) -> Race:
    jobs = [cast.submitted(person, corpus) for _ in range(num_jobs)]
    do(dispatch.place)
    race = Race(jobs, num_claims)
    race.run()
    assert race.doubles == 0
    assert sum(double_holders(job_id) for job_id in jobs) == 0
    with db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Attempt).where(Attempt.job_id.in_(jobs))) == race.won
    return race


def test_of_sixteen_racers_never_two_hold_a_job(alice_user: Person, corpus: str) -> None:
    race = race_for(alice_user, corpus, num_claims=800, num_jobs=12)
    assert race.won > 20


@pytest.mark.faults
def test_in_ten_thousand_claims_of_sixteen_racers_never_two_hold_a_job(alice_user: Person, corpus: str) -> None:
    race = race_for(alice_user, corpus, num_claims=10_000, num_jobs=40)
    assert race.won > 200
    print(f"\n10,000 claims by {RACERS} racers, {race.won} won, 0 double holders")  # noqa: T201 - for `make faults`


# ---- messages -------------------------------------------------------------------------------------------------------


def test_a_message_delivered_fifty_times_to_four_workers_starts_one_attempt(
    alice_user: Person, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, int]] = []
    monkeypatch.setattr(tasks, "start_supervisor", lambda job_id, fence: started.append((job_id, fence)))
    monkeypatch.setattr(tasks, "_children", [])
    monkeypatch.setattr(tasks, "settings", lambda: type("OnAda", (), {"node_name": "ada"}))
    job_id = cast.submitted(alice_user, corpus)
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
                tasks.start_job(*arguments)
                num_taken += 1
                monkeypatch.setattr(tasks, "_children", [])

    assert sum(together([worker] * 4)) == 50
    assert started == [(job_id, 1)]
    assert Counter(event.reason for event in events_of(job_id)) == {"submitted": 1, "claimed": 1}


# ---- ends -----------------------------------------------------------------------------------------------------------


def test_a_hundred_cancels_at_the_instant_of_the_end_always_end_legally(alice_user: Person, corpus: str) -> None:
    """The supervisor that has finished looks for a wish and then says how it ended, while its user cancels."""
    seen = Counter[tuple[str, str, str]]()
    for number in range(100):
        job_id, fence = cast.started(alice_user, corpus)

        def supervisor(job_id: str = job_id, fence: int = fence, delay: int = number) -> None:
            wish = "run"
            for _ in range(delay % 4):  # the later it ends, the likelier it hears the wish
                wish = do(attempts.renew, job_id=job_id, fence=fence)
            if wish == "cancel":
                assert do(attempts.begin_stop, job_id=job_id, fence=fence, state="cancelling")
                assert do(attempts.release, job_id=job_id, fence=fence, reason="shutdown")
            else:
                assert do(attempts.finish, job_id=job_id, fence=fence)

        def user(job_id: str = job_id) -> str:
            try:
                do(service.cancel, principal=alice_user.principal, job_id=job_id)
            except PanelError as error:
                return error.code
            return "accepted"

        _nothing, answer = together([supervisor, user])
        last = events_of(job_id)[-1]
        seen[answer, cast.row(job_id).state, str(last.reason)] += 1
    assert set(seen) <= {
        ("accepted", "cancelled", "stopped"),
        ("accepted", "succeeded", "finished_first"),
        ("job_ended", "succeeded", "finished"),
    }
    assert {state for _answer, state, _reason in seen} == {"cancelled", "succeeded"}


def test_who_cancels_too_late_is_told_so_in_the_answer_or_in_the_history(alice_user: Person, corpus: str) -> None:
    job_id, fence = cast.started(alice_user, corpus)
    do(service.cancel, principal=alice_user.principal, job_id=job_id)
    do(attempts.finish, job_id=job_id, fence=fence)
    assert events_of(job_id)[-1].reason == "finished_first"
    with pytest.raises(PanelError, match="nothing left to cancel"):
        do(service.cancel, principal=alice_user.principal, job_id=job_id)


def test_a_job_is_placed_once_however_many_schedulers_believe_they_lead(alice_user: Person, corpus: str) -> None:
    with db.transaction() as session:
        session.execute(update(Node).values(slots=5))
    for _ in range(10):
        cast.submitted(alice_user, corpus)
    together([lambda: do(dispatch.place)] * 8)
    with db.transaction() as session:
        placed = session.scalars(select(Job.id).where(Job.node.is_not(None))).all()
        owed = session.scalars(select(Outbox.args)).all()
    assert len(placed) == 5
    assert sorted(placed) == sorted(args[0] for args in owed)

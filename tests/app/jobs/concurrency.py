"""Sixteen racers for the same jobs, and how to see in the history that never two held one."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

from sqlalchemy import func, select, update

from app.core import db
from app.core.models import Attempt, JobEvent, Node
from app.jobs import service
from app.jobs.attempts import attempts
from app.jobs.scheduling import dispatch
from tests.app.jobs import factories
from tests.users import Person

RACERS = 16
HELD_BY_NOBODY = ("queued", "recovering", "paused", "succeeded", "failed", "cancelled")


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


class Race:
    """Racers claim whatever they can get and give it back at once, so that every job is claimed again and again."""

    def __init__(self, jobs: list[str], num_claims: int) -> None:
        self.jobs, self.left, self.lock = jobs, num_claims, threading.Lock()
        self.least_won = num_claims // 40  # however slow the scheduler is among so many
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
            do(attempts.release, job_id=job_id, fence=fence, reason="shutdown")

    def scheduler(self) -> None:
        while not self.is_over.is_set():
            with db.transaction() as session:  # the worker of the node lives, however long it takes
                session.execute(update(Node).values(last_seen_at=func.now()))
            do(dispatch.requeue_or_fail)
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
            return self.left >= 0 or self.won < self.least_won


def double_holders(job_id: str) -> int:
    """How often the history shows a claim of a job that was held, or a fence that is not the next one."""
    told = events_of(job_id)
    claims = [event for event in told if event.reason == "claimed"]
    assert [event.fence for event in claims] == list(range(1, len(claims) + 1))
    return sum(now.reason == "claimed" and before.to_state not in HELD_BY_NOBODY for before, now in pairwise(told))


def race_for(person: Person, corpus: str, *, num_claims: int, num_jobs: int) -> Race:
    jobs = [factories.submitted(person, corpus) for _ in range(num_jobs)]
    do(dispatch.place)
    race = Race(jobs, num_claims)
    race.run()
    assert race.doubles == 0
    assert sum(double_holders(job_id) for job_id in jobs) == 0
    with db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Attempt).where(Attempt.job_id.in_(jobs))) == race.won
    return race

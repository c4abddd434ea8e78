"""F40, F46, F47 in great numbers: claims, submits and cancels that race each other."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import update

from app import db
from app.errors import PanelError
from app.jobs import attempts, service
from app.models import TERMINAL, Job
from tests.faults.runs import SPEC, Run
from tests.faults.stack import Stack
from tests.jobs import cast
from tests.people import Person

Saw = Callable[[str], None]
RACERS, JOBS = 16, 625


@pytest.mark.row("F40-2", "10,000 claims of 625 jobs by 16 racers")
def test_of_ten_thousand_claims_one_a_job_holds(database: str, alice_user: Person, saw: Saw) -> None:
    corpus = cast.corpus(alice_user)
    ids = [cast.submitted(alice_user, corpus) for _ in range(JOBS)]
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id.in_(ids)).values(node="ada"))
    barrier = threading.Barrier(RACERS)

    def race(_racer: int) -> list[tuple[str, int]]:
        barrier.wait()
        held = []
        for job_id in ids:
            with db.transaction() as session:
                fence = attempts.claim(session, job_id=job_id, node="ada")
            if fence is not None:
                held.append((job_id, fence))
        return held

    with ThreadPoolExecutor(RACERS) as pool:
        holders = [holder for held in pool.map(race, range(RACERS)) for holder in held]
    assert sorted(holders) == sorted((job_id, 1) for job_id in ids)
    saw(f"{RACERS * JOBS} claims, {len(holders)} held, 0 twice")


@pytest.mark.row("F47-3", "cancel and success in the same instant, 100 times")
@pytest.mark.faults_core
def test_of_a_cancel_and_a_success_in_the_same_instant_one_stands(database: str, alice_user: Person, saw: Saw) -> None:
    corpus = cast.corpus(alice_user)
    ends = []
    with ThreadPoolExecutor(2) as pool:
        for _ in range(100):
            job_id, fence = cast.started(alice_user, corpus)
            barrier = threading.Barrier(2)
            cancelled = pool.submit(cancel, barrier, alice_user, job_id)
            pool.submit(finish, barrier, job_id, fence).result()
            job = cast.row(job_id)
            assert job.state == "succeeded"
            assert cancelled.result() in ("wished", "job_ended")
            assert [state for state, _reason in cast.reasons(job_id) if state in TERMINAL] == [job.state]
            ends.append(cancelled.result())
    saw(f"success stands 100 times; told so at once {ends.count('job_ended')} times")


def cancel(barrier: threading.Barrier, owner: Person, job_id: str) -> str:
    """What a user does; answers what they are told."""
    barrier.wait()
    try:
        with db.transaction() as session:
            service.cancel(session, principal=owner.principal, job_id=job_id)
    except PanelError as error:
        return error.code
    return "wished"


def finish(barrier: threading.Barrier, job_id: str, fence: int) -> None:
    """What a supervisor does at the end."""
    barrier.wait()
    with db.transaction() as session:
        attempts.finish(session, job_id=job_id, fence=fence)


@pytest.mark.row("F46-3", "1,000 submits while web and broker are killed again and again")
def test_of_a_thousand_submits_under_kills_none_is_lost_and_none_doubled(
    furnace: Stack, corpus: str, submit: Callable[..., Run], saw: Saw
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    first = submit(max_steps=1_000_000)
    first.until("running")
    body = {**SPEC, "corpora": [corpus], "name": "thousand"}

    def send(number: int) -> str:
        while True:
            try:
                answer = furnace.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": f"thousand-{number}"})
            except httpx.HTTPError:
                continue
            assert answer.status_code in (200, 201), answer.text
            return str(answer.json()["id"])

    kills = 0
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(send, number) for number in range(1000)]
        while not all(one.done() for one in sent):
            role = chance.choice(("web", "valkey"))
            before = sum(one.done() for one in sent)
            furnace.kill9(role)
            furnace.restart(role)
            kills += 1
            next((one.result() for one in sent[min(before + 60, 999) :]), None)  # until so many more were answered
        ids = {one.result() for one in sent}
    assert len(ids) == 1000
    assert len(furnace.rows("SELECT id FROM job WHERE name = 'thousand'")) == 1000
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda job_id: furnace.post(f"/api/v1/jobs/{job_id}/cancel"), ids))
    first.post("cancel")
    first.until("cancelled")
    saw(f"1,000 jobs after {kills} kills; seed {seed}")

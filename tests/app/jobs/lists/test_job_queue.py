"""The queue: its order, when its jobs start and after which one, and whose names each reader sees."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, func, update
from starlette.testclient import TestClient

from app.core import db
from app.core.models import Job
from app.jobs.scheduling import dispatch
from tests import users
from tests.app.jobs import factories
from tests.users import Person


@pytest.fixture(scope="module")
def corpora(alice_user: Person, bob_user: Person) -> dict[str, str]:
    return {person.id: factories.corpus(person) for person in (alice_user, bob_user)}


@pytest.fixture(autouse=True)
def _one_slot(database: str) -> Iterator[None]:
    with db.transaction() as session:
        session.execute(delete(Job))
    factories.forget_nodes()
    factories.node("ada")
    yield
    factories.forget_nodes()


@pytest.fixture(scope="module")
def carol_user(database: str) -> Person:
    """Carol, another member."""
    return users.enter("Carol", "member")


@pytest.fixture
def carol(web: TestClient, carol_user: Person) -> TestClient:
    return users.client(web, cookie=carol_user.cookie())


def submit(person: Person, corpora: dict[str, str], name: str, **fields: Any) -> str:
    return factories.submitted(person, corpora[person.id], name=name, max_steps=1000, **fields)


def place() -> None:
    """One round of the scheduler."""
    with db.transaction() as session:
        dispatch.place(session)


def queue(client: TestClient) -> list[dict[str, Any]]:
    answer = client.get("/api/v1/queue")
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


def test_the_queue_has_an_order_and_says_what_each_job_waits_for(
    alice: TestClient, alice_user: Person, corpora: dict[str, str]
) -> None:
    running, second, third = (submit(alice_user, corpora, name) for name in ("first", "second", "third"))
    urgent = submit(alice_user, corpora, "urgent", priority="high")
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == running).values(node="ada"))
    place()
    jobs = queue(alice)
    assert [(job["position"], job["id"]) for job in jobs] == [(1, urgent), (2, second), (3, third)]
    assert [job["blocking_job"] for job in jobs] == [
        {"id": running, "name": "first"},
        {"id": urgent, "name": "urgent"},
        {"id": second, "name": "second"},
    ]
    starts = [job["expected_start_at"] for job in jobs]
    assert None not in starts
    assert starts == sorted(starts)
    wait = alice.get(f"/api/v1/jobs/{second}").json()["wait"]
    assert (wait["code"], wait["blocking_job"]["name"], wait["until"]) == ("no_slot", "urgent", starts[1])
    for path in ("/jobs/queue", f"/jobs/{second}"):
        assert "Starts when “urgent” ends, about <time" in alice.get(path).text
    chinese = alice.get(f"/jobs/{second}", headers={"Accept-Language": "zh-CN"}).text
    assert "“urgent”结束后开始，预计 <time" in chinese


def test_jobs_of_others_have_a_place_and_no_name(
    alice: TestClient, bob: TestClient, carol: TestClient, alice_user: Person, bob_user: Person, corpora: dict[str, str]
) -> None:
    first = submit(bob_user, corpora, "bobs first")
    place()
    secret = submit(bob_user, corpora, "bobs secret")
    shared = submit(alice_user, corpora, "alices shared")
    place()
    assert alice.put(f"/api/v1/shares/{shared}", json={"everyone": False, "users": ["Carol"]}).status_code == 200

    names = [(job["name"], job["is_own"], job["is_readable"]) for job in queue(bob)]
    assert names == [(None, False, False), ("bobs secret", True, True)]
    text = bob.get("/jobs/queue").text
    assert "alices shared" not in text
    assert shared not in bob.get("/api/v1/queue").text
    assert "a job of somebody else" in text

    assert [job["name"] for job in queue(carol)] == ["alices shared", None]
    text = carol.get("/jobs/queue").text
    assert "bobs" not in text + carol.get("/api/v1/queue").text
    assert "Starts when another job ends, about <time" in text

    everything = queue(alice)  # as an owner she sees names, as on the list of everyone's jobs
    assert [(job["name"], job["owner"], job["is_readable"]) for job in everything] == [
        ("alices shared", "Alice", True),
        ("bobs secret", "Bob", False),
    ]
    assert everything[0]["blocking_job"]["name"] == "bobs first"
    assert f'href="/jobs/{secret}"' not in alice.get("/jobs/queue").text
    assert alice.get(f"/api/v1/jobs/{shared}").json()["wait"]["blocking_job"] == {"id": None, "name": None}
    assert bob.get(f"/api/v1/jobs/{first}").json()["wait"]["blocking_job"] is None  # it starts


def test_readers_of_a_shared_job_do_not_see_what_else_its_owner_runs(
    carol: TestClient, alice: TestClient, alice_user: Person, corpora: dict[str, str]
) -> None:
    submit(alice_user, corpora, "private")
    place()
    shared = submit(alice_user, corpora, "open")
    place()
    path = f"/api/v1/jobs/{shared}"
    assert alice.get(path).json()["wait"]["blocking_job"]["name"] == "private"
    assert alice.put(f"/api/v1/shares/{shared}", json={"everyone": False, "users": ["Carol"]}).status_code == 200
    assert carol.get(path).json()["wait"]["blocking_job"] == {"id": None, "name": None}
    assert "private" not in carol.get(f"/jobs/{shared}").text


def test_an_empty_queue_says_so(alice: TestClient) -> None:
    assert queue(alice) == []
    assert "No job is waiting" in alice.get("/jobs/queue").text


# ---- moves ----------------------------------------------------------------------------------------------------------


def order(client: TestClient) -> list[str]:
    return [job["name"] for job in queue(client)]


def move(client: TestClient, job_id: str, **to: str) -> int:
    answer = client.post(f"/api/v1/jobs/{job_id}/move", json=to)
    assert answer.status_code != 500, answer.text
    return answer.status_code


@pytest.fixture
def mixed(alice_user: Person, bob_user: Person, corpora: dict[str, str]) -> dict[str, str]:
    """Waiting jobs of Alice (a) and Bob (b), who take turns, behind one that runs; their ids by their names."""
    submit(alice_user, corpora, "running")
    place()
    ids = {}
    for n in range(1, 4):
        for person, letter in ((alice_user, "a"), (bob_user, "b")):
            ids[f"{letter}{n}"] = submit(person, corpora, f"{letter}{n}")
    place()
    return ids


def test_a_members_moves_pass_no_job_of_another_user(alice: TestClient, bob: TestClient, mixed: dict[str, str]) -> None:
    assert order(alice) == ["b1", "a1", "b2", "a2", "b3", "a3"]
    answer = bob.post(f"/api/v1/jobs/{mixed['b3']}/move", json={"before": mixed["b1"]})
    assert (answer.status_code, answer.json()["position"], answer.json()["name"]) == (200, 1, "b3")
    assert order(alice) == ["b3", "a1", "b1", "a2", "b2", "a3"]
    assert move(bob, mixed["b3"], after=mixed["b1"]) == 200
    assert order(alice) == ["b1", "a1", "b3", "a2", "b2", "a3"]
    for target in (mixed["a1"], "0000000000000000"):  # another user's job is refused as one that does not exist
        refused = bob.post(f"/api/v1/jobs/{mixed['b2']}/move", json={"before": target})
        assert (refused.status_code, refused.json()["code"]) == (422, "queue_target_unknown")
        assert refused.json()["errors"][0]["field"] == "before"
    assert move(bob, mixed["a3"], before=mixed["a1"]) == 404
    assert order(alice) == ["b1", "a1", "b3", "a2", "b2", "a3"]
    place()
    assert [job["wait"]["position"] for job in queue(bob) if job["wait"]] == [1, 3, 5]


def test_a_place_won_by_waiting_is_used_once(bob: TestClient, alice: TestClient, mixed: dict[str, str]) -> None:
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == mixed["b3"]).values(queued_at=Job.queued_at - timedelta(days=1)))
    assert order(alice) == ["b3", "a1", "b1", "a2", "b2", "a3"]
    assert move(bob, mixed["b2"], before=mixed["b3"]) == 200
    assert order(alice) == ["b2", "a1", "b3", "a2", "b1", "a3"]
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == mixed["b2"]).values(node="ada"))
    assert order(alice) == ["a1", "b3", "a2", "b1", "a3"], "b3 has given its time of waiting away"


def test_jobs_that_were_queued_in_the_same_instant_are_moved(bob: TestClient, mixed: dict[str, str]) -> None:
    own_ids = [mixed[name] for name in ("b1", "b2", "b3")]
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id.in_(own_ids)).values(queued_at=func.now()))
    assert move(bob, mixed["b3"], before=mixed["b2"]) == 200
    assert [job["name"] for job in queue(bob) if job["is_own"]] == ["b1", "b3", "b2"]


def test_an_owner_moves_any_job_and_the_queue_down_to_it_keeps_that_order(
    alice: TestClient, bob: TestClient, bob_user: Person, corpora: dict[str, str], mixed: dict[str, str]
) -> None:
    assert move(alice, mixed["b2"], before=mixed["b1"]) == 200  # within the jobs of Bob
    assert order(alice) == ["b2", "a1", "b1", "a2", "b3", "a3"]
    assert move(alice, mixed["a2"], before=mixed["b2"]) == 200
    assert order(alice) == ["a2", "b2", "a1", "b1", "b3", "a3"]
    submit(bob_user, corpora, "urgent", priority="high")
    assert order(alice) == ["a2", "b2", "a1", "b1", "urgent", "a3", "b3"]
    assert move(bob, mixed["b1"], before=mixed["b2"]) == 200  # its user exchanges places within it
    assert order(alice) == ["a2", "b1", "a1", "b2", "urgent", "a3", "b3"]
    entries = alice.get("/api/v1/audit-log?action=job_moved").json()["data"][:2]
    assert [(entry["subject"], entry["detail"]) for entry in entries] == [("a2", "Alice"), ("b2", "Bob")]
    assert bob.post(f"/api/v1/jobs/{mixed['b1']}/pause").status_code == 202
    assert bob.post(f"/api/v1/jobs/{mixed['b1']}/resume").status_code == 202
    assert order(alice)[-1] == "b1", "a job that was paused queues again"


def test_a_move_says_what_is_wrong(alice: TestClient, alice_user: Person, mixed: dict[str, str]) -> None:
    path = f"/api/v1/jobs/{mixed['a1']}/move"
    for body in ({}, {"before": mixed["a2"], "after": mixed["a3"]}):
        answer = alice.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "queue_target_missing")
    assert alice.post(path, json={"before": mixed["a1"]}).json()["code"] == "queue_target_unknown"
    running = next(job["id"] for job in alice.get("/api/v1/jobs").json()["data"] if job["name"] == "running")
    assert alice.post(f"/api/v1/jobs/{running}/move", json={"before": mixed["a1"]}).json()["code"] == "job_not_waiting"
    assert move(alice, mixed["a1"], before=mixed["b2"]) == 200  # where it is already
    assert order(alice) == ["b1", "a1", "b2", "a2", "b3", "a3"]


def test_buttons_of_the_queue_move_jobs(alice: TestClient, bob: TestClient, mixed: dict[str, str]) -> None:
    text = bob.get("/jobs/queue").text
    forms = re.findall(r'action="/jobs/(\w+)/move"><input type="hidden" name="(\w+)" value="(\w+)">', text)
    b1, b2, b3 = mixed["b1"], mixed["b2"], mixed["b3"]
    assert forms == [(b1, "after", b2), (b2, "before", b1), (b2, "after", b3), (b3, "before", b2)]
    assert bob.post(f"/jobs/{b3}/move", data={"before": b2}).headers["location"] == "/jobs/queue"
    assert [job["name"] for job in queue(bob) if job["is_own"]] == ["b1", "b3", "b2"]
    refused = bob.post(f"/jobs/{b3}/move", data={"before": mixed["a1"]})
    assert (refused.status_code, "this one does not." in refused.text) == (422, True)
    assert alice.get("/jobs/queue").text.count("/move") == 10

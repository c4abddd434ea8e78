"""The queue: its order, when its jobs start and after which one, and whose names each reader sees."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import delete, update
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

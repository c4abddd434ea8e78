"""A drained node: its jobs go on, and no other job is placed there until it is resumed."""

import pytest
from sqlalchemy import delete
from starlette.testclient import TestClient

from app.core import db
from app.core.models import Job
from app.jobs.scheduling import dispatch
from tests import users
from tests.app.jobs import factories
from tests.users import Person


@pytest.fixture(autouse=True)
def _two_slots(database: str) -> None:
    with db.transaction() as session:
        session.execute(delete(Job))
    factories.forget_nodes()
    factories.node("ada", slots=2)


@pytest.fixture
def corpus(alice_user: Person) -> str:
    return factories.corpus(alice_user)


def place() -> None:
    with db.transaction() as session:
        dispatch.place(session)


def test_no_job_is_placed_on_a_drained_node(alice: TestClient, alice_user: Person, corpus: str) -> None:
    running, fence = factories.started(alice_user, corpus, on="ada")
    unclaimed = factories.submitted(alice_user, corpus)
    place()
    assert factories.row(unclaimed).node == "ada"
    assert alice.post("/api/v1/nodes/ada/drain").status_code == 204
    factories.node("ada", slots=2)  # its next report does not end it
    place()
    assert (factories.row(running).state, factories.row(running).node) == ("starting", "ada")
    assert (factories.row(running).fence, factories.row(unclaimed).node) == (fence, None)
    wait = alice.get(f"/api/v1/jobs/{unclaimed}").json()["wait"]
    assert (wait["code"], wait["position"], wait["until"]) == ("draining", 1, None)
    assert "the nodes that can run it take no new jobs" in wait["message"]
    assert alice.get("/api/v1/nodes").json()["data"][0]["is_draining"] is True

    factories.node("grace")
    place()
    assert factories.row(unclaimed).node == "grace"
    waiting = factories.submitted(alice_user, corpus)
    place()
    assert factories.row(waiting).node is None
    assert alice.post("/api/v1/nodes/ada/resume").status_code == 204
    place()
    assert factories.row(waiting).node == "ada"


def test_a_job_for_gpus_waits_for_its_drained_node(alice: TestClient, alice_user: Person, corpus: str) -> None:
    factories.node("grace", gpus=2)
    assert alice.post("/api/v1/nodes/grace/drain").status_code == 204
    job_id = factories.submitted(alice_user, corpus)
    place()
    assert factories.row(job_id).node is None
    assert alice.get(f"/api/v1/jobs/{job_id}").json()["wait"]["code"] == "draining"


def test_owners_drain_and_resume_on_the_page(alice: TestClient, bob: TestClient, web: TestClient) -> None:
    admin = users.client(web, cookie=users.enter("Anna", "admin").cookie())
    for client in (bob, admin):
        assert "/nodes/ada/drain" not in client.get("/nodes").text
        assert client.post("/nodes/ada/drain").status_code == client.post("/api/v1/nodes/ada/drain").status_code == 403
    assert alice.post("/nodes/ada/drain").headers["location"] == "/nodes"
    page = alice.get("/nodes").text
    assert ('data-state="draining"' in page, "/nodes/ada/resume" in page, "/nodes/ada/drain" in page) == (
        True,
        True,
        False,
    )
    for _ in range(2):  # it is resumed once
        assert alice.post("/nodes/ada/resume").headers["location"] == "/nodes"
    entries = [(entry["action"], entry["subject"]) for entry in alice.get("/api/v1/audit-log").json()["data"]]
    assert entries[:2] == [("node_resumed", "ada"), ("node_drained", "ada")]
    assert alice.post("/api/v1/nodes/nowhere/drain").status_code == 404

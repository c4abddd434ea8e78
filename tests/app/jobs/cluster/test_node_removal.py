"""Owners remove nodes from the list: those that are offline and have no work, until their workers report again."""

import re
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from app.core import db, quotas, storage
from app.core.models import Attempt, BackgroundTask, Checkpoint, Job, Node
from app.jobs.cluster import nodes
from tests import users
from tests.app.jobs import factories
from tests.users import Person

PATH = "/api/v1/nodes"


@pytest.fixture(autouse=True)
def no_nodes(database: str) -> None:
    factories.forget_nodes()


def offline(name: str, **hardware: int) -> str:
    """A node that has not reported for an hour."""
    factories.node(name, **hardware)
    silence(name)
    return name


def silence(name: str) -> None:
    with db.transaction() as session:
        session.execute(update(Node).where(Node.name == name).values(last_seen_at=func.now() - timedelta(hours=1)))


def names(api: TestClient) -> list[str]:
    return [node["name"] for node in api.get(PATH).json()["data"]]


def test_a_removed_node_is_listed_nowhere_until_its_worker_reports_again(alice: TestClient, alice_user: Person) -> None:
    _job, checkpoint = factories.finished(alice_user, factories.corpus(alice_user))
    with db.transaction() as session:
        storage.checkpoint(session.get_one(Checkpoint, checkpoint).path).mkdir(parents=True)
    for name in ("spare", "gpu 2"):
        offline(name)
    assert alice.delete(f"{PATH}/gpu%202").status_code == 204
    assert names(alice) == ["spare"]
    assert "gpu 2" not in alice.get("/nodes").text + alice.get("/health").text
    entry = alice.get("/api/v1/audit-log").json()["data"][0]
    assert (entry["user"], entry["action"], entry["subject"]) == ("Alice", "node_removed", "gpu 2")
    assert alice.delete(f"{PATH}/gpu%202").status_code == 404
    refused = alice.post("/api/v1/deployments", json={"name": "scribe", "model": checkpoint, "nodes": ["gpu 2"]})
    assert (refused.status_code, refused.json()["code"]) == (422, "node_unknown")
    factories.node("gpu 2")
    assert names(alice) == ["gpu 2", "spare"]


def test_no_plan_counts_on_a_removed_node(alice: TestClient) -> None:
    factories.node("spare")
    with db.transaction() as session:
        assert nodes.for_a_plan(session, 1) is not None
        session.execute(update(Node).values(removed_at=func.now()))
        assert nodes.for_a_plan(session, 1) is None


def test_what_ran_on_a_removed_node_keeps_its_history_and_counts(alice: TestClient, alice_user: Person) -> None:
    factories.node("large", gpus=2)
    spec = {"num_processes": 2, "per_device_batch_size": 8, "max_steps": 4, "warmup_steps": 1}
    job_id, _checkpoint = factories.finished(alice_user, factories.corpus(alice_user), on="large", **spec)
    with db.transaction() as session:
        times = {"started_at": func.now() - timedelta(hours=3), "ended_at": func.now() - timedelta(hours=1)}
        session.execute(update(Attempt).where(Attempt.job_id == job_id).values(times))
    silence("large")
    assert alice.delete(f"{PATH}/large").status_code == 204
    with db.transaction() as session:
        assert quotas.gpu_hours(session, [alice_user.id]) == {alice_user.id: pytest.approx(4)}
        assert session.scalars(select(Attempt.node).where(Attempt.job_id == job_id)).all() == ["large"]
    assert alice.get(f"/jobs/{job_id}").status_code == 200


def test_a_node_that_is_online_is_refused(alice: TestClient) -> None:
    factories.node("spare")
    answer = alice.delete(f"{PATH}/spare")
    assert (answer.status_code, answer.json()["code"]) == (409, "node_online")
    assert "Stop its worker first" in answer.json()["title"]
    assert "remove-spare" not in alice.get("/nodes").text
    assert names(alice) == ["spare"]


@pytest.mark.parametrize("work", ["queued", "running", "task"])
def test_a_node_with_work_is_refused(alice: TestClient, alice_user: Person, work: str) -> None:
    corpus_id = factories.corpus(alice_user)
    factories.node("spare")
    if work == "queued":
        factories.give_to(factories.submitted(alice_user, corpus_id, max_steps=4, warmup_steps=1), "spare")
    elif work == "running":
        factories.started(alice_user, corpus_id, on="spare", max_steps=4, warmup_steps=1)
    else:
        with db.transaction() as session:
            task = BackgroundTask(owner_id=alice_user.id, corpus_id=corpus_id, kind="parse", state="running")
            task.node = "spare"
            session.add(task)
    silence("spare")
    answer = alice.delete(f"{PATH}/spare")
    assert (answer.status_code, answer.json()["code"]) == (409, "node_busy")
    page = alice.post("/nodes/spare/remove")
    assert (page.status_code, answer.json()["title"] in page.text) == (409, True)
    with db.transaction() as session:
        for table in (Job, BackgroundTask):
            session.execute(update(table).where(table.node == "spare").values(node="another"))
    assert alice.delete(f"{PATH}/spare").status_code == 204


def test_an_owner_removes_a_node_on_the_page_and_others_are_not_offered_it(web: TestClient, alice: TestClient) -> None:
    offline("spare.example")
    admin = users.client(web, cookie=users.enter("Anna", "admin").cookie())
    assert "remove-spare.example" not in admin.get("/nodes").text
    assert admin.post("/nodes/spare.example/remove").status_code == 403
    page = alice.get("/nodes").text
    live = page[page.index('id="live"') :]
    assert 'data-dialog="remove-spare.example"' in live
    action = re.search(r'<dialog id="remove-spare.example".*?action="([^"]+)"', live, re.DOTALL)
    assert action is not None
    assert alice.post(action[1]).headers["location"] == "/nodes"
    assert names(alice) == []


@pytest.fixture
def checkpoint_id(alice_user: Person) -> str:
    _job, checkpoint = factories.finished(alice_user, factories.corpus(alice_user))
    with db.transaction() as session:
        storage.checkpoint(session.get_one(Checkpoint, checkpoint).path).mkdir(parents=True, exist_ok=True)
    return checkpoint


def test_a_deployment_leaves_a_removed_node_out_when_saved(alice: TestClient, checkpoint_id: str) -> None:
    for name in ("ada", "spare"):
        offline(name)
    body = {"name": "pinned", "model": checkpoint_id, "nodes": ["ada", "spare"]}
    path = f"/deployments/{alice.post('/api/v1/deployments', json=body).json()['id']}"
    assert alice.delete(f"{PATH}/spare").status_code == 204
    shown = alice.get(path).text
    assert "The node spare was removed. Saving leaves it out." in shown
    assert re.search(r'value="ada"\s+id="field-nodes"', shown)

    api = f"/api/v1{path}"
    assert alice.get(api).json()["removed_nodes"] == ["spare"]
    assert alice.put(api, json={"access": "everyone"}).json()["nodes"] == ["ada", "spare"], "it may come back"
    refused = alice.put(api, json={"nodes": ["ada", "spare", "nowhere"]})
    assert (refused.status_code, refused.json()["code"]) == (422, "node_unknown")
    assert refused.json()["title"].startswith("There are no nodes “spare”, “nowhere”")
    form = {"model": checkpoint_id, "nodes": "ada"}
    assert alice.post(path, data=form, follow_redirects=False).status_code == 303
    row = alice.get(api).json()
    assert (row["nodes"], row["removed_nodes"]) == (["ada"], [])

    assert alice.delete(f"{PATH}/ada").status_code == 204
    assert "All nodes that may keep it were removed." in alice.get(f"{path}?part=state").text
    typed = alice.post(path, data={**form, "users": "Alice"}).text
    assert "There is no node “ada”" in typed
    assert 'value="Alice"' in typed
    assert "Saving leaves it out" not in typed


def test_a_setting_of_a_deployment_that_is_null_stays(alice: TestClient, checkpoint_id: str) -> None:
    body = {"name": "steady", "model": checkpoint_id, "access": "everyone", "requests_per_minute": 6}
    path = f"/api/v1/deployments/{alice.post('/api/v1/deployments', json=body).json()['id']}"
    nothing = dict.fromkeys(("model", "num_replicas", "nodes", "access", "users", "requests_per_minute"))
    changed = alice.put(path, json=nothing)
    assert changed.status_code == 200, changed.text
    row = changed.json()
    assert (row["model"], row["num_replicas"], row["nodes"]) == (checkpoint_id, 1, [])
    assert (row["access"], row["requests_per_minute"]) == ("everyone", None)

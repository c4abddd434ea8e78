"""The pages of deployments: the form, the list, the page of one, and what they say about wrong fields."""

from starlette.testclient import TestClient

from tests.app.playground.conftest import StoredCheckpoint


def deploy(alice: TestClient, **fields: str) -> str:
    answer = alice.post("/deployments", data=fields, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def test_a_model_is_deployed_changed_and_removed_by_forms(alice: TestClient, checkpoint: StoredCheckpoint) -> None:
    assert "No deployments yet" in alice.get("/deployments").text
    path = deploy(alice, name="helpdesk", model=checkpoint.id, num_replicas="1", access="owner", users="", nodes="")

    listed = alice.get("/deployments").text
    assert "helpdesk" in listed
    assert "data-busy" in listed, "it is being loaded, so the list updates itself"
    shown = alice.get(path).text
    assert "Nobody has called it yet." in shown
    assert "/v1/chat/completions" in shown

    settings = {"model": checkpoint.id, "num_replicas": "2", "access": "everyone", "requests_per_minute": "60"}
    changed = alice.post(path, data=settings, follow_redirects=False)
    assert (changed.status_code, changed.headers["location"]) == (303, path)
    row = alice.get(f"/api/v1{path}").json()
    assert (row["num_replicas"], row["access"], row["requests_per_minute"]) == (2, "everyone", 60)
    alice.post(path, data={**settings, "requests_per_minute": ""})
    assert alice.get(f"/api/v1{path}").json()["requests_per_minute"] is None

    alice.post(f"{path}/delete")
    assert alice.get(path).status_code == 404


def test_wrong_fields_are_named_and_what_was_typed_stays(alice: TestClient, checkpoint: StoredCheckpoint) -> None:
    answer = alice.post("/deployments", data={"name": "x" * 65, "model": checkpoint.id, "nodes": "far away, here"})

    assert answer.status_code == 422
    assert "can have at most 64 characters" in answer.text
    assert "far away, here" in answer.text

    path = deploy(alice, name="other", model=checkpoint.id)
    refused = alice.post(path, data={"model": checkpoint.id, "access": "users", "users": "Nobody at all"})
    assert refused.status_code == 422
    assert "There is no user “Nobody at all”." in refused.text
    alice.post(f"{path}/delete")

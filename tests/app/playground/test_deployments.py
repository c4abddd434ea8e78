"""Deployments: a name that is kept in memory, called, moved to another model, limited, counted and removed."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file, save_file
from starlette.testclient import TestClient

from app.checkpoints import service as checkpoints
from app.core import db
from app.core.deployment_models import Deployment, DeploymentCall, Replica
from app.core.errors import PanelError
from app.core.settings import settings
from app.openai import models
from app.playground import service
from app.playground.deployments import calls, replicas
from app.playground.deployments.replicas import LoadedState
from tests import statements
from tests.app.playground.conftest import StoreCheckpoint, StoredCheckpoint
from tests.users import Person
from tests.waiting import until
from worker.inference.deployed_models import DeployedModels
from worker.runtime import current_worker

BODY = {"prompt": "And God said", "max_tokens": 5, "temperature": 0}


@pytest.fixture(scope="module")
def deployed_models(node: str) -> DeployedModels:
    """What the node does every few seconds."""
    return DeployedModels(current_worker().inference)


@pytest.fixture(autouse=True)
def none_left(deployed_models: DeployedModels) -> Iterator[None]:
    yield
    with db.transaction() as session:
        for row in session.query(Deployment):
            session.delete(row)
    deployed_models.update()


def deploy(api: TestClient, model: str, **fields: Any) -> dict[str, Any]:
    answer = api.post("/api/v1/deployments", json={"name": "helpdesk", "model": model, **fields})
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


def wait_until_ready(api: TestClient, deployed_models: DeployedModels, deployment_id: str) -> None:
    def is_ready() -> bool:
        deployed_models.update()
        answer = api.get(f"/api/v1/deployments/{deployment_id}").json()
        return bool(answer["replicas"]) and all(
            one["state"] == "ready" and one["is_current"] for one in answer["replicas"]
        )

    until(is_ready, 60, "the deployment to be ready")


def test_a_deployment_is_loaded_called_by_name_and_counted(
    api: TestClient, checkpoint: StoredCheckpoint, deployed_models: DeployedModels
) -> None:
    created = deploy(api, checkpoint.id)
    assert (created["state"], created["replicas"]) == ("loading", [])
    wait_until_ready(api, deployed_models, created["id"])
    direct = api.post("/api/v1/generate", json={"checkpoint": checkpoint.id, **BODY}).json()

    for name in ("helpdesk", "HelpDesk", created["id"]):
        answer = api.post("/api/v1/generate", json={"checkpoint": name, **BODY}).json()
        assert answer["text"] == direct["text"]

    deployment = api.get(f"/api/v1/deployments/{created['id']}").json()
    day = deployment["last_day"]
    assert (day["requests"], day["errors"], day["tokens"]) == (3, 0, 15)
    assert 0 < day["first_token_p50_ms"] <= day["p50_ms"] <= day["p95_ms"]
    (hour,) = api.get(f"/api/v1/deployments/{created['id']}/usage").json()["data"]
    assert hour["requests"] == 3
    assert hour["prompt_tokens"] == 3 * direct["num_prompt_tokens"]


def test_a_call_goes_to_the_node_that_keeps_the_model(
    api: TestClient, checkpoint: StoredCheckpoint, deployed_models: DeployedModels
) -> None:
    created = deploy(api, checkpoint.id)
    wait_until_ready(api, deployed_models, created["id"])
    with db.transaction() as session:
        row = session.get_one(Deployment, created["id"])
        assert replicas.duties(session, settings().node_name)[0].paths == (row.path,)
        assert calls.route(session, row) == (row.path, settings().node_name)
        session.get_one(Replica, (row.id, settings().node_name)).state = "loading"
        session.flush()
        assert calls.route(session, row) == (row.path, None), "any node may load it"
        row.nodes = [settings().node_name, "away"]
        assert calls.route(session, row) == (row.path, settings().node_name), "only the chosen ones may"
        session.rollback()


def test_only_chosen_nodes_serve_a_deployment(
    api: TestClient, checkpoint: StoredCheckpoint, deployed_models: DeployedModels, alice: TestClient
) -> None:
    created = deploy(api, checkpoint.id, nodes=[settings().node_name])
    path = f"/api/v1/deployments/{created['id']}"
    assert api.post("/api/v1/generate", json={"checkpoint": "helpdesk", **BODY}).status_code == 200, "not loaded yet"
    wait_until_ready(api, deployed_models, created["id"])
    with db.transaction() as session:
        session.get_one(Deployment, created["id"]).nodes = ["away"]

    refused = api.post("/api/v1/generate", json={"checkpoint": "helpdesk", **BODY})
    by_openai = api.post("/v1/completions", json={"model": "helpdesk", "prompt": "In"})

    assert (refused.status_code, refused.json()["code"], refused.headers["Retry-After"]) == (503, "nodes_away", "5")
    assert (by_openai.status_code, by_openai.headers["x-should-retry"]) == (503, "true")
    day = api.get(path).json()["last_day"]
    assert (day["requests"], day["errors"]) == (3, 2)
    deployed_models.update()
    assert api.get(path).json()["replicas"] == []
    assert "fail while none of them is online" in alice.get(f"/deployments/{created['id']}").text


def test_a_call_that_waits_for_a_node_ends_when_it_goes(
    api: TestClient, checkpoint: StoredCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LOOK_SECONDS", 0.1)
    deploy(api, checkpoint.id)
    with monkeypatch.context() as routed:
        routed.setattr(calls, "route", lambda _session, deployment: (deployment.path, "away"))
        answer = api.post("/api/v1/generate", json={"checkpoint": "helpdesk", **BODY})
    assert (answer.status_code, answer.json()["code"]) == (503, "nodes_away")


def test_a_replica_says_how_much_of_its_model_is_loaded(
    api: TestClient, alice: TestClient, checkpoint: StoredCheckpoint, deployed_models: DeployedModels
) -> None:
    created = deploy(api, checkpoint.id)
    wait_until_ready(api, deployed_models, created["id"])
    with db.transaction() as session:
        path = session.get_one(Deployment, created["id"]).path
        session.get_one(Replica, (created["id"], settings().node_name)).state = "loading"
    replicas.tell_percents(settings().node_name, {path: LoadedState("loading", None, 42)})

    def percent() -> int | None:
        answer: int | None = api.get(f"/api/v1/deployments/{created['id']}").json()["replicas"][0]["loading_percent"]
        return answer

    assert percent() == 42
    assert 'aria-label="Opening the model…" value="42" max="100"' in alice.get(f"/deployments/{created['id']}").text
    deployed_models.update()
    assert percent() is None, "it is ready"


def test_a_move_to_another_model_leaves_no_gap(
    api: TestClient, store_checkpoint: StoreCheckpoint, alice_user: Person, deployed_models: DeployedModels
) -> None:
    old, new = store_checkpoint(alice_user), store_checkpoint(alice_user)
    created = deploy(api, old.id)
    wait_until_ready(api, deployed_models, created["id"])

    changed = api.put(f"/api/v1/deployments/{created['id']}", json={"model": new.id}).json()

    assert changed["replicas"] == [
        {"node": settings().node_name, "state": "ready", "is_current": False, "message": None, "loading_percent": None}
    ], "the old model serves until the new one is loaded"
    assert api.post("/api/v1/generate", json={"checkpoint": "helpdesk", **BODY}).status_code == 200
    wait_until_ready(api, deployed_models, created["id"])
    assert api.post("/api/v1/generate", json={"checkpoint": "helpdesk", **BODY}).status_code == 200
    with db.transaction() as session:
        assert len(replicas.duties(session, settings().node_name)[0].paths) == 1, "the old one may go"


def test_streams_during_a_move_are_all_texts_of_the_old_or_the_new_model(
    api: TestClient,
    address: str,
    store_checkpoint: StoreCheckpoint,
    alice_user: Person,
    deployed_models: DeployedModels,
) -> None:
    old, new = store_checkpoint(alice_user), store_checkpoint(alice_user)
    weights = load_file(new.path / "model.safetensors")
    weights["model.norm.weight"] = -weights["model.norm.weight"]
    save_file(weights, new.path / "model.safetensors", {"format": "pt"})
    before, after = (
        api.post("/api/v1/generate", json={"checkpoint": one.id, **BODY}).json()["text"] for one in (old, new)
    )
    assert before != after
    created = deploy(api, old.id)
    wait_until_ready(api, deployed_models, created["id"])
    texts: list[str] = []
    is_over = threading.Event()

    def call_on() -> None:
        body = {"model": "helpdesk", **BODY, "stream": True}
        headers = {"Authorization": f"Bearer {alice_user.token()}"}
        with httpx.Client(base_url=address, headers=headers, timeout=240) as client:
            while not is_over.is_set():
                with client.stream("POST", "/v1/completions", json=body) as answer:
                    lines = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
                assert lines[-1] == "[DONE]", lines
                texts.append("".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1]))

    with ThreadPoolExecutor() as pool:
        callers = [pool.submit(call_on) for _ in range(3)]
        try:
            until(lambda: len(texts) > 3, 60, "calls of the old model")
            assert api.put(f"/api/v1/deployments/{created['id']}", json={"model": new.id}).status_code == 200
            wait_until_ready(api, deployed_models, created["id"])
            until(lambda: texts[-1] == after, 60, "calls of the new model")
        finally:
            is_over.set()
        for caller in callers:
            caller.result()
    assert set(texts) == {before, after}
    assert api.get(f"/api/v1/deployments/{created['id']}").json()["last_day"]["errors"] == 0


def test_a_broken_model_is_reported_with_the_reason(
    api: TestClient, store_checkpoint: StoreCheckpoint, alice_user: Person, deployed_models: DeployedModels
) -> None:
    broken = store_checkpoint(alice_user)
    created = deploy(api, broken.id)
    (broken.path / "model.safetensors").write_bytes(b"nonsense")

    def state() -> str:
        deployed_models.update()
        answer = api.get(f"/api/v1/deployments/{created['id']}").json()
        return answer["replicas"][0]["message"] or "" if answer["replicas"] else ""

    until(lambda: "cannot be read" in state(), 60, "the failure")
    assert api.get(f"/api/v1/deployments/{created['id']}").json()["state"] == "failed"


def test_a_move_to_a_broken_model_is_reported_while_the_old_one_serves(
    api: TestClient,
    store_checkpoint: StoreCheckpoint,
    alice: TestClient,
    alice_user: Person,
    deployed_models: DeployedModels,
) -> None:
    old, broken = store_checkpoint(alice_user), store_checkpoint(alice_user)
    created = deploy(api, old.id)
    wait_until_ready(api, deployed_models, created["id"])
    path = f"/api/v1/deployments/{created['id']}"
    assert api.put(path, json={"model": broken.id}).status_code == 200
    (broken.path / "model.safetensors").write_bytes(b"nonsense")

    def replica() -> dict[str, Any]:
        deployed_models.update()
        (only,) = api.get(path).json()["replicas"]
        return dict(only)

    until(lambda: "cannot be read" in (replica()["message"] or ""), 60, "the failure")
    assert (replica()["state"], replica()["is_current"]) == ("ready", False)
    assert api.post("/api/v1/generate", json={"checkpoint": "helpdesk", **BODY}).status_code == 200
    page = alice.get(f"/deployments/{created['id']}").text
    assert ("the model before" in page, "cannot be read" in page) == (True, True)


def test_a_deployment_is_called_by_those_who_may_and_changed_by_its_owner_only(
    api: TestClient, checkpoint: StoredCheckpoint, bob_api: TestClient, bob_user: Person
) -> None:
    created = deploy(api, checkpoint.id)
    path = f"/api/v1/deployments/{created['id']}"
    call = {"checkpoint": "helpdesk", **BODY}
    assert bob_api.post("/api/v1/generate", json=call).status_code == 404
    assert bob_api.get(path).status_code == 404

    assert api.put(path, json={"access": "users", "users": [bob_user.name]}).json()["users"] == [bob_user.name]
    assert bob_api.post("/api/v1/generate", json=call).status_code == 200
    assert api.put(path, json={"access": "everyone", "users": []}).status_code == 200
    assert bob_api.post("/api/v1/generate", json=call).status_code == 200
    assert bob_api.post("/api/v1/generate", json={"checkpoint": checkpoint.id, **BODY}).status_code == 404
    assert bob_api.put(path, json={"num_replicas": 2}).json()["type"].endswith("deployment_not_yours")
    assert bob_api.delete(path).status_code == 403
    assert bob_api.post("/api/v1/deployments", json={"name": "Helpdesk", "model": checkpoint.id}).status_code == 404

    assert api.delete(path).status_code == 204
    assert api.post("/api/v1/generate", json=call).status_code == 404


def test_a_token_makes_so_many_calls_in_a_minute(api: TestClient, checkpoint: StoredCheckpoint) -> None:
    created = deploy(api, checkpoint.id, requests_per_minute=2)
    answers = [api.post("/api/v1/generate", json={"checkpoint": "helpdesk", **BODY}) for _ in range(5)]

    # The minute may change between two calls.
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(200) in (2, 3, 4)
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert "2 requests per minute" in refused.json()["title"]
    day = api.get(f"/api/v1/deployments/{created['id']}").json()["last_day"]
    assert (day["requests"], day["errors"]) == (5, statuses.count(429))
    assert day["p50_ms"] > 0, "refusals are no answers"
    with db.transaction() as session:
        refusals = session.query(DeploymentCall).filter_by(deployment_id=created["id"], failure="deployment_limit")
        assert refusals.count() < 3, "those of a minute share a row"


def test_what_is_deployed_cannot_be_deleted(api: TestClient, checkpoint: StoredCheckpoint, alice_user: Person) -> None:
    created = deploy(api, checkpoint.id)
    with (
        db.transaction() as session,
        pytest.raises(PanelError, match="The deployment “helpdesk” serves this") as refused,
    ):
        checkpoints.refuse_in_use(session, [checkpoint.id], alice_user.id)

    assert refused.value.status == 409
    assert "deployed" in api.get(f"/api/v1/checkpoints/{checkpoint.id}").json()["kept"]
    api.delete(f"/api/v1/deployments/{created['id']}")


@pytest.mark.parametrize(
    ("fields", "status", "problem"),
    [
        ({"name": " "}, 422, "name_missing"),
        ({"name": "x" * 65}, 422, "name_too_long"),
        ({"model": "nothing"}, 404, "not_found"),
        ({"nodes": ["no such node"]}, 422, "node_unknown"),
        ({"access": "users", "users": ["Nobody"]}, 422, "user_unknown"),
        ({"num_replicas": 0}, 422, "request_invalid"),
        ({"requests_per_minute": 0}, 422, "request_invalid"),
    ],
)
def test_wrong_settings_are_refused(
    api: TestClient, checkpoint: StoredCheckpoint, fields: dict[str, Any], status: int, problem: str
) -> None:
    answer = api.post("/api/v1/deployments", json={"name": "helpdesk", "model": checkpoint.id, **fields})

    assert (answer.status_code, answer.json()["type"].rpartition("/")[2].rpartition("#")[2]) == (status, problem)


def test_a_name_is_taken_once_in_upper_or_lower_case(api: TestClient, checkpoint: StoredCheckpoint) -> None:
    deploy(api, checkpoint.id)

    answer = api.post("/api/v1/deployments", json={"name": "HELPDESK", "model": checkpoint.id})
    assert answer.status_code == 409
    assert "Another deployment is called “HELPDESK”" in answer.json()["title"]


def test_a_deployment_cannot_take_the_place_of_a_model_of_another_user(
    api: TestClient,
    bob_api: TestClient,
    bob_user: Person,
    alice_user: Person,
    checkpoint: StoredCheckpoint,
    store_checkpoint: StoreCheckpoint,
) -> None:
    body = {"model": store_checkpoint(bob_user).id, "access": "everyone"}
    answer = bob_api.post("/api/v1/deployments", json={**body, "name": checkpoint.id.upper()})
    assert (answer.status_code, answer.json()["code"]) == (409, "deployment_name_reserved")
    assert answer.json()["title"].endswith("is the ID of a checkpoint or base model. Choose another name.")

    name = f"ft:tiny:org-local:mine:{checkpoint.path.parents[1].name}"
    assert bob_api.post("/api/v1/deployments", json={**body, "name": name}).status_code == 201
    with db.transaction() as session:
        model = models.resolve(session, principal=alice_user.principal, name=name)
    assert not model.is_deployment


def test_a_failed_call_is_counted_as_one(api: TestClient, checkpoint: StoredCheckpoint) -> None:
    created = deploy(api, checkpoint.id)
    answer = api.post("/api/v1/generate", json={"checkpoint": "helpdesk", **BODY, "prompt": "And God said " * 100})

    assert answer.status_code == 422
    with db.transaction() as session:
        assert [row.failure for row in session.query(DeploymentCall).filter_by(deployment_id=created["id"])] == [
            "prompt_too_long"
        ]


def test_many_deployments_are_listed_with_as_many_statements_as_one(
    api: TestClient, checkpoint: StoredCheckpoint, alice_user: Person, bob_user: Person
) -> None:
    numbers: list[int] = []
    for first, last in ((0, 1), (1, 10)):
        for n in range(first, last):
            own = {"nodes": [settings().node_name], "access": "users", "users": ["Bob"]}
            created = deploy(api, checkpoint.id, name=f"desk {n}", **own)
            with db.transaction() as session:
                row = session.get_one(Deployment, created["id"])
                row.nodes = [settings().node_name, f"gone {n}"]
                session.add(Replica(deployment_id=row.id, node=settings().node_name, path=row.path, state="ready"))
                one = {"deployment_id": row.id, "user_id": bob_user.id, "milliseconds": 1}
                session.add_all(DeploymentCall(**one) for _ in range(n))
        with statements.record() as queries:
            listed = api.get("/api/v1/deployments").json()["data"]
        numbers.append(len(queries))
    assert numbers[0] == numbers[1]
    assert [row["name"] for row in listed] == [f"desk {n}" for n in reversed(range(10))]
    for n, row in enumerate(reversed(listed)):
        assert (row["removed_nodes"], row["users"], row["state"]) == ([f"gone {n}"], ["Bob"], "ready")
        assert (row["last_day"]["requests"], len(row["replicas"])) == (n, 1)
        assert api.get(f"/api/v1/deployments/{row['id']}").json() == row


def test_nodes_share_deployments_evenly_and_replace_one_that_dies() -> None:
    live = [f"node-{number}" for number in range(5)]
    homes = {f"deployment-{number}": replicas.hosts(f"deployment-{number}", [], live, 1) for number in range(500)}

    for node in live:
        assert 60 <= sum(home == [node] for home in homes.values()) <= 140
    for name, home in homes.items():
        after = replicas.hosts(name, [], live[1:], 1)
        assert after == home or home == [live[0]], "only what the dead node had moves"
    assert replicas.hosts("x", ["node-2"], live, 3) == ["node-2"]
    assert replicas.hosts("x", ["away"], live, 3) == []

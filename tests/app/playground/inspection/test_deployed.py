"""Deployments of encoders and classifiers: kept in memory, and looked into and embedded with by their name."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core import db
from app.core.deployment_models import Deployment
from tests.app.playground.inspection.conftest import Families
from tests.app.playground.test_deployments import wait_until_ready
from worker.inference.deployed_models import DeployedModels
from worker.runtime import current_worker

CALLS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "masked": [
        ("tokenize", {"text": "The cat"}),
        ("score", {"text": "The cat"}),
        ("attention", {"text": "The cat"}),
        ("neighbors", {"text": "The cat"}),
        ("fill-mask", {"text": "The [MASK]"}),
        ("embed", {"texts": ["The cat", "a dog"]}),
    ],
    "classification": [("classify", {"text": "The cat"}), ("embed", {"texts": ["The cat"]})],
}


@pytest.mark.parametrize("objective", CALLS)
def test_a_model_that_writes_no_text_is_kept_and_called_by_its_name(
    api: TestClient, alice: TestClient, bob_api: TestClient, families: Families, objective: str
) -> None:
    model, name = families("bert", objective), f"the deployment of a model of the kind {objective}"
    assert f'<option value="{model.id}"' in alice.get("/deployments").text
    created = api.post("/api/v1/deployments", json={"name": name, "model": model.id}).json()
    deployed_models = DeployedModels(current_worker().inference)
    try:
        wait_until_ready(api, deployed_models, created["id"])
        for task, fields in CALLS[objective]:
            direct = api.post(f"/api/v1/inspect/{task}", json={"checkpoint": model.id, **fields})
            answer = api.post(f"/api/v1/inspect/{task}", json={"checkpoint": name, **fields})
            assert (answer.status_code, answer.json()) == (200, direct.json()), task
            refused = bob_api.post(f"/api/v1/inspect/{task}", json={"checkpoint": name, **fields})
            assert refused.status_code == 404
        vectors = api.post("/v1/embeddings", json={"model": name, "input": "The cat"}).json()
        mute = api.post("/api/v1/generate", json={"checkpoint": name, "prompt": "In"})
        day = api.get(f"/api/v1/deployments/{created['id']}").json()["last_day"]
        led = alice.get(f"/playground?checkpoint={created['id']}", follow_redirects=False).headers["Location"]
        page = alice.get(led).text
    finally:
        with db.transaction() as session:
            session.delete(session.get_one(Deployment, created["id"]))
        deployed_models.update()

    assert (mute.status_code, mute.json()["code"]) == (422, "checkpoint_mute")
    assert vectors["usage"]["prompt_tokens"] > 0
    assert (day["requests"], day["errors"]) == (len(CALLS[objective]) + 1, 0)
    assert day["prompt_tokens"] > vectors["usage"]["prompt_tokens"]
    assert f'<option value="{created["id"]}"' in page

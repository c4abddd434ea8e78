"""The pages of base models."""

import html
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.background_tasks import outcomes
from app.base_models import problems
from app.core import db
from app.core.json_shapes import Problem, TaskProgress
from app.core.settings import settings
from tests.app.base_models.conftest import Import, put
from tests.background import claim, forget_waiting

Folder = Callable[[str], Path]
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def online(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


@pytest.mark.parametrize("path", ["/models", "/models/x"])
def test_a_visitor_is_redirected_to_the_login(visitor: TestClient, path: str) -> None:
    answer = visitor.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={path}")


def test_an_empty_list_explains_itself_and_why_no_hub_is_offered(bob: TestClient) -> None:
    text = html.unescape(bob.get("/models").text)
    assert "No base models yet" in text
    assert "Downloads from the hub are turned off" in text
    assert 'name="reference"' not in text


def test_a_model_is_requested_from_the_mirror_by_a_form(online: None, bob: TestClient) -> None:
    assert "owner/name@revision, from https://mirror.example" in bob.get("/models").text
    forget_waiting()
    refused = bob.post("/models", data={"reference": "https://x/y"})
    assert (refused.status_code, "Hub models are named owner/name" in refused.text) == (422, True)
    answer = bob.post("/models", data={"reference": "owner/tiny"})
    model_id = answer.headers["location"].removeprefix("/models/")
    assert answer.status_code == 303
    text = bob.get(f"/models/{model_id}").text
    assert ">tiny</h1>" in text
    assert "data-busy" in text
    claim(TaskProgress(phase="fetch", done=1, total=4))
    part = bob.get(f"/models/{model_id}?part=state").text
    assert 'value="1" max="4"' in part
    assert "Downloading tiny" in part
    assert "data-busy" in bob.get("/models?part=list").text
    bob.post(f"/api/v1/tasks/{bob.get('/api/v1/models/' + model_id).json()['task_id']}/cancel")
    assert "The import was cancelled." in bob.get(f"/models/{model_id}").text


def test_a_ready_model_shows_its_facts_and_links_to_fine_tuning(
    alice: TestClient, folder: Folder, imported: Import
) -> None:
    model = imported(alice, folder("bert"), name=EVIL)
    text = alice.get(f"/models/{model['id']}").text
    assert EVIL not in text
    assert f'href="/jobs/new?base_model={model["id"]}"' in text
    for shown in ("bert", "apache-2.0", "model.safetensors", model["sha256"][:16], "28.2 k"):
        assert shown in text
    assert "The model has no language-modeling head" in html.unescape(text)
    assert "data-busy" not in text
    row = alice.get("/models?part=list").text
    assert "28.2 k" in row


def test_a_failed_model_shows_the_reason_and_can_be_retried(alice: TestClient, folder: Folder) -> None:
    forget_waiting()
    model_id = alice.post("/api/v1/models", json={"name": "half"}).json()["id"]
    put(alice, model_id, folder("bert") / "config.json")
    assert "config.json" in alice.get(f"/models/{model_id}").text
    assert alice.post(f"/models/{model_id}/import").status_code == 303
    task = claim()
    assert task is not None
    with db.transaction() as session:
        outcomes.record_end(session, task=task, report={"failed": {"problems": [{"code": "weights_missing"}]}})
    text = alice.get(f"/models/{model_id}").text
    assert "There is no .safetensors file." in text
    assert "Try again" in text
    assert (
        alice.get(f"/models/{model_id}", headers={"Accept-Language": "zh-CN"}).text.count("没有 .safetensors 文件") == 1
    )
    assert alice.post(f"/models/{model_id}/import").status_code == 303
    refused = alice.post(f"/models/{model_id}/import")
    assert (refused.status_code, "This model is being imported already." in refused.text) == (409, True)


def test_deleting_returns_to_the_list(alice: TestClient, bob: TestClient) -> None:
    model_id = alice.post("/api/v1/models", json={"name": "gone"}).json()["id"]
    assert bob.post(f"/models/{model_id}/delete").status_code == 404
    answer = alice.post(f"/models/{model_id}/delete")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/models?trashed={model_id}")
    assert alice.get(f"/models/{model_id}").status_code == 404


def test_a_remark_has_the_form_of_its_count() -> None:
    one = Problem.model_validate({"code": "tensors_unused", "count": 1, "tensor": "pooler.bias"})
    two = Problem.model_validate({"code": "tensors_unused", "count": 2, "tensor": "pooler.bias"})
    assert problems.sentence(one) == "1 tensor is not used: pooler.bias."
    assert problems.sentence(two) == "2 tensors are not used, for example pooler.bias."

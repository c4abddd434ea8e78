"""The API of base models: from the files to a model that is ready, and who may what."""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from app.base_models import service
from app.core import db, queue, storage
from app.core.models import ImportedModel, Job
from app.core.settings import settings
from tests import folders, users
from tests.app.base_models.conftest import Import, put
from tests.background import run_waiting
from tests.users import Person
from trainer.spec import resolve

Folder = Callable[[str], Path]
ROUTES = [
    ("POST", "/api/v1/models", "submit"),
    ("PUT", "/api/v1/models/{id}/files/config.json", "submit"),
    ("POST", "/api/v1/models/{id}/import", "submit"),
    ("GET", "/api/v1/models", "read"),
    ("GET", "/api/v1/models/{id}", "read"),
    ("DELETE", "/api/v1/models/{id}", "submit"),
]


def created(client: TestClient, **body: str) -> str:
    answer = client.post("/api/v1/models", json={"name": "tiny", **body})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.fixture
def online(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


def test_a_folder_becomes_a_ready_model(alice: TestClient, folder: Folder, imported: Import) -> None:
    model = imported(alice, folder("llama"), name="Tiny Llama")
    assert (model["state"], model["name"], model["source"], model["reference"]) == (
        "ready",
        "Tiny Llama",
        "upload",
        None,
    )
    assert (model["facts"]["model_type"], model["facts"]["num_parameters"]) == ("llama", 34_720)
    assert model["num_bytes"] == sum(file["size"] for file in model["files"])
    assert (model["problems"], model["progress"]) == ([], None)
    assert alice.get("/api/v1/models").json()["data"][0] == model


def test_an_archive_becomes_a_ready_model(alice: TestClient, folder: Folder, imported: Import, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tiny.zip", "w") as archive:
        for path in folder("qwen2").iterdir():
            archive.write(path, f"tiny/{path.name}")
    model = imported(alice, tmp_path)
    assert (model["state"], model["facts"]["model_type"]) == ("ready", "qwen2")
    assert not (storage.base_model(model["id"]) / "archive.zip").exists()


def test_errors_name_the_place_and_can_be_fixed(
    alice: TestClient, folder: Folder, imported: Import, tmp_path: Path
) -> None:
    directory = tmp_path / "llama"
    shutil.copytree(folder("llama"), directory)
    folders.change(directory, num_hidden_layers=3)
    model = imported(alice, directory)
    assert model["state"] == "failed"
    assert model["problems"][0] == {
        "code": "tensor_missing",
        "message": "The tensor model.layers.2.input_layernorm.weight is missing; llama requires it.",
        "file": None,
        "tensor": "model.layers.2.input_layernorm.weight",
        "byte": None,
    }
    assert put(alice, model["id"], folder("llama") / "config.json").json()["state"] == "uploading"
    alice.post(f"/api/v1/models/{model['id']}/import")
    run_waiting()
    again = alice.get(f"/api/v1/models/{model['id']}").json()
    assert (again["state"], again["problems"]) == ("ready", [])


def test_a_crashed_child_fails_the_model_with_a_reason(
    alice: TestClient, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "worker.background.model_import.validation_command", lambda model_id: ["sh", "-c", "kill -9 $$"]
    )
    model_id = created(alice)
    put(alice, model_id, folder("llama") / "config.json")
    alice.post(f"/api/v1/models/{model_id}/import")
    run_waiting()
    model = alice.get(f"/api/v1/models/{model_id}").json()
    assert (model["state"], model["problems"][0]["message"]) == (
        "failed",
        "The import took too long or was stopped. Start it again.",
    )


@pytest.mark.parametrize(
    "closing",
    [{"result": {"facts": "none"}}, {"failed": {"problems": [{"code": "archive_broken", "why": "a\0b"}]}}, {"odd": 1}],
)
def test_a_result_that_cannot_be_stored_fails_the_model_with_a_reason(
    alice: TestClient, folder: Folder, monkeypatch: pytest.MonkeyPatch, closing: dict[str, Any]
) -> None:
    report = ["printf", "%s\\n", json.dumps(closing)]
    monkeypatch.setattr("worker.background.model_import.validation_command", lambda model_id: report)
    model_id = created(alice)
    put(alice, model_id, folder("llama") / "config.json")
    alice.post(f"/api/v1/models/{model_id}/import")
    run_waiting()
    model = alice.get(f"/api/v1/models/{model_id}").json()
    assert (model["state"], model["problems"][0]["code"]) == ("failed", "result_unstorable")


def test_the_child_process_gets_no_secrets(alice: TestClient, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(
        "worker.background.model_import.validation_command", lambda model_id: ["sh", "-c", f"env > {seen}"]
    )
    model_id = created(alice)
    seen = storage.base_model(model_id) / "environment"
    put(alice, model_id, folder("llama") / "config.json")
    alice.post(f"/api/v1/models/{model_id}/import")
    run_waiting()
    told = seen.read_text()
    assert "HF_HUB_OFFLINE=1" in told
    assert not any(word in told for word in ("hf_secret", "DATABASE_URL", "REDIS_URL", "ATHANOR"))


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling_tiny.py", "model.pt", "weights.PKL", "m.ckpt"])
def test_pickle_and_code_are_rejected_by_file_name(alice: TestClient, name: str) -> None:
    answer = alice.put(f"/api/v1/models/{created(alice)}/files/{name}", content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (422, "file_unsafe")
    assert answer.json()["title"].startswith(f"“{name}” is not accepted")


@pytest.mark.parametrize(
    "name", ["notes.txt", ".lock", "config.json.bak", "..%2Fconfig.json", "%00.safetensors", "é.safetensors"]
)
def test_other_files_are_rejected_and_nothing_is_written(alice: TestClient, name: str) -> None:
    model_id = created(alice)
    assert alice.put(f"/api/v1/models/{model_id}/files/{name}", content=b"x").status_code in (400, 404, 422)
    assert not storage.base_model(model_id).exists()


def test_all_files_share_one_limit(alice: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATHANOR_MAX_MODEL_BYTES", "3000000")
    settings.cache_clear()
    model_id = created(alice)
    path = f"/api/v1/models/{model_id}/files"
    assert alice.put(f"{path}/a.safetensors", content=b"x" * 2_000_000).status_code == 200
    answer = alice.put(f"{path}/b.safetensors", content=b"x" * 2_000_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "model_too_large")
    streamed = alice.put(f"{path}/b.safetensors", content=iter([b"x" * 1_000_000] * 2))
    assert streamed.status_code == 413
    assert alice.put(f"{path}/a.safetensors", content=b"x" * 2_900_000).status_code == 200  # in its own place
    assert {item.name for item in storage.base_model(model_id).iterdir()} == {"a.safetensors"}
    monkeypatch.undo()
    settings.cache_clear()


def test_a_model_under_validation_accepts_no_files(alice: TestClient, folder: Folder, imported: Import) -> None:
    model_id = created(alice)
    config = folder("llama") / "config.json"
    assert alice.post(f"/api/v1/models/{model_id}/import").json()["code"] == "model_empty"
    put(alice, model_id, config)
    alice.post(f"/api/v1/models/{model_id}/import")
    assert put(alice, model_id, config).json()["code"] == "model_closed"
    assert alice.post(f"/api/v1/models/{model_id}/import").json()["code"] == "model_importing"
    ready = imported(alice, folder("llama"))
    assert put(alice, ready["id"], config).status_code == 409
    assert alice.post(f"/api/v1/models/{ready['id']}/import").json()["code"] == "model_ready"


# ---- the hub --------------------------------------------------------------------------------------------------------


def test_without_a_hub_the_error_names_the_alternative(alice: TestClient) -> None:
    answer = alice.post("/api/v1/models", json={"reference": "owner/name"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (409, "reference")
    assert "Upload the model's files instead." in answer.json()["title"]


@pytest.mark.parametrize("reference", ["name", "a/b/c", "../x", "https://hub/a/b", "a/b@", "a/b c", "a/" + "b" * 300])
def test_a_hub_reference_is_a_name_and_not_a_url(online: None, alice: TestClient, reference: str) -> None:
    answer = alice.post("/api/v1/models", json={"reference": reference})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "reference")


def test_a_model_of_the_hub_is_imported_at_once(
    online: None, alice: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[Any, ...]] = []
    monkeypatch.setattr(queue, "send", lambda task, *args, queue: sent.append((task, *args, queue)))
    model = alice.post("/api/v1/models", json={"reference": "owner/tiny@main"}).json()
    assert (model["state"], model["name"], model["reference"]) == ("importing", "tiny", "owner/tiny@main")
    assert (queue.RUN_BACKGROUND_TASKS, queue.BACKGROUND_QUEUE) in sent
    assert alice.put(f"/api/v1/models/{model['id']}/files/config.json", content=b"{}").status_code == 409


# ---- whose --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_every_route_requires_authentication(
    visitor: TestClient, web: TestClient, alice_user: Person, method: str, path: str, scope: str
) -> None:
    path = path.format(id="x")
    body = {"json": {"name": "x"}} if method == "POST" and path.endswith("models") else {}
    assert visitor.request(method, path, **body).status_code == 401
    token = alice_user.token("read" if scope == "submit" else "submit")
    assert users.client(web, token=token).request(method, path, **body).status_code == 403


def test_the_model_of_another_user_is_not_found(alice: TestClient, bob: TestClient) -> None:
    model_id = created(alice)
    assert bob.get("/api/v1/models").json()["data"] == []
    for method, path, _scope in ROUTES[1:3] + ROUTES[4:]:
        assert bob.request(method, path.format(id=model_id), content=b"{}").status_code == 404
    assert alice.get(f"/api/v1/models/{model_id}").status_code == 200


def test_a_deleted_model_keeps_its_files_in_the_trash(alice: TestClient, folder: Folder) -> None:
    model_id = created(alice)
    put(alice, model_id, folder("llama") / "config.json")
    assert alice.delete(f"/api/v1/models/{model_id}").status_code == 204
    assert alice.get(f"/api/v1/models/{model_id}").status_code == 404
    assert storage.base_model(model_id).exists()


def test_a_model_used_by_a_job_cannot_be_deleted(alice: TestClient, alice_user: Person) -> None:
    model_id = created(alice)
    values: dict[str, Any] = {"name": "fine", "recipe": "chat", "spec_sha256": "", "body_sha256": "", "max_steps": 1}
    with db.transaction() as session:
        job = Job(
            owner_id=alice_user.id,
            spec=resolve({"recipe": "chat", "corpora": ["any"], "base_model": model_id}),
            **values,
        )
        session.add(job)
    answer = alice.delete(f"/api/v1/models/{model_id}")
    assert (answer.status_code, answer.json()["code"]) == (409, "model_in_use")
    assert "“fine”" in answer.json()["title"]
    with db.transaction() as session:
        session.execute(update(Job).where(Job.id == job.id).values(state="cancelled"))
    assert alice.delete(f"/api/v1/models/{model_id}").status_code == 204
    with db.transaction() as session:
        session.delete(session.get_one(Job, job.id))


def test_an_abandoned_upload_is_removed(alice: TestClient, folder: Folder, imported: Import) -> None:
    model_id, ready = created(alice), imported(alice, folder("llama"))["id"]
    with db.transaction() as session:
        assert service.forget_unfinished(session) == []
        aged = ImportedModel.created_at - 2 * service.UPLOAD_LIFETIME
        session.execute(update(ImportedModel).where(ImportedModel.id.in_([model_id, ready])).values(created_at=aged))
    with db.transaction() as session:
        assert service.forget_unfinished(session) == [model_id]
    assert alice.get(f"/api/v1/models/{ready}").status_code == 200

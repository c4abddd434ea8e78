"""Base models of a hub: the real client against a hub on the loopback."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.base_models import service
from app.core import db, storage
from app.core.models import BackgroundTask, ImportedModel
from app.core.settings import settings
from tests import folders, hub
from tests.background import run_waiting
from tests.hub import COMMIT, ModelHub
from tests.users import Person
from worker.background import model_import
from worker.background.lease import Lease
from worker.sandbox.model_import import validate


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelHub]:
    tiny = folders.saved(tmp_path_factory.mktemp("tiny"))
    for name in (
        "pytorch_model.bin",
        "modeling_tiny.py",
        "consolidated.safetensors",
        "onnx/model.onnx",
        "onnx/config.json",
    ):
        (tiny / name).parent.mkdir(exist_ok=True)
        (tiny / name).write_bytes(b"x" * 100)
    pickled = tmp_path_factory.mktemp("pickled")
    shutil.copy(tiny / "config.json", pickled)
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    with hub.serving({"alice/tiny": tiny, "alice/pickled": pickled, "alice/gated": tiny}) as running:
        running.gated.add("alice/gated")
        yield running


@pytest.fixture
def online(database: str, served: ModelHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    settings.cache_clear()
    served.requests.clear()
    yield served
    monkeypatch.undo()
    settings.cache_clear()


def created(owner: Person, reference: str) -> ImportedModel:
    with db.transaction() as session:
        return service.create(session, principal=owner.principal, name="", reference=reference)


def fetched(owner: Person, reference: str, **env: str) -> tuple[str, dict[str, Any]]:
    """What the child reports at last, as the worker starts it."""
    model = created(owner, reference)
    storage.base_model(model.id).mkdir(parents=True)
    command = model_import.download_command(model)
    environment = {**model_import.download_environment(model.id), **env}
    assert "hf_secret" not in " ".join(command)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "hf_secret" not in done.stdout + done.stderr
    return model.id, json.loads(done.stdout.splitlines()[-1])


def test_a_model_of_a_mirror_is_downloaded_and_validated(
    online: ModelHub, alice_user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = created(alice_user, "alice/tiny@v1")
    run = model_import.run_child

    def in_process(task: BackgroundTask, lease: Lease, phase: str, command: list[str], *rest: Any) -> Any:
        if phase == "fetch":
            return run(task, lease, phase, command, *rest)
        return validate.report_result(Path(command[3]), 1 << 30, 1 << 40)

    monkeypatch.setattr(model_import, "run_child", in_process)
    run_waiting()
    with db.transaction() as session:
        model = session.get_one(ImportedModel, model.id)
    assert (model.state, model.reference, model.problems) == ("ready", f"alice/tiny@{COMMIT}", [])
    assert model.facts.model_type == "llama"
    lying = {path.name for path in storage.base_model(model.id).iterdir()} - {".lock"}
    assert lying == {file.name for file in model.files}
    assert "model.safetensors" in lying
    assert not lying & {"pytorch_model.bin", "modeling_tiny.py", "consolidated.safetensors", "onnx", ".cache"}
    assert all(token == "Bearer hf_secret" for _method, _path, token in online.requests)
    assert not any("onnx" in path or path.endswith((".bin", ".py")) for path in online.paths())


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("alice/nothing", "hub_unknown"),
        ("alice/tiny@v9", "hub_revision"),
        ("alice/pickled", "weights_missing"),
    ],
)
def test_a_model_missing_on_the_hub_is_reported(
    online: ModelHub, alice_user: Person, reference: str, code: str
) -> None:
    _id, closing = fetched(alice_user, reference)
    assert closing["failed"]["problems"][0]["code"] == code


def test_a_gated_model_needs_a_token(online: ModelHub, alice_user: Person) -> None:
    model_id, closing = fetched(alice_user, "alice/gated", HF_TOKEN="")
    assert closing == {"failed": {"problems": [{"code": "hub_gated", "reference": "alice/gated"}]}}
    assert not list(storage.base_model(model_id).glob("*.safetensors"))


def test_an_unreachable_hub_is_reported_by_name(online: ModelHub, alice_user: Person) -> None:
    _id, closing = fetched(alice_user, "alice/tiny", HF_ENDPOINT="http://127.0.0.1:9")
    (problem,) = closing["failed"]["problems"]
    assert (problem["code"], problem["endpoint"]) == ("hub_away", "http://127.0.0.1:9")


def test_a_model_over_the_size_limit_is_rejected_before_downloading(
    online: ModelHub, alice_user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATHANOR_MAX_MODEL_BYTES", "1000")
    settings.cache_clear()
    _id, closing = fetched(alice_user, "alice/tiny")
    (problem,) = closing["failed"]["problems"]
    assert (problem["code"], problem["limit"]) == ("too_large", 1000)
    assert not any("resolve" in path for path in online.paths())

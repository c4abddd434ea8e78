"""What tests of base models share: upload a folder through the API and have the worker's task import it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.base_models import names
from app.core.models import BackgroundTask
from tests import folders
from tests.background import forget_waiting, run_waiting
from worker.background import model_import
from worker.background.lease import Lease
from worker.sandbox.model_import import validate

Import = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A saved model of a family, made once."""
    made: dict[str, Path] = {}

    def saved(kind: str = "llama") -> Path:
        if kind not in made:
            made[kind] = folders.saved(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return saved


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check without a child: torch is imported here already."""

    def run(task: BackgroundTask, lease: Lease, phase: str, command: list[str], *_rest: object) -> dict[str, Any]:
        assert phase == "check"
        return validate.report_result(Path(command[3]), int(command[4].partition("=")[2]), 1 << 40)

    monkeypatch.setattr(model_import, "run_child", run)


def put(client: TestClient, model_id: str, path: Path) -> Any:
    """Send one file."""
    return client.put(f"/api/v1/models/{model_id}/files/{path.name}", content=path.read_bytes())


@pytest.fixture
def imported(in_process: None) -> Import:
    """Upload a folder, import it as the worker does, and answer the model."""

    def work(client: TestClient, directory: Path, name: str = "tiny") -> dict[str, Any]:
        forget_waiting()
        created = client.post("/api/v1/models", json={"name": name})
        assert created.status_code == 201, created.text
        model_id = created.json()["id"]
        for path in sorted(directory.iterdir()):
            if names.is_known(path.name) or names.is_archive(path.name):
                answer = put(client, model_id, path)
                assert answer.status_code == 200, answer.text
        assert client.post(f"/api/v1/models/{model_id}/import").status_code == 202
        run_waiting()
        model: dict[str, Any] = client.get(f"/api/v1/models/{model_id}").json()
        return model

    return work

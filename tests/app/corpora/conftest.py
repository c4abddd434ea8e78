"""What tests of corpora share: upload, have the worker's task parse it, look."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.background import run_waiting

Upload = Callable[..., dict[str, Any]]


@pytest.fixture
def upload() -> Upload:
    """Upload through the API, parse as the worker does, and answer the corpus."""

    def work(client: TestClient, content: bytes, filename: str = "text.txt", **more: str) -> dict[str, Any]:
        answer = client.post("/api/v1/corpora", params={"filename": filename, **more}, content=content)
        assert answer.status_code == 201, answer.text
        run_waiting()
        corpus: dict[str, Any] = client.get(f"/api/v1/corpora/{answer.json()['id']}").json()
        return corpus

    return work

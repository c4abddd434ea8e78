"""What tests of synthetic data share: a model endpoint that answers as they say, and corpora of a few documents."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.core.settings import settings
from app.core.synthetic_shapes import RecordSettings
from tests import users
from tests.app.synthetic import teacher as teachers
from tests.app.synthetic.teacher import Teacher
from tests.background import forget_waiting, run_waiting
from tests.users import Person

KEY = "sk-of-the-tests-1234"
Generate = Callable[..., dict[str, Any]]


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch, database: str) -> Iterator[Teacher]:
    """A running endpoint, at a host that the operator allows."""
    monkeypatch.setenv("ATHANOR_ENDPOINT_HOSTS", "127.0.0.1")
    settings.cache_clear()
    forget_waiting()
    with teachers.running() as server:
        yield server
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def endpoint(teacher: Teacher, alice: TestClient) -> Iterator[str]:
    """The ID of Alice's endpoint at the teacher: a million tokens cost 1 of prompts, 2 of answers."""
    body = {"name": "teacher", "base_url": teacher.url, "model": "large", "api_key": KEY}
    answer = alice.post("/api/v1/model-endpoints", json={**body, "input_price": 1, "output_price": 2})
    assert answer.status_code == 201, answer.text
    endpoint_id = str(answer.json()["id"])
    yield endpoint_id
    alice.delete(f"/api/v1/model-endpoints/{endpoint_id}")  # their number is limited


@pytest.fixture(scope="module")
def corpus(web: TestClient, alice_user: Person) -> dict[str, Any]:
    """Alice's corpus of six documents."""
    return upload_corpus(users.client(web, cookie=alice_user.cookie()))


def upload_corpus(alice: TestClient) -> dict[str, Any]:
    """A corpus of six documents, parsed."""
    lines = "".join(f'{{"text": "Document {n} is about metal number {n}."}}\n' for n in range(6))
    answer = alice.post("/api/v1/corpora", params={"filename": "metals.jsonl"}, content=lines.encode())
    run_waiting()
    parsed: dict[str, Any] = alice.get(f"/api/v1/corpora/{answer.json()['id']}").json()
    return parsed


@pytest.fixture
def generate(alice: TestClient, corpus: dict[str, Any], endpoint: str) -> Generate:
    """Start a generation by the endpoint, run it as a worker does, and answer what became of it."""

    def work(**fields: Any) -> dict[str, Any]:
        body = {"corpus": corpus["id"], "endpoint": endpoint, "num_documents": 6, **fields}
        answer = alice.post("/api/v1/record-generations", json=body)
        assert answer.status_code == 201, answer.text
        run_waiting()
        return state(alice, answer.json()["id"])

    return work


def state(client: TestClient, generation_id: str) -> dict[str, Any]:
    """A generation now."""
    answer: dict[str, Any] = client.get(f"/api/v1/record-generations/{generation_id}").json()
    return answer


def records(client: TestClient, generation_id: str, **query: Any) -> list[dict[str, Any]]:
    """The records of a generation."""
    answer = client.get(f"/api/v1/record-generations/{generation_id}/records", params={"limit": 200, **query})
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


def record_settings(**changes: Any) -> RecordSettings:
    """How records are generated, with some settings replaced."""
    settings = RecordSettings(
        kind="question_answer",
        language="en",
        template="{document}",
        num_documents=2,
        max_characters=8000,
        seed=0,
        records_per_document=1,
        num_turns=2,
        temperature=0,
        max_tokens=80,
    )
    return settings.model_copy(update=changes)

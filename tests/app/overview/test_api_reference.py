"""The API reference shows the OpenAPI document, which describes every endpoint and every field of a spec."""

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.web import openapi
from tests.users import ORIGIN
from trainer.spec import TrainSpec


def test_the_reference_shows_the_openapi_document(alice: TestClient) -> None:
    assert 'data-module="api-reference" data-document="/api/openapi.json"' in alice.get("/api/docs").text


def test_every_endpoint_of_the_api_has_a_description(alice: TestClient) -> None:
    paths = alice.get("/api/openapi.json").json()["paths"]
    operations = {(path, method): operation for path, item in paths.items() for method, operation in item.items()}
    assert [place for place, operation in operations.items() if not operation.get("description")] == []


def test_every_field_of_a_spec_is_described(alice: TestClient) -> None:
    schema = alice.get("/api/openapi.json").json()["components"]["schemas"]["TrainSpec"]
    described = {name for name, field in schema["properties"].items() if field.get("description")}
    assert described == set(TrainSpec.model_fields)


def test_the_document_is_encoded_once(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, encoded = openapi.json_text, []
    monkeypatch.setattr(openapi, "json_text", lambda value: encoded.append(text := encode(value)) or text)
    with TestClient(create_app(), base_url=ORIGIN) as client:
        first, second = client.get("/api/openapi.json"), client.get("/api/openapi.json")
    assert first.json()["openapi"].startswith("3.")
    assert first.content == second.content
    assert len(encoded) == 1

"""A request that is repeated with its Idempotency-Key has no second effect."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, NoReturn

import psycopg
import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import func, select, update
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.testclient import TestClient

from app.core import db, idempotency
from app.core.installation_models import IdempotencyKey
from app.core.models import Corpus, ImportedModel
from app.web.idempotency import ApiRoute, takes_key
from tests import api_document

TEXT = b"In the beginning God created the heaven and the earth."


def headers() -> dict[str, str]:
    return {"Idempotency-Key": secrets.token_hex(8)}


def count(table: Any) -> int:
    with db.transaction() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_every_post_that_creates_or_begins_something_takes_a_key(web: TestClient) -> None:
    schema = web.get("/api/openapi.json").json()
    documented = {
        operation["operationId"]
        for method, _path, operation in api_document.operations(schema)
        if method == "POST" and {"201", "202"} & operation["responses"].keys()
    }
    routes = [context.original_route for context in iter_route_contexts(web.app.routes)]  # type: ignore[attr-defined]
    repeatable = {route.name for route in routes if isinstance(route, ApiRoute) and takes_key(route)}
    assert documented - repeatable == {"submit_job"}, "its keys are stored with the jobs"
    for _method, _path, operation in api_document.operations(schema):
        if operation["operationId"] in documented:
            names = {parameter["name"].lower() for parameter in operation["parameters"]}
            assert "idempotency-key" in names, operation["operationId"]


def test_the_same_request_with_the_same_key_gets_the_same_answer(alice_api: TestClient) -> None:
    key, before = headers(), count(ImportedModel)
    answers = [alice_api.post("/api/v1/models", json={"name": "mine"}, headers=key) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201] * 3
    assert answers[0].content == answers[1].content == answers[2].content
    assert count(ImportedModel) == before + 1


def test_another_request_with_a_used_key_is_a_conflict(alice_api: TestClient, bob_api: TestClient) -> None:
    key = headers()
    assert alice_api.post("/api/v1/models", json={"name": "one"}, headers=key).status_code == 201
    for path, body in (("/api/v1/models", {"name": "two"}), ("/api/v1/tokens", {"name": "one", "scopes": ["read"]})):
        answer = alice_api.post(path, json=body, headers=key)
        assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")
    assert bob_api.post("/api/v1/models", json={"name": "two"}, headers=key).status_code == 201


def test_an_upload_is_compared_by_its_bytes(alice_api: TestClient) -> None:
    key, before = headers(), count(Corpus)

    def upload(text: bytes, name: str = "a.txt") -> Any:
        pieces = (text[at : at + 10] for at in range(0, len(text), 10))
        return alice_api.post("/api/v1/corpora", params={"filename": name}, content=pieces, headers=key)

    first = upload(TEXT)
    assert (first.status_code, upload(TEXT).json()) == (201, first.json())
    for other in (upload(TEXT + b"!"), upload(TEXT, "b.txt")):
        assert other.json()["code"] == "idempotency_conflict"
    assert count(Corpus) == before + 1


def test_of_concurrent_twins_one_creates(alice_api: TestClient) -> None:
    key, before = headers(), count(ImportedModel)

    def create(_number: int) -> Any:
        return alice_api.post("/api/v1/models", json={"name": "twin"}, headers=key)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(create, range(8)))
    assert count(ImportedModel) == before + 1
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    for answer in answers:
        if answer.status_code != 201:
            assert (answer.json()["code"], answer.headers["Retry-After"]) == ("idempotency_in_progress", "1")


def test_a_refused_request_frees_its_key(alice_api: TestClient) -> None:
    key = headers()
    assert alice_api.post("/api/v1/models", json={"name": ""}, headers=key).status_code == 422
    assert alice_api.post("/api/v1/models", json={"nonsense": 1}, headers=key).status_code == 422
    assert alice_api.post("/api/v1/models", json={"name": "right"}, headers=key).status_code == 201


def test_a_request_that_a_lock_refused_can_be_repeated_with_its_key(
    alice_api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = headers()
    monkeypatch.setattr(db, "LOCK_SECONDS", 0.1)
    db.engine().dispose()
    with psycopg.connect(db.libpq_url()) as other:
        other.execute("LOCK TABLE base_model IN SHARE MODE")
        refused = alice_api.post("/api/v1/models", json={"name": "locked"}, headers=key)
    assert (refused.status_code, refused.json()["code"]) == (503, "busy")
    monkeypatch.undo()
    db.engine().dispose()
    assert alice_api.post("/api/v1/models", json={"name": "locked"}, headers=key).status_code == 201


def test_a_request_that_got_no_connection_to_the_database_can_be_repeated_with_its_key(
    alice_api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = headers()

    def exhausted(*arguments: object, **fields: object) -> NoReturn:
        raise PoolTimeout("QueuePool limit reached")  # what the pool raises, see tests/app/web/test_floods.py

    monkeypatch.setattr("app.base_models.service.create", exhausted)
    refused = alice_api.post("/api/v1/models", json={"name": "crowded"}, headers=key)
    assert (refused.status_code, refused.json()["code"]) == (503, "busy")
    monkeypatch.undo()
    assert alice_api.post("/api/v1/models", json={"name": "crowded"}, headers=key).status_code == 201


def test_a_secret_is_neither_stored_nor_answered_twice(alice_api: TestClient) -> None:
    key, body = headers(), {"name": "nightly", "scopes": ["read"]}
    secret = alice_api.post("/api/v1/tokens", json=body, headers=key).json()["token"]
    again = alice_api.post("/api/v1/tokens", json=body, headers=key)
    assert (again.status_code, again.json()["code"]) == (409, "answer_secret")
    with db.transaction() as session:
        rows = [repr(vars(row)) for row in session.scalars(select(IdempotencyKey))]
    assert [row for row in rows if secret in row or key["Idempotency-Key"] in row] == []


def test_the_schema_marks_each_secret_of_an_answer_so_that_it_is_not_stored(web: TestClient) -> None:
    schemas = web.get("/api/openapi.json").json()["components"]["schemas"]
    unmarked = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, described in schema.get("properties", {}).items()
        if name.endswith("Answer") and field in ("token", "link", "secret", "password")
        if described.get("format") != "password"
    ]
    assert unmarked == []


def test_what_is_stored_of_a_request_cannot_be_compared_without_its_key() -> None:
    requests = [idempotency.KeyedRequest("alice", key, "POST /api/v1/users?") for key in ("one", "two")]
    assert requests[0].fingerprint("0" * 64) != requests[1].fingerprint("0" * 64)


def test_an_interrupted_request_is_not_carried_out_again(alice_api: TestClient) -> None:
    key, before = headers(), count(ImportedModel)
    owner_id = alice_api.get("/api/v1/me").json()["id"]
    with db.transaction() as session:
        idempotency.reserve(session, idempotency.KeyedRequest(owner_id, key["Idempotency-Key"], ""))
    running = alice_api.post("/api/v1/models", json={"name": "lost"}, headers=key)
    assert (running.status_code, running.json()["code"]) == (409, "idempotency_in_progress")
    with db.transaction() as session:
        session.execute(update(IdempotencyKey).values(lease_until=func.now() - timedelta(seconds=1)))
    lost = alice_api.post("/api/v1/models", json={"name": "lost"}, headers=key)
    assert (lost.status_code, lost.json()["code"]) == (409, "idempotency_interrupted")
    assert count(ImportedModel) == before


def test_a_key_is_forgotten_after_a_day(alice_api: TestClient) -> None:
    key = headers()
    first = alice_api.post("/api/v1/models", json={"name": "old"}, headers=key).json()
    with db.transaction() as session:
        session.execute(update(IdempotencyKey).values(created_at=func.now() - idempotency.LIFETIME))
    with db.transaction() as session:
        idempotency.forget_expired(session)
    assert count(IdempotencyKey) == 0
    assert alice_api.post("/api/v1/models", json={"name": "old"}, headers=key).json()["id"] != first["id"]


def test_a_visitor_and_a_token_without_the_scope_are_refused_first(visitor: TestClient) -> None:
    answer = visitor.post("/api/v1/models", json={"name": "x"}, headers=headers())
    assert (answer.status_code, answer.json()["code"]) == (401, "not_logged_in")


def test_an_impossible_key_is_refused(alice_api: TestClient) -> None:
    for key in ("", "x" * 201):
        answer = alice_api.post("/api/v1/models", json={"name": "x"}, headers={"Idempotency-Key": key})
        assert (answer.status_code, answer.json()["code"]) == (422, "key_invalid")

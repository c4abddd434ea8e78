"""Bodies of requests are strict JSON, at every route that takes one."""

from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.core import db
from app.core.models import Job
from app.main import create_app
from app.web.json_body import MAX_VALUES

JSON = {"Content-Type": "application/json"}


def routes_with_json() -> list[tuple[str, str]]:
    """The method and address of every route of the API that takes a JSON body."""
    paths: dict[str, Any] = create_app().openapi()["paths"]
    return [
        (method, path.replace("{", "").replace("}", "").replace("_id", ""))
        for path, operations in paths.items()
        for method, operation in operations.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    ]


def test_a_number_that_is_not_finite_is_refused_at_every_route(alice_api: TestClient) -> None:
    routes = routes_with_json()
    assert len(routes) >= 10
    for method, path in routes:
        for word in ("1e400", "NaN", "-Infinity"):
            answer = alice_api.request(method, path, content=f'{{"name": {{"x": [{word}]}}}}', headers=JSON)
            assert answer.status_code == 422, (method, path, answer.text)
            assert f"The body is not JSON: {word} is not a finite number at character 16." in answer.text, path
    with db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0


@pytest.mark.parametrize(
    "body", [{f"k{n}": n for n in range(MAX_VALUES)}, {"corpora": [[1, 2]] * (MAX_VALUES // 2)}, {"a": [{}] * 80_000}]
)
def test_a_body_with_too_many_values_is_refused_before_each_is_checked(
    alice_api: TestClient, body: dict[str, Any]
) -> None:
    for path in ("jobs", "exports", "generate"):
        answer = alice_api.post(f"/api/v1/{path}", json={"name": "a", **body})
        assert (answer.status_code, answer.json()["title"]) == (422, "The body has more than 5000 values. Send fewer.")
    most = {f"k{n}": 'a, "[{ \\' for n in range(MAX_VALUES)}
    answer = alice_api.post("/api/v1/exports", json=most)
    assert answer.json()["code"] == "request_invalid"


@pytest.mark.parametrize("body", [b"[1," * MAX_VALUES, b'"",' * MAX_VALUES * 3, b'"a' * MAX_VALUES * 3 + b"," * 6000])
def test_too_many_values_are_refused_before_they_are_parsed(alice_api: TestClient, body: bytes) -> None:
    answer = alice_api.post("/api/v1/jobs/plan", content=body, headers=JSON)
    assert answer.json()["title"] == "The body has more than 5000 values. Send fewer.", answer.text


@pytest.mark.parametrize("body", [b'{"name": "a", "name": "b"}', b"{", b"[" * 100_000, b"9" * 5000, b"\xff\xfe\xff"])
def test_a_body_that_is_not_strict_json_is_a_fault_of_the_request(alice_api: TestClient, body: bytes) -> None:
    answer = alice_api.post("/api/v1/jobs/plan", content=body, headers=JSON)
    assert answer.status_code in (400, 422), answer.text

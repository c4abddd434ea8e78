"""What holds for every operation of the API: names, scopes, errors, methods, and announced deprecations."""

import re
from collections import Counter
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.web.deprecations import DEPRECATED
from app.web.openapi import MEDIA_TYPE
from app.web.problem_types import PROBLEM_TYPES
from tests import api_document, users
from tests.app.jobs import factories
from tests.users import Person

UNKNOWN_ID = "0000000000000000"
TUS = {"Tus-Resumable": "1.0.0"}  # without which uploads answer nothing else
PUBLIC = {
    f"/api/v1/{name}" for name in ("setup", "login", "logout", "password-reset", "invitations/accept", "nodes/join")
}


@pytest.fixture(scope="module")
def schema(web: TestClient) -> dict[str, Any]:
    document: dict[str, Any] = web.get("/api/openapi.json").json()
    return document


def filled(path: str) -> str:
    """A path with IDs that do not exist."""
    return re.sub(r"\{\w+\}", UNKNOWN_ID, path)


def test_operations_have_readable_names_of_their_own(schema: dict[str, Any]) -> None:
    names = Counter(operation["operationId"] for _method, _path, operation in api_document.operations(schema))
    assert [name for name, times in names.items() if times > 1 or not re.fullmatch("[a-z]+(_[a-z]+)*", name)] == []


def test_an_operation_names_its_scope_for_tokens_and_for_sessions(schema: dict[str, Any]) -> None:
    schemes = schema["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey"}
    for method, path, operation in api_document.operations(schema):
        if path.startswith("/api/v1/") and path not in PUBLIC:
            scope = api_document.scope(operation)
            assert operation["security"] == [{name: [scope]} for name in schemes], f"{method} {path}"


def test_the_scope_of_an_operation_is_the_one_it_requires(
    web: TestClient, alice_user: Person, schema: dict[str, Any]
) -> None:
    reader = users.client(web, token=alice_user.token("read"))
    for method, path, operation in api_document.operations(schema):
        if api_document.scope(operation) not in (None, "read"):
            answer = reader.request(method, filled(path), headers=TUS)
            assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing"), f"{method} {path}"


def test_every_operation_lists_its_errors_in_the_one_form(schema: dict[str, Any]) -> None:
    for method, path, operation in api_document.operations(schema):
        errors = {int(status): answer for status, answer in operation["responses"].items() if int(status) >= 400}
        assert {400, 403, 431} <= errors.keys(), f"{method} {path}"
        for status, answer in errors.items():
            if path == "/readyz" and status == 503:
                continue
            content = answer["content"][MEDIA_TYPE]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, f"{method} {path} {status}"
            assert status in PROBLEM_TYPES[content["example"]["code"]][0]


def test_what_a_visitor_gets_is_listed(visitor: TestClient, schema: dict[str, Any]) -> None:
    for method, path, operation in api_document.operations(schema):
        answer = visitor.request(method, filled(path))
        assert str(answer.status_code) in operation["responses"], f"{method} {path}: {answer.status_code}"
        if answer.status_code >= 400:
            problem = answer.json()
            assert answer.headers["content-type"] == MEDIA_TYPE
            assert problem["type"] == f"/api/problems/{problem['code']}"


def test_an_unknown_id_is_not_found_by_the_owner(alice_api: TestClient, schema: dict[str, Any]) -> None:
    for method, path, operation in api_document.operations(schema):
        if "{" in path:
            answer = alice_api.request(
                method, filled(path), json={} if "requestBody" in operation else None, headers=TUS
            )
            assert answer.status_code in (404, 415, 422), f"{method} {path}: {answer.status_code}"
            assert answer.headers["content-type"] == MEDIA_TYPE


def test_the_type_of_a_problem_leads_to_its_meaning(visitor: TestClient) -> None:
    problem = visitor.get("/api/v1/jobs").json()
    described = visitor.get(problem["type"]).json()
    assert (described["code"], described["statuses"]) == ("not_logged_in", [401])
    assert visitor.get("/api/problems/nothing").status_code == 404


@pytest.mark.parametrize("path", ["/api", "/api/nowhere", "/api/v1/jobs/a/b/c"])
def test_an_unknown_address_of_the_api_is_a_problem(visitor: TestClient, path: str) -> None:
    answer = visitor.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, MEDIA_TYPE)
    assert answer.json()["code"] == "address_unknown"


# ---- methods --------------------------------------------------------------------------------------------------------


def test_head_answers_like_get_without_the_body(alice: TestClient, schema: dict[str, Any]) -> None:
    plain = [path for method, path, _operation in api_document.operations(schema) if method == "GET"]
    for path in [*map(filled, plain), "/jobs", "/login", "/api/openapi.json"]:
        got, head = alice.get(path), alice.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        for name in ("content-type", "content-security-policy"):
            assert head.headers.get(name) == got.headers.get(name), path
        assert head.headers.get("content-length") == got.headers.get("content-length"), path


def test_head_ends_where_get_would_stream(alice: TestClient, alice_user: Person) -> None:
    factories.node()
    job_id = factories.submitted(alice_user, factories.corpus(alice_user))
    head = alice.head(f"/api/v1/jobs/{job_id}/events")
    assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


def test_options_and_405_name_all_methods_of_an_address(visitor: TestClient, schema: dict[str, Any]) -> None:
    methods: dict[str, set[str]] = {}
    for method, path, _operation in api_document.operations(schema):
        methods.setdefault(path, {"OPTIONS"}).update({"GET", "HEAD"} if method == "GET" else {method})
    for path, supported in methods.items():
        answer = visitor.options(filled(path))
        assert answer.status_code == 204
        assert supported <= set(answer.headers["allow"].split(", ")), path
        unsupported = next(method for method in ("PATCH", "PUT") if method not in answer.headers["allow"])
        refused = visitor.request(unsupported, filled(path))
        assert (refused.status_code, refused.headers["allow"]) == (405, answer.headers["allow"]), path
        assert refused.json()["code"] == "method_not_allowed"


# ---- deprecations ---------------------------------------------------------------------------------------------------


def test_deprecated_addresses_announce_their_successors(alice_api: TestClient, schema: dict[str, Any]) -> None:
    paths = {path for _method, path, operation in api_document.operations(schema) if operation.get("deprecated")}
    assert {path for path in schema["paths"] if path.startswith(tuple(DEPRECATED))} == paths
    for path in [*paths, "/api/v1/works/a/b/c"]:
        answer = alice_api.get(filled(path))
        assert re.fullmatch(r"@\d+", answer.headers["deprecation"])
        successor = re.sub("/(works|checkpoint-tasks)", "/tasks", filled(path))
        assert answer.headers["link"] == f'<{successor}>; rel="successor-version"'
    assert "deprecation" not in alice_api.get("/api/v1/tasks").headers

"""API tokens and people: who may what."""

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from app.core import db, principal
from app.core.account_models import ApiToken
from tests import users
from tests.users import PASSWORD, Person

ROUTES = [
    ("GET", "/api/v1/me", "read"),
    ("GET", "/api/v1/tokens", "admin"),
    ("POST", "/api/v1/tokens", "admin"),
    ("DELETE", "/api/v1/tokens/x", "admin"),
    ("GET", "/api/v1/users", "admin"),
    ("POST", "/api/v1/users", "admin"),
    ("GET", "/api/v1/users/x", "admin"),
    ("DELETE", "/api/v1/users/x", "admin"),
    ("POST", "/api/v1/users/x/disable", "admin"),
    ("POST", "/api/v1/users/x/enable", "admin"),
    ("POST", "/api/v1/users/x/password-reset", "admin"),
    ("GET", "/api/v1/sessions", "admin"),
    ("DELETE", "/api/v1/sessions", "admin"),
    ("DELETE", "/api/v1/sessions/x", "admin"),
    ("GET", "/api/v1/identities", "admin"),
    ("DELETE", "/api/v1/identities/x", "admin"),
    ("POST", "/api/v1/me/password", "admin"),
]
BODY = {"name": "Dave", "password": PASSWORD, "scopes": ["read"]}


def test_a_token_is_shown_once_and_stored_hashed(alice: TestClient) -> None:
    made = alice.post("/api/v1/tokens", json={"name": "nightly", "scopes": ["submit", "read"]})
    assert made.status_code == 201
    secret = made.json()["token"]
    assert secret.startswith("ath_")
    assert made.json()["scopes"] == ["read", "submit"]
    listed = alice.get("/api/v1/tokens")
    assert secret not in listed.text
    assert listed.json()["data"][0]["prefix"] == secret[:8]
    with db.transaction() as session:
        assert principal.digest(secret) in session.scalars(select(ApiToken.token_sha256)).all()


def test_a_revoked_token_is_rejected_at_once(web: TestClient, alice: TestClient) -> None:
    made = alice.post("/api/v1/tokens", json={"name": "short-lived", "scopes": ["read"]}).json()
    program = users.client(web, token=made["token"])
    assert program.get("/api/v1/me").json()["scopes"] == ["read"]
    assert alice.delete(f"/api/v1/tokens/{made['id']}").status_code == 204
    answer = program.get("/api/v1/me")
    assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")
    assert alice.delete(f"/api/v1/tokens/{made['id']}").status_code == 404


def test_the_token_of_another_user_is_not_found(alice: TestClient, bob: TestClient) -> None:
    made = alice.post("/api/v1/tokens", json={"name": "mine", "scopes": ["read"]}).json()
    assert bob.delete(f"/api/v1/tokens/{made['id']}").status_code == 404
    assert bob.post(f"/account/tokens/{made['id']}/revoke").status_code == 404
    assert made["id"] not in bob.get("/api/v1/tokens").text


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_a_visitor_is_asked_to_log_in(visitor: TestClient, method: str, path: str, scope: str) -> None:
    answer = visitor.request(method, path, json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (401, "not_logged_in")


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_a_token_without_the_scope_is_refused(
    web: TestClient, alice_user: Person, method: str, path: str, scope: str
) -> None:
    others = [other for other in principal.SCOPES if other != scope]
    answer = users.client(web, token=alice_user.token(*others)).request(method, path, json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_only_the_owner_manages_users(bob_api: TestClient, method: str) -> None:
    answer = bob_api.request(method, "/api/v1/users", json={"name": "Eve", "password": PASSWORD})
    assert (answer.status_code, answer.json()["code"]) == (403, "role_missing")


def test_the_owner_adds_a_member_who_can_log_in(web: TestClient, alice: TestClient) -> None:
    made = alice.post("/api/v1/users", json={"name": "Frank", "password": PASSWORD})
    assert (made.status_code, made.json()["role"]) == (201, "member")
    answer = users.client(web).post("/api/v1/login", json={"name": "frank", "password": PASSWORD})
    assert answer.status_code == 204
    assert "Frank" in [user["name"] for user in alice.get("/api/v1/users").json()["data"]]


def test_user_names_are_unique_ignoring_case(alice: TestClient) -> None:
    answer = alice.post("/api/v1/users", json={"name": "ALICE", "password": PASSWORD})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (409, "name")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "", "scopes": ["read"]}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["root"]}, "scopes.0"),
        ({"name": "x"}, "scopes"),
        ({"name": "x\u0000", "scopes": ["read"]}, "name"),
        ({"name": "x", "scopes": ["read"], "more": 1}, "more"),
    ],
)
def test_an_invalid_token_request_is_reported_at_its_field(
    alice: TestClient, body: dict[str, object], field: str
) -> None:
    answer = alice.post("/api/v1/tokens", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field


def test_a_token_cannot_create_a_token_with_more_scopes(web: TestClient, alice_user: Person) -> None:
    program = users.client(web, token=alice_user.token("admin"))
    answer = program.post("/api/v1/tokens", json={"name": "more", "scopes": ["submit"]})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (403, "scopes")


def test_lists_are_paginated(alice: TestClient) -> None:
    for number in range(3):
        alice.post("/api/v1/tokens", json={"name": f"page {number}", "scopes": ["read"]})
    names: list[str] = []
    after: str | None = None
    while True:
        answer = alice.get("/api/v1/tokens", params={"limit": 2} | ({"after": after} if after else {})).json()
        names += [token["name"] for token in answer["data"]]
        after = answer["next"]
        if after is None:
            break
    assert names[:3] == ["page 2", "page 1", "page 0"]
    assert len(names) == len(alice.get("/api/v1/tokens", params={"limit": 200}).json()["data"])


# ---- the page -------------------------------------------------------------------------------------------------------


def test_the_page_shows_a_new_token_once_with_a_command_to_try(alice: TestClient) -> None:
    text = alice.post("/account/tokens", data={"name": "laptop", "scopes": ["read", "submit"]}).text
    assert 'curl -H "Authorization: Bearer ath_' in text.replace("&#34;", '"')
    assert "ath_" in text
    again = alice.get("/account").text
    assert "curl" not in again
    assert "laptop" in again


def test_the_page_keeps_the_input_of_a_rejected_form(alice: TestClient) -> None:
    answer = alice.post("/account/tokens", data={"name": "no scopes"})
    assert answer.status_code == 422
    assert 'value="no scopes"' in answer.text
    assert "Choose at least one scope" in answer.text


def test_only_the_owner_sees_the_list_of_users(alice: TestClient, bob: TestClient) -> None:
    assert 'href="/account/people"' in alice.get("/nodes").text
    assert alice.get("/account/people").status_code == 200
    assert 'href="/account/people"' not in bob.get("/nodes").text
    assert bob.get("/account/people").status_code == 403
    assert bob.post("/account/people", data={"name": "Eve", "password": PASSWORD}).status_code == 403


def test_the_owner_adds_a_user_on_the_page(alice: TestClient) -> None:
    answer = alice.post("/account/people", data={"name": "Grace", "password": PASSWORD})
    assert answer.headers["location"] == "/account/people?done=person"
    short = alice.post("/account/people", data={"name": "Heidi", "password": "short"})
    assert (short.status_code, 'value="Heidi"' in short.text) == (422, True)


def test_names_are_html_escaped(alice: TestClient) -> None:
    evil = "<img src=x onerror=alert(1)>"
    alice.post("/account/tokens", data={"name": evil, "scopes": ["read"]})
    alice.post("/account/people", data={"name": evil, "password": PASSWORD})
    for path in ("/account", "/account/people"):
        text = alice.get(path).text
        assert evil not in text
        assert "&lt;img src=x onerror=alert(1)&gt;" in text


@pytest.mark.parametrize("path", ["/account", "/account/tokens/x/revoke", "/account/people", "/account/password"])
def test_pages_redirect_a_visitor_to_the_login(visitor: TestClient, path: str) -> None:
    answer = visitor.get(path) if path == "/account" else visitor.post(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login")

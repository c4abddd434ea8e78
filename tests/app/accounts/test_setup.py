"""The first link: how an installation gets its owner."""

import threading

import pytest
from sqlalchemy import delete, select
from starlette.testclient import TestClient

from app.accounts import service
from app.core import db, principal
from app.core.account_models import GuessCount, SetupCode, User
from tests.users import PASSWORD


@pytest.fixture
def code(database: str) -> str:
    with db.transaction() as session:
        for user in session.scalars(select(User)):
            session.delete(user)
        session.execute(delete(GuessCount))
    with db.transaction() as session:
        return service.create_setup_code(session)


def test_the_code_is_stored_hashed(code: str) -> None:
    with db.transaction() as session:
        assert session.scalars(select(SetupCode.code_sha256)).all() == [principal.digest(code)]


def test_the_first_link_creates_the_owner_and_logs_in(code: str, visitor: TestClient) -> None:
    assert 'name="code"' in visitor.get("/setup", params={"code": code}).text
    answer = visitor.post("/setup", data={"code": code, "name": "Alice", "password": PASSWORD})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    me = visitor.get("/api/v1/me").json()
    assert (me["name"], me["role"]) == ("Alice", "owner")


def test_a_wrong_code_is_reported_and_the_right_one_stays_valid(code: str, visitor: TestClient) -> None:
    answer = visitor.post("/setup", data={"code": "wrong", "name": "Mallory", "password": PASSWORD})
    assert answer.status_code == 403
    assert "This link is not valid. Use the newest one" in answer.text
    assert 'value="Mallory"' in answer.text
    assert visitor.post("/api/v1/setup", json={"code": code, "name": "Alice", "password": PASSWORD}).status_code == 204


def test_guesses_of_the_code_are_limited_and_the_right_one_stays_valid(code: str, visitor: TestClient) -> None:
    body = {"code": "wrong", "name": "Mallory", "password": PASSWORD}
    statuses = [visitor.post("/api/v1/setup", json=body).status_code for _attempt in range(21)]
    assert (set(statuses), statuses[-1]) == ({403, 429}, 429)
    assert visitor.post("/api/v1/setup", json={**body, "code": code}).status_code == 204


def test_a_used_code_creates_no_second_user(code: str, visitor: TestClient) -> None:
    body = {"code": code, "name": "Alice", "password": PASSWORD}
    assert visitor.post("/api/v1/setup", json=body).status_code == 204
    again = visitor.post("/api/v1/setup", json={**body, "name": "Mallory"})
    assert (again.status_code, again.json()["code"]) == (409, "setup_done")
    assert visitor.get("/setup").headers["location"] == "/login"


def test_one_of_eight_concurrent_requests_with_the_same_code_becomes_owner(code: str, visitor: TestClient) -> None:
    statuses: list[int] = []

    def race(number: int) -> None:
        body = {"code": code, "name": f"Racer {number}", "password": PASSWORD}
        statuses.append(visitor.post("/api/v1/setup", json=body).status_code)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [204] + [409] * 7


def test_a_new_code_invalidates_the_previous_one(code: str, visitor: TestClient) -> None:
    with db.transaction() as session:
        newer = service.create_setup_code(session)
    body = {"code": code, "name": "Alice", "password": PASSWORD}
    assert visitor.post("/api/v1/setup", json=body).status_code == 403
    assert visitor.post("/api/v1/setup", json={**body, "code": newer}).status_code == 204


INVISIBLE = "The name contains an invisible or control character ({}) at position 2. Remove it."


@pytest.mark.parametrize(
    ("name", "password", "field", "sentence"),
    [
        ("", PASSWORD, "name", "Enter a name."),
        ("x" * 41, PASSWORD, "name", "The name can have at most 40 characters."),
        ("a\u0000b", PASSWORD, "name", INVISIBLE.format("U+0000")),
        ("a\u202eb", PASSWORD, "name", INVISIBLE.format("U+202E")),
        ("Alice", "short", "password", "The password needs at least 10 characters; this one has 5."),
        ("Alice", "x" * 201, "password", "The password can have at most 200 characters."),
        ("Alice Liddell", "alice liddell", "password", "The password must not be the same as the name."),
    ],
)
def test_an_invalid_name_or_password_is_reported_at_its_field(
    code: str, visitor: TestClient, name: str, password: str, field: str, sentence: str
) -> None:
    answer = visitor.post("/api/v1/setup", json={"code": code, "name": name, "password": password})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": field, "message": sentence}]


def test_before_setup_visitors_are_pointed_to_the_link(code: str, visitor: TestClient) -> None:
    assert "Open the link that Athanor printed" in visitor.get("/login").text

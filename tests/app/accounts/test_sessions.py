"""The list of browsers that are logged in, and what a change of the password ends."""

import re
from datetime import timedelta

import pytest
from sqlalchemy import func, update
from starlette.testclient import TestClient

from app.accounts.browser import short_label
from app.core import db
from app.core.account_models import ApiToken, LoginSession
from tests import users
from tests.users import PASSWORD, Person

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CHROME = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0 Safari/537.36"
)
SAFARI = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1 (KHTML, like Gecko) Safari/604"
NEW = "another furnace entirely"


@pytest.mark.parametrize(
    ("user_agent", "label"),
    [
        (FIREFOX, "Firefox, Linux"),
        (CHROME, "Chrome, macOS"),
        (SAFARI, "Safari, iOS"),
        (CHROME + " Edg/138.0", "Edge, macOS"),
        ("curl/8.5.0", "curl"),
        ("", ""),
        ("\x00\u202e" + "x" * 999, "x" * 40),
    ],
)
def test_a_user_agent_is_shortened_to_browser_and_system(user_agent: str, label: str) -> None:
    assert short_label(user_agent) == label


def logged_in(web: TestClient, person: Person, user_agent: str) -> TestClient:
    client = users.client(web)
    answer = client.post("/login", data={"name": person.name, "password": PASSWORD}, headers={"User-Agent": user_agent})
    assert answer.status_code == 303
    return client


@pytest.fixture
def browsers(web: TestClient, alice_user: Person) -> tuple[TestClient, TestClient]:
    """Alice's Firefox, and her Chrome, which logged in later; no other session of hers."""
    with db.transaction() as session:
        session.execute(update(LoginSession).values(expires_at=func.now()))
    return logged_in(web, alice_user, FIREFOX), logged_in(web, alice_user, CHROME)


def sessions_of(client: TestClient) -> dict[str, str]:
    """The names of the browsers, and the IDs of their sessions."""
    return {entry["browser"]: entry["id"] for entry in client.get("/api/v1/sessions").json()["data"]}


def test_sessions_are_listed_with_browser_address_and_which_one_asks(browsers: tuple[TestClient, TestClient]) -> None:
    firefox, _chrome = browsers
    entries = {entry["browser"]: entry for entry in firefox.get("/api/v1/sessions").json()["data"]}
    assert {name: entry["is_present"] for name, entry in entries.items()} == {
        "Firefox, Linux": True,
        "Chrome, macOS": False,
    }
    assert {entry["address"] for entry in entries.values()} == {"testclient"}
    text = firefox.get("/account").text
    assert "Chrome, macOS" in text
    assert text.count("this browser") == 1


def test_a_session_is_revoked_at_once(browsers: tuple[TestClient, TestClient]) -> None:
    firefox, chrome = browsers
    path = f"/account/sessions/{sessions_of(firefox)['Chrome, macOS']}/revoke"
    assert firefox.post(path).headers["location"] == "/account?done=session"
    assert chrome.get("/api/v1/me").status_code == 401
    assert list(sessions_of(firefox)) == ["Firefox, Linux"]


def test_all_other_sessions_are_revoked_together(browsers: tuple[TestClient, TestClient]) -> None:
    firefox, chrome = browsers
    assert firefox.post("/account/sessions/revoke").headers["location"] == "/account?done=sessions"
    assert (firefox.get("/api/v1/me").status_code, chrome.get("/api/v1/me").status_code) == (200, 401)
    assert "Log out all others" not in firefox.get("/account").text


def test_a_program_revokes_sessions_one_by_one_or_all(
    web: TestClient, alice_user: Person, browsers: tuple[TestClient, TestClient]
) -> None:
    firefox, chrome = browsers
    program = users.client(web, token=alice_user.token("admin"))
    assert program.delete(f"/api/v1/sessions/{sessions_of(program)['Firefox, Linux']}").status_code == 204
    assert (firefox.get("/api/v1/me").status_code, chrome.get("/api/v1/me").status_code) == (401, 200)
    assert program.delete("/api/v1/sessions").status_code == 204
    assert chrome.get("/api/v1/me").status_code == 401


def test_the_last_use_is_stored_once_a_minute(alice: TestClient, alice_user: Person) -> None:
    long_ago = func.now() - timedelta(hours=1)
    with db.transaction() as session:
        session.execute(update(LoginSession).values(last_used_at=long_ago))
    assert alice.get("/api/v1/me").status_code == 200
    with db.transaction() as session:
        fresh = session.query(LoginSession).where(LoginSession.last_used_at > func.now() - timedelta(minutes=5)).all()
    assert len(fresh) == 1
    alice.get("/api/v1/me")
    with db.transaction() as session:
        assert session.get_one(LoginSession, fresh[0].token_sha256).last_used_at == fresh[0].last_used_at


@pytest.mark.parametrize("revoke", [True, False])
def test_a_change_of_the_password_revokes_the_tokens_unless_told_otherwise(web: TestClient, revoke: bool) -> None:
    person = users.enter(f"Person {revoke}", "member")
    program, browser = users.client(web, token=person.token()), users.client(web, cookie=person.cookie())
    body = {"present_password": PASSWORD, "password": NEW, **({} if revoke else {"revoke_tokens": False})}
    assert browser.post("/api/v1/me/password", json=body).status_code == 204
    assert browser.get("/api/v1/me").status_code == 200
    assert program.get("/api/v1/me").status_code == (401 if revoke else 200)


def test_the_page_offers_to_revoke_the_tokens_and_keeps_the_choice(web: TestClient) -> None:
    person = users.enter("Person of the page", "member")
    program, browser = users.client(web, token=person.token()), users.client(web, cookie=person.cookie())
    box = re.compile(r'<input[^>]*name="revoke_tokens"[^>]*>')
    assert "checked" in box.findall(browser.get("/account").text)[0]
    body = {"present_password": PASSWORD, "password": NEW}
    wrong = browser.post("/account/password", data={**body, "present_password": "wrong"})
    assert "checked" not in box.findall(wrong.text)[0]
    assert browser.post("/account/password", data=body).status_code == 303
    assert program.get("/api/v1/me").status_code == 200
    with db.transaction() as session:
        assert session.query(ApiToken).where(ApiToken.user_id == person.id, ApiToken.revoked_at.is_(None)).count() == 1

"""Logging in and out: cookies, failures, locks."""

import re
import threading
from datetime import timedelta

import httpx2
import pytest
from fastapi import Request
from sqlalchemy import delete, func, select, update
from starlette.testclient import TestClient

from app.accounts import passwords, service
from app.core import db, principal
from app.core.account_models import GuessCount, LoginSession, User
from app.web import auth
from app.web.guess_limits import from_address
from tests import users
from tests.users import PASSWORD, Person


@pytest.fixture(autouse=True)
def unlocked(alice_user: Person) -> None:
    with db.transaction() as session:
        session.execute(delete(GuessCount))


def log_in(client: TestClient, name: str = "Alice", password: str = PASSWORD, next: str = "/") -> tuple[int, str]:
    answer = client.post("/login", data={"name": name, "password": password, "next": next})
    return answer.status_code, answer.headers.get("location", answer.text)


def test_the_right_password_logs_in_and_names_ignore_case(visitor: TestClient) -> None:
    assert log_in(visitor, "aLICE ") == (303, "/")
    assert visitor.get("/api/v1/me").json()["name"] == "Alice"


def test_a_name_has_one_owner_however_it_is_composed(alice: TestClient, visitor: TestClient) -> None:
    composed, decomposed = "Zo\u00eb", "Zoe\u0308"
    created = alice.post("/api/v1/users", json={"name": f" {decomposed}", "password": PASSWORD})
    assert (created.status_code, created.json()["name"]) == (201, composed)
    for name in (composed, decomposed, decomposed.upper()):
        answer = alice.post("/api/v1/users", json={"name": name, "password": PASSWORD})
        assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")
        assert log_in(visitor, name) == (303, "/")


def test_the_session_cookie_is_http_only_and_same_site(visitor: TestClient) -> None:
    answer = visitor.post("/login", data={"name": "Alice", "password": PASSWORD})
    cookie = answer.headers["set-cookie"].lower()
    assert {"httponly", "samesite=lax", "path=/", "max-age=2592000"} <= set(re.split("; ", cookie))
    assert "secure" not in cookie


def test_the_session_cookie_is_secure_over_https(visitor: TestClient) -> None:
    answer = visitor.post("https://localhost/login", data={"name": "Alice", "password": PASSWORD})
    assert "secure" in answer.headers["set-cookie"].lower()


def test_the_session_is_stored_hashed_and_a_new_login_replaces_it(visitor: TestClient) -> None:
    log_in(visitor)
    first = visitor.cookies[auth.COOKIE]
    log_in(visitor)
    second = visitor.cookies[auth.COOKIE]
    with db.transaction() as session:
        stored = set(session.scalars(select(LoginSession.token_sha256)))
    assert first != second
    assert principal.digest(second) in stored
    assert principal.digest(first) not in stored
    assert second not in stored


def test_logging_out_ends_the_session_on_the_server(visitor: TestClient) -> None:
    log_in(visitor)
    secret = visitor.cookies[auth.COOKIE]
    assert visitor.post("/logout").headers["location"] == "/login"
    assert auth.COOKIE not in visitor.cookies
    visitor.cookies.set(auth.COOKIE, secret)
    assert visitor.get("/api/v1/me").status_code == 401


def test_an_expired_session_is_not_authenticated(alice: TestClient) -> None:
    assert alice.get("/api/v1/me").status_code == 200
    with db.transaction() as session:
        session.execute(update(LoginSession).values(expires_at=LoginSession.created_at))
    assert alice.get("/api/v1/me").status_code == 401


@pytest.mark.parametrize("name", ["Alice", "Nobody", "", "a\u0000b", "x" * 5000])
def test_all_login_failures_have_the_same_message(visitor: TestClient, name: str) -> None:
    answer = visitor.post("/api/v1/login", json={"name": name, "password": "not the password"})
    assert (answer.status_code, answer.json()["title"]) == (401, "Wrong name or password.")


def test_an_unknown_name_takes_as_long_as_a_wrong_password(
    visitor: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str | None] = []
    right = passwords.verify_password
    monkeypatch.setattr(
        passwords, "verify_password", lambda given, stored: checked.append(stored) or right(given, stored)
    )
    visitor.post("/api/v1/login", json={"name": "Nobody", "password": "not the password"})
    assert checked == [None]
    assert not passwords.verify_password("nobody has this password", None)


def guess(client: TestClient, name: str = "Alice", password: str = "not the password") -> httpx2.Response:
    return client.post("/api/v1/login", json={"name": name, "password": password})


def end_locks() -> None:
    with db.transaction() as session:
        session.execute(update(GuessCount).values(locked_until=None))


@pytest.mark.parametrize("name", ["Alice", "Nobody"])
def test_the_fifth_wrong_password_locks_a_name_and_further_ones_longer_whether_a_user_has_it_or_not(
    visitor: TestClient, name: str
) -> None:
    for _attempt in range(5):
        assert guess(visitor, name).status_code == 401
    answer = guess(visitor, name, PASSWORD)
    assert (answer.status_code, answer.json()["code"]) == (429, "login_locked")
    first = int(answer.headers["retry-after"])
    end_locks()
    assert guess(visitor, name).status_code == 401
    longer = int(guess(visitor, name, PASSWORD).headers["retry-after"])
    assert 0 < first < longer


def test_invented_names_leave_a_limited_number_of_rows(visitor: TestClient) -> None:
    for number in range(3):
        guess(visitor, f"nobody {number} " + "x" * 1000)
    with db.transaction() as session:
        keys = session.scalars(select(GuessCount.key)).all()
    assert len(keys) == 3
    assert all(re.fullmatch("login:[0-9a-f]{5}", key) for key in keys)


def test_a_count_is_forgotten_a_day_after_the_last_guess(visitor: TestClient) -> None:
    guess(visitor, "Nobody")
    with db.transaction() as session:
        session.execute(update(GuessCount).values(last_at=func.now() - timedelta(days=2)))
    guess(visitor, "Somebody")
    with db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(GuessCount)) == 1


def test_a_name_is_locked_for_a_quarter_of_an_hour_at_most(visitor: TestClient) -> None:
    guess(visitor)
    with db.transaction() as session:
        session.execute(update(GuessCount).values(failures=1000))
    guess(visitor)
    answer = guess(visitor)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 900


def test_strangers_cannot_lock_a_user_out_of_a_browser_that_has_logged_in_before(
    web: TestClient, visitor: TestClient
) -> None:
    log_in(visitor)
    visitor.post("/logout")
    stranger = users.client(web)
    for _attempt in range(5):
        guess(stranger)
    assert guess(stranger, password=PASSWORD).status_code == 429
    assert log_in(visitor) == (303, "/")
    for _attempt in range(5):
        assert guess(visitor).status_code == 401
    assert guess(visitor, password=PASSWORD).status_code == 429, "a stolen browser may guess no more than others"


def test_the_present_password_is_guessed_no_faster_than_at_a_login(alice: TestClient) -> None:
    body = {"present_password": "not the password", "password": "another furnace entirely"}
    statuses = [alice.post("/api/v1/me/password", json=body).status_code for _attempt in range(6)]
    assert statuses == [422] * 5 + [429]
    right = alice.post("/account/password", data={**body, "present_password": PASSWORD})
    assert right.status_code == 429
    assert "Too many wrong passwords" in right.text


def test_the_right_present_password_resets_the_count_of_wrong_ones(web: TestClient) -> None:
    dora = users.client(web, token=users.enter("Dora", "member").token())
    passwords_in_turn = [PASSWORD, "another furnace entirely"]
    for present, new in (passwords_in_turn, passwords_in_turn[::-1]):
        wrong = [dora.post("/api/v1/me/password", json={"present_password": "no", "password": new}) for _n in range(4)]
        assert [answer.status_code for answer in wrong] == [422] * 4
        body = {"present_password": present, "password": new, "revoke_tokens": False}
        assert dora.post("/api/v1/me/password", json=body).status_code == 204


def test_a_password_change_by_a_program_opens_no_session(web: TestClient) -> None:
    erin_user = users.enter("Erin", "member")
    erin = users.client(web, token=erin_user.token())
    body = {"present_password": PASSWORD, "password": "another furnace entirely"}
    assert erin.post("/api/v1/me/password", json=body).status_code == 204
    with db.transaction() as session:
        assert session.scalars(select(LoginSession).where(LoginSession.user_id == erin_user.id)).all() == []


def test_guesses_of_tokens_are_limited_by_address_without_locking_out_right_ones(
    web: TestClient, alice_user: Person
) -> None:
    right = users.client(web, token=alice_user.token())
    answers = [users.client(web, token=f"ath_{number}").get("/api/v1/me") for number in range(21)]
    assert [answer.status_code for answer in answers] == [401] * 20 + [429]
    assert (answers[-1].json()["code"], int(answers[-1].headers["retry-after"]) > 0) == ("guesses_limited", True)
    assert right.get("/api/v1/me").status_code == 200


@pytest.mark.parametrize(
    ("address", "neighbor", "is_same"),
    [
        ("203.0.113.7", "203.0.113.8", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("testclient", "testclient", True),
    ],
)
def test_an_ipv6_network_counts_as_one_address(address: str, neighbor: str, is_same: bool) -> None:
    keys = {from_address(Request({"type": "http", "client": (host, 1)}), "token").key for host in (address, neighbor)}
    assert (len(keys) == 1) is is_same


def test_a_login_deletes_expired_sessions(visitor: TestClient, alice_user: Person) -> None:
    with db.transaction() as session:
        past = func.now() - timedelta(days=1)
        session.add(LoginSession(token_sha256=principal.digest("old"), user_id=alice_user.id, expires_at=past))
    log_in(visitor)
    with db.transaction() as session:
        assert session.scalar(select(func.count()).where(LoginSession.expires_at < func.now())) == 0


def test_a_locked_account_is_shown_on_the_page(visitor: TestClient) -> None:
    for _attempt in range(5):
        log_in(visitor, password="not the password")
    status, text = log_in(visitor)
    assert status == 429
    assert "Too many wrong passwords. Try again in" in text


def test_parallel_guesses_are_all_counted(visitor: TestClient) -> None:
    statuses: list[int] = []

    def guess() -> None:
        body = {"name": "Alice", "password": "not the password"}
        statuses.append(visitor.post("/api/v1/login", json=body).status_code)

    threads = [threading.Thread(target=guess) for _n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [401] * 5 + [429] * 7


def test_a_right_password_resets_the_failure_count(visitor: TestClient) -> None:
    for _attempt in range(4):
        log_in(visitor, password="not the password")
    log_in(visitor)
    with db.transaction() as session:
        assert session.scalar(select(func.count()).select_from(GuessCount)) == 0


@pytest.mark.parametrize(
    ("wanted", "reached"),
    [
        ("/jobs/1", "/jobs/1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/\x00", "/"),
        ("javascript:alert(1)", "/"),
    ],
)
def test_login_never_redirects_to_another_site(visitor: TestClient, wanted: str, reached: str) -> None:
    assert log_in(visitor, next=wanted) == (303, reached)


def test_a_page_redirects_a_visitor_to_the_login_and_back(visitor: TestClient) -> None:
    assert visitor.get("/account").headers["location"] == "/login?next=/account"
    assert 'name="next" value="/account"' in visitor.get("/login?next=/account").text


def test_the_form_keeps_the_name_but_never_the_password(visitor: TestClient) -> None:
    text = visitor.post("/login", data={"name": "<b>Alice", "password": "not the password"}).text
    assert 'value="&lt;b&gt;Alice"' in text
    assert "not the password" not in text


def test_another_site_cannot_log_a_user_in_or_out(visitor: TestClient) -> None:
    for path in ("/login", "/logout", "/setup", "/preferences", "/account/password", "/account/tokens"):
        assert visitor.post(path, headers={"Origin": "http://evil.example"}).status_code == 403


def test_language_and_theme_are_stored_in_cookies(visitor: TestClient) -> None:
    answer = visitor.post("/preferences", data={"language": "zh-CN", "theme": "dark", "next": "/login"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    text = visitor.get("/login").text
    assert '<html lang="zh-CN" data-theme="dark">' in text
    assert "登录" in text


def test_an_unknown_language_or_theme_changes_nothing(visitor: TestClient) -> None:
    visitor.post("/preferences", data={"language": "tlh", "theme": "<x>"})
    assert '<html lang="en" data-theme="system">' in visitor.get("/login").text


def test_passwords_are_argon2id(alice_user: Person) -> None:
    with db.transaction() as session:
        assert session.get_one(User, alice_user.id).password_hash.startswith("$argon2id$")


def test_passwords_match_in_every_unicode_normalization_form() -> None:
    composed, decomposed = "caf\u00e9 caf\u00e9", "cafe\u0301 cafe\u0301"
    assert passwords.verify_password(decomposed, passwords.hash_password(composed))


def test_a_password_change_logs_out_every_other_browser(web: TestClient) -> None:
    carol = users.enter("Carol", "member")
    here, elsewhere = (users.client(web, cookie=carol.cookie()) for _n in range(2))
    new = "another furnace entirely"
    wrong = here.post("/account/password", data={"present_password": "wrong", "password": new})
    assert wrong.status_code == 422
    assert "This is not your current password." in wrong.text
    weak = here.post("/account/password", data={"present_password": PASSWORD, "password": "carol"})
    assert "at least 10 characters" in weak.text
    answer = here.post("/account/password", data={"present_password": PASSWORD, "password": new})
    assert answer.headers["location"] == "/account?done=password"
    assert here.get("/api/v1/me").status_code == 200
    assert elsewhere.get("/api/v1/me").status_code == 401
    assert log_in(users.client(web), "Carol", new)[0] == 303


def test_no_setup_code_is_created_once_an_owner_exists(alice_user: Person) -> None:
    with db.transaction() as session, pytest.raises(AssertionError):
        service.create_setup_code(session)

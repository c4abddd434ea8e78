"""Invitations by link: who creates them, what their codes do, and that none does it twice."""

import re
from datetime import timedelta

import pytest
from sqlalchemy import delete, func, select, update
from starlette.testclient import TestClient

from app.core import db
from app.core.account_models import GuessCount, Invitation, User
from app.core.principal import digest
from tests import users
from tests.users import PASSWORD, Person

PATH = "/api/v1/invitations"


@pytest.fixture(autouse=True)
def unlocked(database: str) -> None:
    with db.transaction() as session:
        session.execute(delete(GuessCount))
        session.execute(delete(Invitation))


@pytest.fixture(scope="module")
def admin_user(database: str) -> Person:
    """An admin."""
    return users.enter("Ada", "admin")


@pytest.fixture
def admin(web: TestClient, admin_user: Person) -> TestClient:
    """The admin's browser."""
    return users.client(web, cookie=admin_user.cookie())


def invited(client: TestClient, role: str = "member") -> str:
    """The code of a new invitation."""
    answer = client.post(PATH, json={"role": role})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["link"].partition("?code=")[2])


def accept(web: TestClient, code: str, name: str) -> tuple[int, TestClient]:
    """The status of the answer to a visitor who accepts an invitation, and their browser."""
    visitor = users.client(web)
    body = {"code": code, "name": name, "password": PASSWORD}
    return visitor.post(f"{PATH}/accept", json=body).status_code, visitor


def test_an_invitation_makes_an_account_of_its_role_and_logs_in(web: TestClient, admin: TestClient) -> None:
    status, visitor = accept(web, invited(admin, "viewer"), "Vera")
    assert status == 204
    me = visitor.get("/api/v1/me").json()
    assert (me["name"], me["role"]) == ("Vera", "viewer")
    login = users.client(web).post("/api/v1/login", json={"name": "Vera", "password": PASSWORD})
    assert login.status_code == 204


def test_only_the_hash_of_a_code_is_stored(alice: TestClient) -> None:
    code = invited(alice)
    with db.transaction() as session:
        stored = dict(session.execute(select(Invitation.__table__)).mappings().one())
    assert stored["code_sha256"] == digest(code)
    assert code not in str(stored)


def test_an_invitation_lasts_seven_days_or_as_long_as_it_says(alice: TestClient) -> None:
    alice.post(PATH, json={})
    alice.post(PATH, json={"days": 2})
    with db.transaction() as session:
        spans = set(session.scalars(select(Invitation.expires_at - Invitation.created_at)))
    assert spans == {timedelta(days=7), timedelta(days=2)}
    refused = alice.post(PATH, json={"days": 31})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "days")


def test_wrong_used_revoked_and_old_codes_have_the_same_answer(web: TestClient, alice: TestClient) -> None:
    used, revoked, old, orphaned = (invited(alice) for _n in range(4))
    assert accept(web, used, "Una")[0] == 204
    with db.transaction() as session:
        ids = {row.code_sha256: row.id for row in session.scalars(select(Invitation))}
        past = update(Invitation).values(expires_at=func.now() - timedelta(seconds=1))
        session.execute(past.where(Invitation.code_sha256 == digest(old)))
        gone = users.enter("Gone", "member")
        session.execute(
            update(Invitation).where(Invitation.code_sha256 == digest(orphaned)).values(inviter_id=gone.id)
        )  # of somebody who was an owner then
    assert alice.delete(f"{PATH}/{ids[digest(revoked)]}").status_code == 204
    bodies = []
    for code in ("wrong", used, revoked, old, orphaned):
        body = {"code": code, "name": "Nobody", "password": PASSWORD}
        answer = users.client(web).post(f"{PATH}/accept", json=body)
        bodies.append({**answer.json(), "request_id": ""})
    assert (bodies[0]["status"], bodies[0]["code"]) == (403, "invitation_wrong")
    assert all(body == bodies[0] for body in bodies)
    with db.transaction() as session:
        assert session.scalar(select(User).where(User.name == "Nobody")) is None
    invited(alice)
    with db.transaction() as session:
        left = set(session.scalars(select(Invitation.code_sha256)))
    assert digest(old) not in left, "a new invitation deletes those that have expired"
    assert digest(orphaned) in left


def test_guesses_of_codes_are_limited_and_the_right_one_stays_valid(web: TestClient, alice: TestClient) -> None:
    code = invited(alice)
    assert [accept(web, str(number), "Gus")[0] for number in range(21)] == [403] * 20 + [429]
    assert accept(web, code, "Gus")[0] == 204


def test_a_refused_name_or_password_leaves_the_invitation(web: TestClient, alice: TestClient) -> None:
    code, visitor = invited(alice), users.client(web)
    for name, password, status in (("Alice", PASSWORD, 409), ("Wim", "password12", 422)):
        body = {"code": code, "name": name, "password": password}
        assert visitor.post(f"{PATH}/accept", json=body).status_code == status
    assert accept(web, code, "Wim")[0] == 204


def test_an_admin_invites_viewers_and_members_and_revokes_only_those(
    admin: TestClient, alice: TestClient, bob: TestClient
) -> None:
    assert [admin.post(PATH, json={"role": role}).status_code for role in ("viewer", "admin", "owner")] == [
        201,
        403,
        403,
    ]
    assert bob.post(PATH, json={}).status_code == 403
    owners = alice.post(PATH, json={"role": "owner"}).json()
    refused = admin.delete(f"{PATH}/{owners['id']}")
    assert (refused.status_code, refused.json()["title"]) == (403, "Only an owner of this installation may do this.")
    listed = admin.get(PATH).json()["data"]
    assert [(row["role"], row["inviter"]) for row in listed] == [("owner", "Alice"), ("viewer", "Ada")]
    assert "link" not in listed[0]
    assert alice.delete(f"{PATH}/{owners['id']}").status_code == 204
    assert alice.delete(f"{PATH}/{owners['id']}").status_code == 404


def test_a_person_is_invited_on_the_account_page_and_follows_the_link(web: TestClient, alice: TestClient) -> None:
    text = alice.post("/account/invitations", data={"role": "member"}).text
    link = re.search(r'id="invitation">http://localhost(/invitation\?code=[\w-]+)<', text)
    assert link is not None
    visitor = users.client(web)
    assert 'type="hidden" name="code"' in visitor.get(link[1]).text
    body = {"code": link[1].partition("=")[2], "name": "Ines", "password": PASSWORD}
    weak = visitor.post("/invitation", data={**body, "password": "password12"})
    assert (weak.status_code, "easy to guess" in weak.text) == (422, True)
    assert visitor.post("/invitation", data=body).headers["location"] == "/"
    assert visitor.get("/api/v1/me").json()["name"] == "Ines"
    again = users.client(web).post("/invitation", data=body)
    assert (again.status_code, "This invitation is not valid" in again.text) == (403, True)
    for path in (link[1], "/invitation"):
        used = users.client(web).get(path)
        assert (used.status_code, "This invitation is not valid" in used.text) == (403, True)
        assert 'name="password"' not in used.text


def test_following_wrong_links_counts_as_no_guess(web: TestClient, alice: TestClient) -> None:
    for page in ("/invitation", "/reset-password"):
        visitor = users.client(web)
        answers = [visitor.get(f"{page}?code={number}") for number in range(21)]
        assert {answer.status_code for answer in answers} == {403}
        assert not [answer for answer in answers if 'name="password"' in answer.text]
    assert accept(web, invited(alice), "Lex")[0] == 204


def test_an_invitation_is_revoked_on_the_page_of_people(web: TestClient, alice: TestClient) -> None:
    code = invited(alice)
    action = re.search(r'action="(/account/invitations/\w+/revoke)"', alice.get("/account/people").text)
    assert action is not None
    assert alice.post(action[1]).headers["location"] == "/account/people?done=invitation"
    assert accept(web, code, "Rex")[0] == 403


def test_older_invitations_and_tokens_are_reached_from_the_pages(alice: TestClient, web: TestClient) -> None:
    for _ in range(51):
        invited(alice)
    person = users.enter("Many tokens", "member")
    client = users.client(web, cookie=person.cookie())
    for number in range(101):
        answer = client.post("/api/v1/tokens", json={"name": f"token {number}", "scopes": ["read"]})
        assert answer.status_code == 201, answer.text
    first = client.get("/account").text
    further = re.search(r'href="(/account\?after=\w+)#tokens"', first)
    assert further is not None
    assert ("token 100<" in first, "token 0<" in first) == (True, False)
    assert "token 0<" in client.get(further[1]).text
    page = alice.get("/account/people").text
    further = re.search(r'href="(/account/people\?invited_after=\w+)#invitations"', page)
    assert further is not None
    older = set(re.findall(r"/account/invitations/(\w+)/revoke", alice.get(further[1]).text))
    newest = set(re.findall(r"/account/invitations/(\w+)/revoke", page))
    assert (len(newest), len(older) >= 1, older & newest) == (50, True, set())

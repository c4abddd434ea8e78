"""Every route with every role: what docs/rights.md says is what happens."""

import re

import pytest
from starlette.testclient import TestClient

from app.core.roles import ROLES, Role, is_at_least, may_manage
from app.web import auth
from app.web.auth import Right
from tests import routes, users
from tests.users import Person

# The only routes for visitors: a new one that is not named here needs a right.
OPEN = {
    "/api/problems/{code}",
    "/api/v1/invitations/accept",
    "/api/v1/login",
    "/api/v1/logout",
    "/api/v1/nodes/join",
    "/api/v1/password-reset",
    "/api/v1/setup",
    "/checkpoint-tasks{rest:path}",
    "/confirm-email",
    "/invitation",
    "/login",
    "/login/oidc",
    "/login/oidc/callback",
    "/logout",
    "/preferences",
    "/reset-password",
    "/setup",
    "/unsubscribe",
    "/works{rest:path}",
}
REFUSAL = re.compile("Your role is (viewer|member)|Only an owner")
READ_ONLY = (
    "Your role is viewer: you can read, but not start or change anything. Ask an administrator for the role member."
)
ALL = list(routes.rights())


@pytest.fixture(scope="module")
def people(database: str) -> dict[str, Person]:
    """A user of each role, and another owner, so that none is the last."""
    users.enter("Last", "owner")
    return {role: users.enter(role.title(), role) for role in ROLES}


@pytest.fixture(scope="module")
def clients(web: TestClient, people: dict[str, Person]) -> dict[str, TestClient]:
    """A browser of a visitor, and of a user of each role."""
    browsers = {"visitor": users.client(web), **{role: users.client(web) for role in ROLES}}
    log_in(browsers, people)
    return browsers


def log_in(clients: dict[str, TestClient], people: dict[str, Person]) -> None:
    """Give every user a new session."""
    for role, person in people.items():
        clients[role].cookies.clear()
        clients[role].cookies.set(auth.COOKIE, person.cookie())


def test_the_routes_for_visitors_are_these() -> None:
    assert {path for _method, path, right in ALL if right is None} == OPEN
    assert len(ALL) > 230


def send(client: TestClient, method: str, path: str) -> tuple[int, str]:
    """Status and text of the answer to an empty request about rows that do not exist."""
    address = re.sub(r"\{[^}]+\}", "0", path)
    headers = routes.headers_of(path)
    if not path.startswith(("/api/", "/v1/")):
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.request(
        method, address, content=b"{}" if "json" in headers["Content-Type"] else b"", headers=headers
    )
    return answer.status_code, answer.headers.get("location", "") + answer.text


@pytest.mark.parametrize(("method", "path", "right"), ALL, ids=[f"{method} {path}" for method, path, _right in ALL])
def test_a_route_answers_those_whose_right_it_is(
    clients: dict[str, TestClient], people: dict[str, Person], method: str, path: str, right: Right | None
) -> None:
    status, text = send(clients["visitor"], method, path)
    assert right is None or status in (401, 403) or text.startswith("/login"), text
    for role in ROLES if path != routes.ENDLESS else ():
        status, text = send(clients[role], method, path)
        is_refused = status == 403 and REFUSAL.search(text) is not None
        assert is_refused == (right is not None and not is_at_least(role, right.role)), (role, status, text)
        assert status not in (401, 500), (role, text)
    if path.endswith("/logout"):
        log_in(clients, people)


@pytest.mark.parametrize(
    ("role", "sentence"),
    [
        ("viewer", READ_ONLY),
        ("viewer", "Your role is viewer: this is for administrators and owners."),
        ("member", "Your role is member: this is for administrators and owners."),
    ],
)
def test_a_refusal_says_which_role_it_takes(
    web: TestClient, people: dict[str, Person], role: str, sentence: str
) -> None:
    client = users.client(web, cookie=people[role].cookie())
    answer = client.get("/api/v1/users") if "administrators and" in sentence else client.post("/api/v1/jobs", json={})
    assert (answer.status_code, answer.json()["code"], answer.json()["title"]) == (403, "role_missing", sentence)


def test_a_viewers_token_and_session_lack_the_scope_submit(web: TestClient, people: dict[str, Person]) -> None:
    viewer = users.client(web, cookie=people["viewer"].cookie())
    assert viewer.get("/api/v1/me").json()["scopes"] == ["admin", "read"]
    refused = viewer.post("/api/v1/tokens", json={"name": "t", "scopes": ["submit"]})
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
    assert 'value="submit"' not in viewer.get("/account").text
    program = users.client(web, token=people["viewer"].token("read", "submit"))  # of a time as a member
    assert (program.get("/api/v1/jobs").status_code, program.post("/api/v1/jobs", json={}).status_code) == (200, 403)
    assert program.get("/api/v1/me").json()["scopes"] == ["read"]


MANAGED = {
    "viewer": [],
    "member": [],
    "admin": ["viewer", "member"],
    "owner": ["viewer", "member", "admin", "owner"],
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("other", ROLES)
def test_who_manages_whom(web: TestClient, people: dict[str, Person], role: Role, other: Role) -> None:
    allowed = other in MANAGED[role]
    assert may_manage(role, other) == allowed
    client = users.client(web, cookie=people[role].cookie())
    person = users.enter(f"{role} and {other}", other)
    path = f"/api/v1/users/{person.id}"
    new = {"name": f"new {role} {other}", "password": users.PASSWORD, "role": other}
    statuses = [
        client.post("/api/v1/users", json=new).status_code,
        client.patch(path, json={"role": other}).status_code,
        client.post(f"{path}/disable").status_code,
        client.post(f"{path}/enable").status_code,
        client.post(f"{path}/password-reset").status_code,
        client.delete(path, params={"data": "delete"}).status_code,
    ]
    assert statuses == ([201, 200, 200, 200, 201, 204] if allowed else [403] * 6)


@pytest.mark.parametrize("role", ["admin", "owner"])
def test_an_admin_gives_no_role_above_member(web: TestClient, people: dict[str, Person], role: Role) -> None:
    person = users.enter(f"raised to {role}", "member")
    admin, owner = (users.client(web, cookie=people[name].cookie()) for name in ("admin", "owner"))
    refused = admin.patch(f"/api/v1/users/{person.id}", json={"role": role})
    assert (refused.status_code, refused.json()["title"]) == (403, "Only an owner of this installation may do this.")
    assert owner.get(f"/api/v1/users/{person.id}").json()["role"] == "member"
    assert owner.patch(f"/api/v1/users/{person.id}", json={"role": role}).json()["role"] == role


def test_a_new_role_holds_from_the_next_request_on(web: TestClient, people: dict[str, Person]) -> None:
    person = users.enter("Demoted", "member")
    client, admin = (users.client(web, cookie=somebody.cookie()) for somebody in (person, people["admin"]))
    assert client.post("/api/v1/conversations", json={}).status_code != 403
    answer = admin.post(f"/account/people/{person.id}/role", data={"role": "viewer"})
    assert answer.headers["location"] == f"/account/people/{person.id}?done=role"
    assert client.post("/api/v1/conversations", json={}).status_code == 403
    page = admin.get(f"/account/people/{person.id}?done=role").text
    assert "The role is changed." in page
    assert '<option value="viewer" selected>' in page
    assert 'value="owner"' not in page


def test_the_page_of_an_owner_has_no_forms_for_an_admin(web: TestClient, people: dict[str, Person]) -> None:
    page = users.client(web, cookie=people["admin"].cookie()).get(f"/account/people/{people['owner'].id}").text
    assert "Only an owner can change this account." in page
    assert f"/account/people/{people['owner'].id}/" not in page

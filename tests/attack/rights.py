"""Every route, asked by those who may not: visitors, other users, tokens with fewer scopes, other sites."""

import re
from collections import defaultdict

import httpx

from app.core.roles import is_at_least
from tests.attack.attacks import attack
from tests.attack.target import Target
from tests.routes import NO_ROWS, body_of, headers_of, query_of, rights, routes

MARK = "Sesame"  # in the name of everything of Alice's


def path_of(path: str, ids: dict[str, str]) -> str:
    """A path with its parameters filled in; a parameter without an ID gets one that does not exist."""
    values = defaultdict(lambda: "0000000000000000", ids, name="config.json")
    return re.sub(r"\{(\w+)(:path)?\}", lambda match: values[match[1]], path) + query_of(path)


def ask(client: httpx.Client, method: str, path: str, ids: dict[str, str]) -> httpx.Response:
    """Send a request of the right form, without following redirects; read a stream only to its headers."""
    body = body_of(path) if method != "GET" else None
    with client.stream(method, path_of(path, ids), content=body, headers=headers_of(path)) as response:
        if "event-stream" not in response.headers.get("content-type", ""):
            response.read()
        return response


def check_cells(wide: list[str], target: Target) -> str:
    """Raise AssertionError if a right is too wide; returns the counted statuses."""
    assert not wide, f"{len(wide)} cells are too wide: {wide[:3]}"
    return target.list_statuses()


@attack("R1", "every route by a visitor")
def visitor(target: Target) -> str:
    """Refused, or sent to the page to log in."""
    wide = []
    with target.client() as client:
        for method, path, right in rights():
            response = ask(client, method, path, target.ids)
            is_login = response.status_code in (302, 303, 307) and "/login" in response.headers["location"]
            if right and response.status_code not in (401, 403) and not is_login:
                wide.append(f"{method} {path}: {response.status_code}")
    return check_cells(wide, target)


@attack("R2", "every route with another user's ID, by token and by cookie")
def other_ids(target: Target) -> str:
    """Not found, and nothing of the other user is in the response."""
    wide = []
    ids = target.ids
    for cookie in (False, True):
        with target.client(target.mallory, cookie=cookie) as client:
            for method, path, right in rights():
                if "_id}" not in path or right is None or NO_ROWS in path:
                    continue
                response = ask(client, method, path, ids)
                text = response.text if response.is_stream_consumed else ""
                expected = 403 if is_at_least(right.role, "admin") else 404
                if response.status_code != expected or MARK in text:
                    wide.append(f"{method} {path}: {response.status_code}")
    return check_cells(wide, target)


@attack("R3", "every route with tokens that have only the scopes read, submit, or both")
def scopes(target: Target) -> str:
    """A token that lacks a scope is refused before the request is looked at."""
    wide = []
    for scope in ("read", "submit", "read submit"):
        with target.client(target.mallory, scopes=scope) as client:
            for method, path, right in rights():
                if not path.startswith("/api/v1") or right is None:
                    continue
                response = ask(client, method, path, target.ids)
                if right.scope not in scope.split() and response.status_code != 403:
                    wide.append(f"{scope}: {method} {path}: {response.status_code}")
    return check_cells(wide, target)


@attack("R4", "the owner's routes by a member with all scopes, and wrong, revoked and malformed tokens")
def members(target: Target) -> str:
    """Refused."""
    with target.client(target.mallory) as client:
        body = {"name": "Eve", "password": "nothing that anybody would guess"}
        assert client.get("/api/v1/users").status_code in (403, 404)
        assert client.post("/api/v1/users", json=body).status_code in (403, 404)
        revoked_token = client.post("/api/v1/tokens", json={"name": "short", "scopes": ["read"]}).json()
        client.delete(f"/api/v1/tokens/{revoked_token['id']}").raise_for_status()
    token = target.mallory.token
    for wrong in (revoked_token["token"], token[:-1], token.upper(), "ath_" + "0" * 40, "x", "a b", "a" * 9000):
        with target.client() as client:
            answer = client.get("/api/v1/me", headers={"Authorization": f"Bearer {wrong}"})
            assert answer.status_code in (401, 431), f"{wrong[:12]!r}: {answer.status_code}"
    return target.list_statuses()


@attack("R5", "every changing route by the cookie of a browser that another site makes send it")
def foreign_sites(target: Target) -> str:
    """Refused, whatever the site claims to be."""
    wide = []
    sites = ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site", "Origin": ""})
    with target.client(target.mallory, cookie=True) as client:
        for method, path in routes():
            for site in sites if method != "GET" else ():
                response = client.request(method, path_of(path, target.ids), headers=site, content=b"{}")
                if response.status_code != 403:
                    wide.append(f"{method} {path}: {response.status_code}")
    return check_cells(wide, target)

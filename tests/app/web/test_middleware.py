"""The ground of the web: strange hosts and origins are refused, headers are on every answer, errors have one shape."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from app.core.formatting import compact, file_size, number
from app.core.settings import settings
from app.web.middleware import MAX_VISITOR_BODY_BYTES, max_body_bytes
from app.web.pages import LANGUAGE_COOKIE
from app.web.security_headers import CONTENT_SECURITY_POLICY, SECURITY_HEADERS
from app.web.static_files import STATIC_PATH
from tests.routes import rights

STRANGE_HOSTS = [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.nip.io",
    "",
    "[::2]",
    "10.0.0.1",
    "localhost@evil",
    "[abc",
    "a]b",
    "[::1%",
]
FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Origin": "http://localhost:1"},
    {"Origin": "https://localhost.evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
]


@pytest.mark.parametrize("host", STRANGE_HOSTS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_host_is_rejected(visitor: TestClient, host: str, method: str) -> None:
    answer = visitor.request(method, "/api/v1/me", headers={"Host": host})
    assert answer.status_code == 400
    assert answer.json()["code"] == "host_not_allowed"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000"])
def test_the_default_host_names_are_accepted(visitor: TestClient, host: str) -> None:
    assert visitor.get("/livez", headers={"Host": host}).status_code == 200


def test_further_hosts_can_be_allowed(visitor: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert visitor.get("/livez", headers={"Host": "panel.example"}).status_code == 400
    monkeypatch.setenv("ATHANOR_ALLOWED_HOSTS", "other.example, Panel.example")
    settings.cache_clear()
    try:
        assert visitor.get("/livez", headers={"Host": "panel.example"}).status_code == 200
    finally:
        monkeypatch.undo()
        settings.cache_clear()


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize(("method", "path"), [("GET", "/api/v1/me"), ("POST", "/logout"), ("POST", "/api/v1/tokens")])
def test_cross_site_requests_are_rejected(alice: TestClient, headers: dict[str, str], method: str, path: str) -> None:
    answer = alice.request(method, path, headers={**headers, "Accept": "*/*"})
    assert answer.status_code == 403
    assert alice.get("/api/v1/me").status_code == 200, "the session still stands"


def test_links_from_other_sites_work(visitor: TestClient) -> None:
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert visitor.get("/login", headers=followed).status_code == 200
    assert visitor.post("/login", headers=followed).status_code == 403


def test_same_site_requests_are_accepted(visitor: TestClient) -> None:
    own = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert visitor.post("/api/v1/login", headers=own, json={}).status_code == 422


def paths(client: TestClient) -> list[tuple[str, str]]:
    """Every route with every method, identifiers replaced by an unknown one."""
    found = []
    for route in every_route(client.app.routes, ""):  # type: ignore[attr-defined]
        filled = re.sub(r"\{[^}]+\}", "0000000000000000", route[1])
        found += [(method, filled) for method in sorted(route[0])]
    return sorted(set(found))


def every_route(routes: Iterable[Any], prefix: str) -> Iterator[tuple[set[str], str]]:
    """The routes of the application, those of included routers too."""
    for route in routes:
        if isinstance(route, Route):
            yield route.methods or set(), prefix + route.path
        elif hasattr(route, "original_router"):
            yield from every_route(route.original_router.routes, prefix + route.include_context.prefix)


def test_every_route_answers_visitors_with_security_headers_and_no_server_error(visitor: TestClient) -> None:
    everything = paths(visitor)
    assert len(everything) > 30
    for method, path in [*everything, ("GET", "/nowhere"), ("GET", "/api/v1/nowhere"), ("PATCH", "/livez")]:
        answer = visitor.request(method, path)
        assert answer.status_code < 500, f"{method} {path}: {answer.status_code}"
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value, f"{method} {path} lacks {name}"
        assert answer.headers["X-Request-Id"]
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/jobs/%00", "/jobs/%FF", "/api/v1/jobs/%0a", "/login%7f"])
def test_a_path_that_no_address_has_is_refused_with_all_headers(alice: TestClient, path: str) -> None:
    answer = alice.get(path)
    assert answer.status_code == 400
    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS


def test_a_visitor_at_a_path_in_any_language_is_redirected_to_the_login(visitor: TestClient) -> None:
    answer = visitor.get("/jobs/日")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/jobs/%E6%97%A5")


def test_an_error_that_nothing_handles_has_all_headers_and_one_entry_in_the_log(
    alice: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("app.jobs.service.list_jobs", fail)
    answer = alice.get("/api/v1/jobs")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_an_answer_names_only_the_first_wrong_fields(alice: TestClient) -> None:
    unknown = {f"{n}" + "x" * 1000: n for n in range(900)}
    answer = alice.post("/api/v1/jobs", json={"name": "wide", **unknown})
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 20
    assert re.search(r"; and 88\d other errors$", answer.json()["title"])
    assert len(answer.content) < 20_000


def test_the_policy_allows_no_inline_script_and_no_other_site() -> None:
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert "frame-ancestors 'none'" in CONTENT_SECURITY_POLICY


def test_templates_have_no_inline_script_or_style(root: object) -> None:
    for path in root.glob("templates/**/*.html"):  # type: ignore[attr-defined]
        text = path.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)(?![^>]*type=\"application/json\")", text), path
        assert not re.search(r"<style|\sstyle=|\son\w+=\"|javascript:", text), path


def test_only_static_files_are_served_and_with_their_type(visitor: TestClient) -> None:
    assert visitor.get(f"{STATIC_PATH}/js/missing.js").status_code == 404
    for escape in ("../pyproject.toml", "%2e%2e/pyproject.toml", "..%2fpyproject.toml"):
        assert visitor.get(f"{STATIC_PATH}/{escape}").status_code in (400, 404)


# ---- errors ---------------------------------------------------------------------------------------------------------


def test_api_errors_are_problem_documents_with_code_and_message(visitor: TestClient) -> None:
    answer = visitor.get("/api/v1/nowhere")
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["title"]) == (404, "There is nothing at this address.")
    assert body["request_id"] == answer.headers["X-Request-Id"]


def test_errors_are_in_the_language_of_the_user(visitor: TestClient) -> None:
    visitor.cookies.set(LANGUAGE_COOKIE, "zh-CN")
    title = visitor.get("/api/v1/nowhere").json()["title"]
    assert re.search("[\u4e00-\u9fff]", title)


def test_a_missing_page_gives_an_html_404(visitor: TestClient) -> None:
    answer = visitor.get("/nowhere")
    assert answer.status_code == 404
    assert "There is nothing at this address." in answer.text
    assert answer.headers["content-type"].startswith("text/html")


def test_a_visitor_is_redirected_to_the_login_and_back(visitor: TestClient) -> None:
    answer = visitor.get("/jobs")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/jobs")


@pytest.mark.parametrize("body", ["{", "", "[1, 2", '{"a": }', "nul", "\x00", '"\ud800"'])
def test_invalid_json_is_reported_with_its_position(alice: TestClient, body: str) -> None:
    content = body.encode("utf-8", "surrogatepass")
    answer = alice.post("/api/v1/tokens", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["title"]


# ---- numbers for people ---------------------------------------------------------------------------------------------


def test_numbers_are_formatted_for_reading() -> None:
    assert number(1234567) == "1,234,567"
    assert [compact(n) for n in (0, 999, 1234, 5_600_000, 124e6, 6.7e9)] == [
        "0",
        "999",
        "1.23 k",
        "5.6 M",
        "124 M",
        "6.7 B",
    ]
    assert [file_size(n) for n in (0, 1023, 1024, 5 * 2**20, 3 * 2**40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 MiB",
        "3.0 TiB",
    ]
    assert {number(None), compact(None), file_size(None)} == {"–"}


def test_a_declared_body_over_the_limit_is_rejected_before_authentication(visitor: TestClient) -> None:
    answer = visitor.post("/api/v1/login", content=b" " * (2**20 + 1))
    assert answer.status_code == 413
    assert "16.0 KiB" in answer.json()["title"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/login", {"name": "SURROGATE", "password": "x"}),
        ("/login", {"name": "Alice", "password": "SURROGATE"}),
        ("/password-reset", {"code": "SURROGATE", "password": "x"}),
        ("/invitations/accept", {"code": "SURROGATE", "name": "x", "password": "x"}),
        ("/nodes/join", {"token": "SURROGATE", "name": "x", "revision": "x"}),
        ("/me/password", {"present_password": "SURROGATE", "password": "x"}),
    ],
)
def test_an_unpaired_surrogate_is_no_error_of_the_server(alice: TestClient, path: str, body: dict[str, str]) -> None:
    content = json.dumps(body).replace("SURROGATE", r"\ud800")
    answer = alice.post(f"/api/v1{path}", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "not_storable")


def test_every_form_for_visitors_takes_only_small_bodies() -> None:
    paths = {path for method, path, right in rights() if right is None and method != "GET"}
    assert {path: max_body_bytes(path) for path in paths} == dict.fromkeys(paths, MAX_VISITOR_BODY_BYTES)


def test_a_body_over_the_limit_is_cut_off(visitor: TestClient) -> None:
    pieces = (b" " * 2**16 for _n in range(64))
    answer = visitor.post("/api/v1/login", content=pieces)
    assert answer.status_code == 413
    assert answer.json()["title"].startswith("The request body is too large")

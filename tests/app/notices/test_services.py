"""Notices to services by their Apprise URLs: to a real JSON endpoint on loopback."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import delete, update
from starlette.testclient import TestClient

from app.core import db
from app.core.account_models import User
from app.core.models import Job
from app.core.notice_models import NoticeService, NoticeSettings, UserNotice
from app.core.settings import settings
from app.notices import apprise_process, services
from app.notices.apprise_child import Guard
from tests.app.jobs import factories
from tests.app.notices.test_email import deliver_due, finish_job, make_due, rows
from tests.users import Person

SERVICES = "/api/v1/notice-settings/services"
SECRET = "opensesame"


class Endpoint(ThreadingHTTPServer):
    """Keeps the notices that arrive at 127.0.0.1, and answers them with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.notices: list[dict[str, Any]] = []
        self.status = 200

    @property
    def url(self) -> str:
        """The Apprise URL, with a password."""
        return f"json://user:{SECRET}@127.0.0.1:{self.server_port}/notices"


class Handler(BaseHTTPRequestHandler):
    """Takes a notice; a redirect leads to another private address."""

    server: Endpoint

    def do_POST(self) -> None:
        self.server.notices.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.status)
        self.send_header("Location", f"http://127.0.0.2:{self.server.server_port}/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The operator lists the host of the endpoint."""
    monkeypatch.setenv("ATHANOR_WEBHOOK_HOSTS", "127.0.0.1")
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture(autouse=True)
def empty(database: str) -> Iterator[None]:
    factories.node(slots=100)
    yield
    with db.transaction() as session:
        for table in (UserNotice, NoticeService, NoticeSettings, Job):
            session.execute(delete(table))


def add(client: TestClient, url: str, name: str = "Team") -> dict[str, Any]:
    answer = client.post(SERVICES, json={"name": name, "url": url})
    assert answer.status_code == 201, answer.text
    row: dict[str, Any] = answer.json()
    return row


def chosen(client: TestClient) -> dict[str, Any]:
    answer: dict[str, Any] = client.get("/api/v1/notice-settings").json()
    return answer


@pytest.mark.usefixtures("listed")
def test_an_owner_is_notified_through_a_service_whose_secrets_are_not_shown(
    alice_user: Person, alice: TestClient, endpoint: Endpoint
) -> None:
    added = add(alice, endpoint.url)
    assert (added["name"], added["scheme"], added["error"]) == ("Team", "json", None)
    alice.patch("/api/v1/notice-settings", json={"language": "zh-CN"})
    job_id = finish_job(alice_user)
    assert deliver_due() == 1
    (notice,) = endpoint.notices
    assert (notice["title"], notice["type"]) == ("Athanor: “Scribe”已完成", "success")
    assert f"/jobs/{job_id}" in notice["message"]
    assert rows()[0].delivered_at is not None
    texts = [alice.get(path).text for path in ("/api/v1/notice-settings", "/account/notices", "/notices")]
    assert not [text for text in texts if SECRET in text or str(endpoint.server_port) in text]
    assert "Team" in texts[0]
    assert "json://" in texts[1]


@pytest.mark.usefixtures("listed")
def test_a_failed_notice_is_sent_again_and_its_owner_sees_why(
    alice_user: Person, alice: TestClient, endpoint: Endpoint
) -> None:
    add(alice, endpoint.url)
    finish_job(alice_user)
    endpoint.status = 500
    deliver_due()
    (row,) = rows()
    assert (row.error, row.due_at is None) == ("service_refused", False)
    sentence = "The service cannot be reached, or did not accept the notice."
    assert chosen(alice)["services"][0]["error"] == sentence
    assert f"Team: {sentence}" in alice.get("/notices").text
    assert sentence in alice.get("/account/notices").text
    endpoint.status = 200
    make_due()
    assert deliver_due() == 1
    assert rows()[0].delivered_at is not None
    assert chosen(alice)["services"][0]["error"] is None


@pytest.mark.usefixtures("listed")
def test_a_redirect_to_a_private_address_is_not_followed(
    alice_user: Person, alice: TestClient, endpoint: Endpoint
) -> None:
    add(alice, endpoint.url)
    finish_job(alice_user)
    endpoint.status = 307
    deliver_due()
    assert rows()[0].error == "service_private"


def test_a_host_that_is_listed_no_more_gets_nothing(alice_user: Person, endpoint: Endpoint) -> None:
    with db.transaction() as session:
        session.add(NoticeSettings(user_id=alice_user.id))
        session.add(NoticeService(user_id=alice_user.id, name="Team", scheme="json", url=endpoint.url))
    finish_job(alice_user)
    deliver_due()
    assert (rows()[0].error, endpoint.notices) == ("service_private", [])


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("json://127.0.0.1/x", "service_private"),
        ("gotify://[::1]/token", "service_private"),
        ("nowhere://x", "service_unknown"),
        ("discord://", "service_unknown"),
        ("https", "service_unknown"),
        ("json://exa\nmple.com", "service_unknown"),
        ("syslog://", "service_local"),
        ("DBus://", "service_local"),
    ],
)
def test_what_cannot_be_reached_is_refused(alice: TestClient, url: str, code: str) -> None:
    answer = alice.post(SERVICES, json={"name": "Team", "url": url})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert answer.json()["errors"][0]["field"] == "url"
    assert chosen(alice)["services"] == []


def test_a_service_of_the_internet_is_accepted_without_being_reached(alice: TestClient) -> None:
    assert add(alice, "discord://123456789012345678/" + "abcdef" * 11)["scheme"] == "discord"


@pytest.mark.usefixtures("listed")
def test_services_are_in_the_audit_log_without_their_addresses(alice: TestClient) -> None:
    row = add(alice, "discord://123456789012345678/" + "abcdef" * 11)
    assert alice.delete(f"{SERVICES}/{row['id']}").is_success
    log = alice.get("/api/v1/audit-log")
    newest = [(one["action"], one["subject"], one["detail"]) for one in log.json()["data"][:2]]
    assert newest == [
        ("notice_service_removed", "Team", "discord"),
        ("notice_service_added", "Team", "discord"),
    ]
    assert "abcdef" not in log.text


@pytest.mark.usefixtures("listed")
def test_a_test_says_whether_the_service_accepts_it(alice: TestClient, endpoint: Endpoint) -> None:
    service_id = add(alice, endpoint.url)["id"]
    assert alice.post(f"{SERVICES}/{service_id}/test").status_code == 204
    assert endpoint.notices[0]["title"] == "Athanor: Test"
    endpoint.status = 400
    answer = alice.post(f"/account/notices/services/{service_id}/test")
    assert answer.status_code == 502
    assert "did not accept" in answer.text


def test_a_service_that_is_slow_is_given_up(alice: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apprise_process, "WAIT_SECONDS", 0.01)
    answer = alice.post(SERVICES, json={"name": "Team", "url": "json://example.com"})
    assert (answer.status_code, answer.json()["code"]) == (502, "service_failed")
    assert "in time" in answer.text


def store(person: Person) -> str:
    """The ID of a service that is stored without being checked."""
    with db.transaction() as session:
        session.add(NoticeSettings(user_id=person.id))
        row = NoticeService(user_id=person.id, name="Team", scheme="json", url="json://127.0.0.1:1")
        session.add(row)
        session.flush()
        return row.id


def test_the_channel_can_be_muted(alice_user: Person, alice: TestClient) -> None:
    store(alice_user)
    assert chosen(alice)["offered_channels"] == ["page", "browser", "service"]
    alice.patch("/api/v1/notice-settings", json={"channels": {"job_finished": ["page"]}})
    finish_job(alice_user)
    assert rows() == []


def test_what_is_removed_gets_nothing_more(alice_user: Person, alice: TestClient) -> None:
    service_id = store(alice_user)
    finish_job(alice_user)
    assert len(rows()) == 1
    assert alice.post(f"/account/notices/services/{service_id}/remove").status_code == 303
    assert (rows(), chosen(alice)["services"]) == ([], [])


def test_services_are_for_owners(alice_user: Person, alice: TestClient, bob: TestClient) -> None:
    assert bob.post(SERVICES, json={"name": "Team", "url": "json://example.com"}).json()["code"] == "role_missing"
    assert 'id="services"' in alice.get("/account/notices").text
    assert 'id="services"' not in bob.get("/account/notices").text
    assert "service" not in chosen(bob)["offered_channels"]
    store(alice_user)
    try:
        with db.transaction() as session:
            session.execute(update(User).where(User.id == alice_user.id).values(role="admin"))
        finish_job(alice_user)
        assert rows() == []
    finally:
        with db.transaction() as session:
            session.execute(update(User).where(User.id == alice_user.id).values(role="owner"))


def test_their_number_is_limited(alice_user: Person, alice: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    store(alice_user)
    monkeypatch.setattr(services, "MAX_SERVICES", 1)
    answer = alice.post("/account/notices/services", data={"name": "Team", "url": "json://example.com"})
    assert answer.status_code == 422
    assert "as many services as there can be: 1" in answer.text


def test_without_the_package_a_sentence_says_so(alice: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apprise_process, "find_spec", lambda _name: None)
    answer = alice.post(SERVICES, json={"name": "Team", "url": "json://example.com"})
    assert (answer.status_code, answer.json()["code"]) == (409, "apprise_missing")
    assert "The package apprise is not installed" in alice.get("/account/notices").text
    assert "service" not in chosen(alice)["offered_channels"]


def test_the_child_starts_no_programs_and_reads_no_files() -> None:
    guard = Guard([])
    refused = [
        ("subprocess.Popen", ("true", [], None, None)),
        ("os.system", (b"true",)),
        ("open", ("/etc/passwd", "r", 0)),
        ("open", (f"{os.path.dirname(os.__file__)}/../../../../../../etc/passwd", "r", 0)),
        ("socket.connect", (None, "/run/dbus/system_bus_socket")),
        ("socket.connect", (None, ("::1", 80, 0, 0))),
        ("socket.connect", (None, ("localhost", 80))),
        ("socket.sendto", (None, ("10.0.0.1", 514))),
    ]
    for event, arguments in refused:
        with pytest.raises(PermissionError):
            guard(event, arguments)
    guard("socket.connect", (None, ("1.1.1.1", 443)))
    guard("open", (os.__file__, "r", 0))
    Guard(["127.0.0.1"])("socket.connect", (None, ("127.0.0.1", 80)))

"""Requests that fail: errors as exceptions, what is repeated and how, streams and downloads that break off."""

import hashlib
import json
import socket
from pathlib import Path

import pytest

from app.client import BrokenDownload, Client, InvalidRequest, NotLoggedIn, ServerBusy, ServerUnreachable, login
from app.client import transport as transport_module
from app.client.errors import NotFound
from app.client.login import StoredLogin
from app.client.shapes import FileInfo
from tests.app.client.scripted_server import answer, broken, cut_off, events, problem, serving

USER = {"id": "u", "name": "Alice", "role": "owner", "scopes": ["read"]}
CONTENT = bytes(range(256)) * 40
EXPORTED = FileInfo(name="model.gguf", size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(transport_module, "CONNECTION_PAUSES", (0.0, 0.0))


def test_a_problem_is_an_exception_with_its_code_fields_and_sentence() -> None:
    with serving(problem(422, "spec_invalid", "max_steps", "precision")) as server, Client(server.url, "t") as client:
        with pytest.raises(InvalidRequest, match="A sentence") as caught:
            client.jobs.submit({})
        assert (caught.value.status, caught.value.code, caught.value.field) == (422, "spec_invalid", "max_steps")
        assert [field.message for field in caught.value.fields] == ["max_steps is wrong.", "precision is wrong."]
        assert caught.value.request_id == "r1"
        assert len(server.requests) == 1


def test_the_answer_of_a_proxy_is_an_exception_too() -> None:
    with (
        serving(answer(401, b"<html>no</html>")) as server,
        Client(server.url, "t") as client,
        pytest.raises(NotLoggedIn),
    ):
        client.me()


def test_a_request_is_repeated_with_its_key_when_the_connection_breaks_or_the_server_says_when() -> None:
    task = problem(503, "busy", retry_after="0")
    with serving(broken, task, problem(422, "spec_invalid")) as server, Client(server.url, "t") as client:
        with pytest.raises(InvalidRequest):
            client.jobs.submit({"recipe": "tiny"})
        assert len(server.requests) == 3
        assert len({request.headers["idempotency-key"] for request in server.requests}) == 1
        assert {request.body for request in server.requests} == {b'{"recipe":"tiny"}'}


def test_two_requests_have_different_keys() -> None:
    with serving(problem(422, "spec_invalid")) as server, Client(server.url, "t") as client:
        for _n in range(2):
            with pytest.raises(InvalidRequest):
                client.jobs.submit({})
        first, second = server.requests
        assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


@pytest.mark.parametrize("headers", [{}, {"retry_after": "3600"}])
def test_a_quota_or_a_long_wait_is_reported_at_once(headers: dict[str, str]) -> None:
    with serving(problem(429, "quota", **headers)) as server, Client(server.url, "t") as client:
        with pytest.raises(ServerBusy):
            client.jobs.submit({})
        assert len(server.requests) == 1


def test_an_upload_is_repeated_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(CONTENT)
    busy = problem(503, "busy", retry_after="0")
    with serving(busy, problem(422, "file_empty")) as server, Client(server.url, "t") as client:
        with pytest.raises(InvalidRequest):
            client.corpora.upload(path)
        assert [request.body for request in server.requests] == [CONTENT, CONTENT]


def test_a_deletion_that_is_repeated_may_find_nothing() -> None:
    gone = problem(404, "not_found")
    with serving(broken, gone) as server, Client(server.url, "t") as client:
        client.jobs.delete("j")
    with serving(gone) as server, Client(server.url, "t") as client, pytest.raises(NotFound):
        client.jobs.delete("j")


def test_a_server_that_is_not_there_is_reported_with_its_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with Client(url, "t") as client, pytest.raises(ServerUnreachable, match=url):
        client.me()


def test_ids_cannot_leave_their_place_in_an_address() -> None:
    with serving(problem(404, "not_found")) as server, Client(server.url, "t") as client:
        with pytest.raises(NotFound):
            client.jobs.get("../users?x=1")
        assert server.requests[0].path == "/api/v1/jobs/..%2Fusers%3Fx%3D1"


# ---- streams --------------------------------------------------------------------------------------------------------


def test_a_broken_stream_continues_behind_its_last_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.client.jobs.RECONNECT_PAUSE", 0.0)
    first = events(("1", "points", {"n": 1}), ("2", "points", {"n": 2}))
    second = events(("3", "points", {"n": 3}), ("4", "job", {"state": "succeeded"}), ("5", "log", {"n": 5}))
    last = events(("5", "log", {"n": 5}))
    with serving(first, broken, second, last) as server, Client(server.url, "t") as client:
        received = list(client.jobs.events("j"))
        assert [event.id for event in received] == ["1", "2", "3", "4", "5"]
        assert [request.headers.get("last-event-id") for request in server.requests] == [None, "2", "2", "4"]


# ---- downloads ------------------------------------------------------------------------------------------------------


def test_a_download_that_breaks_off_is_continued_and_verified(tmp_path: Path) -> None:
    rest = answer(206, CONTENT[5000:])
    with serving(cut_off(CONTENT[:5000], len(CONTENT)), rest) as server, Client(server.url, "t") as client:
        path = client.exports.download_file("t", EXPORTED, tmp_path)
        assert path.read_bytes() == CONTENT
        assert [request.headers.get("range") for request in server.requests] == [None, "bytes=5000-"]
        client.exports.download_file("t", EXPORTED, tmp_path)
        assert len(server.requests) == 2  # what is there and intact is not downloaded again
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["model.gguf"]


def test_a_download_of_an_earlier_call_is_continued(tmp_path: Path) -> None:
    (tmp_path / "model.gguf.part").write_bytes(CONTENT[:700])
    with serving(answer(206, CONTENT[700:])) as server, Client(server.url, "t") as client:
        assert client.exports.download_file("t", EXPORTED, tmp_path).read_bytes() == CONTENT
        assert server.requests[0].headers["range"] == "bytes=700-"


def test_a_damaged_download_is_deleted(tmp_path: Path) -> None:
    damaged, refusal = answer(200, b"x" * len(CONTENT)), pytest.raises(BrokenDownload, match=r"model\.gguf")
    with serving(damaged) as server, Client(server.url, "t") as client, refusal:
        client.exports.download_file("t", EXPORTED, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == []


# ---- login ----------------------------------------------------------------------------------------------------------


def test_a_login_is_stored_for_its_user_only_and_sent_to_its_server_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answer(200, USER)) as server, serving(answer(200, USER)) as other:
        login.write(StoredLogin(server.url, "ath_secret"))
        assert login.path().stat().st_mode & 0o777 == 0o600
        for client in (Client(), Client(other.url), Client(server.url + "/")):
            with client:
                client.me()
        assert [request.headers.get("authorization") for request in server.requests] == ["Bearer ath_secret"] * 2
        assert [request.headers.get("authorization") for request in other.requests] == [None]
        monkeypatch.setenv("ATHANOR_URL", other.url)
        monkeypatch.setenv("ATHANOR_TOKEN", "ath_other")
        with Client() as client:
            assert client.me().name == "Alice"
        assert other.requests[-1].headers["authorization"] == "Bearer ath_other"


def test_a_damaged_login_is_no_login() -> None:
    login.write(StoredLogin("http://localhost", "ath_secret"))
    login.path().write_text(json.dumps({"token": ["?"], "more": 1}))
    assert login.read() == StoredLogin()

"""Corpora from an address: which addresses are allowed, the task that downloads and parses, and its page."""

import socket
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from app.core import db, disk, quotas, storage
from app.core.account_models import User
from app.core.settings import settings
from app.corpora import downloads
from tests.app.corpora.test_versions import read, texts
from tests.background import forget_waiting, run_waiting
from tests.users import Person
from tests.worker.sandbox.test_corpus_download import FileServer, file_server, files, redirect, send
from worker.background import download
from worker.background.download import command

__all__ = ["files"]  # a fixture
TEXT = "春天来了。\n".encode() * 50


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ATHANOR_DOWNLOAD_HOSTS", "data.example.org, http://127.0.0.1")
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


def start(client: TestClient, url: str, **more: str) -> dict[str, object]:
    answer = client.post("/api/v1/corpora/from-url", json={"url": url, **more})
    assert answer.status_code == 201, answer.text
    corpus: dict[str, object] = answer.json()
    return corpus


def test_without_a_list_nothing_is_downloaded(alice: TestClient) -> None:
    answer = alice.post("/api/v1/corpora/from-url", json={"url": "https://93.184.216.34/a.txt"})
    assert (answer.status_code, answer.json()["code"]) == (403, "downloads_off")
    assert 'id="download"' not in alice.get("/corpora").text


@pytest.mark.parametrize(
    ("url", "code", "field"),
    [
        ("https://elsewhere.example.org/a.txt", "url_refused", "url"),
        ("http://data.example.org/a.txt", "url_refused", "url"),
        ("https://127.0.0.2/a.txt", "url_refused", "url"),
        ("https://169.254.169.254/latest.txt", "url_refused", "url"),
        ("ftp://data.example.org/a.txt", "url_invalid", "url"),
        ("https://me:secret@data.example.org/a.txt", "url_invalid", "url"),
        ("http://127.0.0.1:9/", "filename_missing", "filename"),
        ("http://127.0.0.1:9/a.exe", "filename_extension", "filename"),
    ],
)
@pytest.mark.usefixtures("allowed")
def test_addresses_that_are_not_allowed_are_refused(alice: TestClient, url: str, code: str, field: str) -> None:
    answer = alice.post("/api/v1/corpora/from-url", json={"url": url})
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert answer.json()["errors"][0]["field"] == field
    assert run_waiting() == 0


@pytest.mark.usefixtures("allowed")
def test_a_listed_host_that_resolves_to_a_private_address_is_refused(
    alice: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: [(2, 1, 6, "", ("10.0.0.1", 443))])
    answer = alice.post("/api/v1/corpora/from-url", json={"url": "https://data.example.org/a.txt"})
    assert answer.json()["code"] == "url_refused"


@pytest.mark.usefixtures("allowed")
def test_a_file_is_downloaded_and_parsed(alice: TestClient, bob: TestClient, files: FileServer) -> None:
    files.answer = lambda request: send(request, TEXT)
    url = f"http://127.0.0.1:{files.port}/texts/spring%20days.txt?key=1"
    started = start(alice, url, name="Spring")
    assert (started["state"], started["filename"], started["num_bytes"]) == ("parsing", "spring days.txt", 0)
    corpus = read(alice, str(started["id"]))
    assert (corpus["state"], corpus["name"], corpus["num_bytes"]) == ("ready", "Spring", len(TEXT))
    assert texts(corpus["id"]) == [TEXT.decode()]
    (file,) = alice.get(f"/api/v1/corpora/{corpus['id']}/files").json()["data"]
    assert (file["url"], file["sha256"]) == (url, corpus["sha256"])
    assert len(corpus["sha256"]) == 64
    assert bob.get(f"/api/v1/corpora/{corpus['id']}").status_code == 404
    alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={})
    read(alice, corpus["id"])
    assert len(files.requests) == 1, "it is downloaded once"


@pytest.mark.usefixtures("allowed")
def test_a_failed_download_says_why_and_continues_when_the_corpus_is_read_again(
    alice: TestClient, files: FileServer
) -> None:
    files.answer = redirect("http://localhost/end.txt")
    corpus = read(alice, str(start(alice, f"http://127.0.0.1:{files.port}/a.txt")["id"]))
    assert corpus["state"] == "failed"
    assert corpus["problems"][0]["code"] == "download_redirected"
    assert "localhost" in corpus["problems"][0]["message"]
    assert alice.get(f"/corpora/{corpus['id']}").status_code == 200
    files.answer = send
    files.answer = lambda request: send(request, TEXT)
    alice.post(f"/api/v1/corpora/{corpus['id']}/parse", json={})
    assert read(alice, corpus["id"])["state"] == "ready"


@pytest.mark.usefixtures("allowed")
def test_a_redirect_to_another_listed_host_is_followed(alice: TestClient, files: FileServer) -> None:
    with file_server() as storage_host:
        storage_host.answer = lambda request: send(request, TEXT)
        files.answer = redirect(f"http://127.0.0.1:{storage_host.port}/blobs/1?signature=2")
        corpus = read(alice, str(start(alice, f"http://127.0.0.1:{files.port}/a.txt")["id"]))
        assert (corpus["state"], texts(corpus["id"])) == ("ready", [TEXT.decode()])
        assert storage_host.requests[0][0] == "/blobs/1?signature=2"
        files.answer = redirect(f"http://127.0.0.1:{storage_host.port}/b.txt")
        storage_host.answer = redirect(f"http://127.0.0.1:{files.port}/b.txt")
        corpus = read(alice, str(start(alice, f"http://127.0.0.1:{files.port}/b.txt")["id"]))
        assert corpus["problems"][0]["code"] == "download_redirects"


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("host", ["http://localhost", "http://169.254.169.254", "https://127.0.0.2", "http://[::1]"])
def test_a_redirect_to_a_host_that_is_not_listed_reaches_nothing(
    alice: TestClient, files: FileServer, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    connected: list[str] = []
    monkeypatch.setattr(
        download, "command", lambda *arguments: connected.append(arguments[1].host) or command(*arguments)
    )
    files.answer = redirect(f"{host}/end.txt")
    corpus = read(alice, str(start(alice, f"http://127.0.0.1:{files.port}/a.txt")["id"]))
    assert corpus["problems"][0]["code"] == "download_redirected"
    assert connected == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("page", "file"),
    [
        (
            "https://huggingface.co/datasets/me/set/blob/main/data/train.parquet?library=true",
            "https://huggingface.co/datasets/me/set/resolve/main/data/train.parquet",
        ),
        ("https://github.com/me/code/blob/main/a.txt#L3", "https://github.com/me/code/raw/main/a.txt"),
        ("https://data.example.org/blob/main/a.txt?key=1", "https://data.example.org/blob/main/a.txt?key=1"),
        (
            "https://huggingface.co.evil.example/datasets/a/b/blob/c",
            "https://huggingface.co.evil.example/datasets/a/b/blob/c",
        ),
    ],
)
def test_the_address_of_a_page_that_shows_a_file_becomes_that_of_the_file(page: str, file: str) -> None:
    assert downloads.file_address(page) == file
    assert not downloads.PAGE_OF_FILES.fullmatch(file)


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co/datasets/me/set/discussions",
        "https://huggingface.co/datasets/me/set/viewer/default/train?row=2",
        "https://github.com/me/code#readme",
    ],
)
def test_other_pages_with_many_files_ask_for_the_page_of_a_file(alice: TestClient, url: str) -> None:
    refused = alice.post("/api/v1/corpora/from-url", json={"url": url})
    assert (refused.status_code, refused.json()["code"]) == (422, "url_of_page")
    assert refused.json()["errors"][0]["field"] == "url"


@pytest.mark.usefixtures("allowed")
def test_a_host_that_is_no_longer_listed_is_not_reached(
    alice: TestClient, files: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start(alice, f"http://127.0.0.1:{files.port}/a.txt")
    monkeypatch.setenv("ATHANOR_DOWNLOAD_HOSTS", "data.example.org")
    settings.cache_clear()
    corpus = read(alice, str(started["id"]))
    assert corpus["problems"][0]["code"] == "download_address"
    assert files.requests == []


@pytest.mark.usefixtures("allowed")
def test_a_quota_limits_the_download(alice: TestClient, files: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "max_bytes", lambda session, corpus_id, owner_id: 100)
    files.answer = lambda request: send(request, TEXT)
    corpus = read(alice, str(start(alice, f"http://127.0.0.1:{files.port}/a.txt")["id"]))
    assert corpus["problems"][0]["code"] == "download_too_large"


@pytest.mark.usefixtures("allowed")
def test_the_page_downloads_too(alice: TestClient, files: FileServer) -> None:
    files.answer = lambda request: send(request, TEXT)
    assert "data.example.org" in alice.get("/corpora").text
    sent = {"url": f"http://127.0.0.1:{files.port}/a.txt", "name": ""}
    answer = alice.post("/corpora/download", data=sent, follow_redirects=False)
    assert answer.status_code == 303
    run_waiting()
    assert "春天来了" in alice.get(answer.headers["location"]).text
    refused = alice.post("/corpora/download", data={"url": "https://elsewhere.example.org/a.txt"})
    assert refused.status_code == 422
    assert "https://elsewhere.example.org/a.txt" in refused.text


@pytest.mark.parametrize(
    ("url", "filename", "field"),
    [("https://elsewhere.example.org/a", "days.txt", "url"), ("http://127.0.0.1:9/a.txt", "days.exe", "filename")],
)
@pytest.mark.usefixtures("allowed")
def test_a_refused_form_keeps_what_was_typed_and_has_its_error_at_the_field(
    alice: TestClient, url: str, filename: str, field: str
) -> None:
    answer = alice.post("/corpora/download", data={"url": url, "filename": filename, "name": "Spring days"})
    assert answer.status_code == 422
    form = answer.text.partition('id="download"')[2].partition("</form>")[0]
    assert form.startswith(" open")
    assert all(f'value="{value}"' in form for value in (url, filename, "Spring days"))
    assert form.count('class="error"') == 1
    assert f'id="download-{field}-error"' in form
    assert 'class="alert bad"' not in answer.text


def test_a_refusal_of_no_field_stands_in_the_form(
    alice: TestClient, allowed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "room", lambda: 0)
    answer = alice.post("/corpora/download", data={"url": "http://127.0.0.1:9/a.txt", "name": "Spring days"})
    assert answer.status_code == 422
    form = answer.text.partition('id="download"')[2].partition("</form>")[0]
    assert 'role="alert"' in form
    assert "is full" in form
    assert 'value="Spring days"' in form


def test_the_limit_is_the_same_while_the_file_arrives(
    alice: TestClient, alice_user: Person, allowed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus_id = str(start(alice, "http://127.0.0.1:9/a.txt")["id"])
    with db.transaction() as session:
        before = quotas.used_bytes(session, alice_user.id)
        session.get_one(User, alice_user.id).quota_bytes = before + 900

    def limit(room: int) -> int:
        monkeypatch.setattr(disk, "room", lambda: room)
        with db.transaction() as session:
            return downloads.max_bytes(session, corpus_id, alice_user.id)

    assert (limit(1_000), limit(10**9)) == (500, 900)
    part = storage.corpus_download(corpus_id)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 400)
    assert (limit(600), limit(10**9)) == (500, 900)
    with db.transaction() as session:
        assert quotas.used_bytes(session, alice_user.id) == before + 400
        session.get_one(User, alice_user.id).quota_bytes = None
    forget_waiting()

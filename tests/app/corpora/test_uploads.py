"""Uploads: streamed to disk, limited in size, hashed, and deleted if they are interrupted."""

import errno
import hashlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import anyio
import pytest
import uvicorn
from sqlalchemy import select
from starlette.testclient import TestClient

from app.core import db, disk, queue, storage
from app.core.errors import PanelError
from app.core.models import Corpus, Outbox
from app.core.settings import settings
from app.web import uploads
from tests.users import Person
from tests.waiting import until


@pytest.fixture
def small_limit(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setenv("ATHANOR_MAX_UPLOAD_BYTES", "3000000")
    settings.cache_clear()
    yield 3_000_000
    monkeypatch.undo()
    settings.cache_clear()


def folders() -> set[str]:
    root = storage.data() / "corpora"
    return {path.name for path in root.iterdir()} if root.exists() else set()


def post(client: TestClient, content: Any = b"some text", **params: str) -> Any:
    return client.post("/api/v1/corpora", params={"filename": "text.txt", **params}, content=content)


def test_an_upload_is_stored_unchanged_with_its_hash(alice: TestClient) -> None:
    content = b"Ignis est in athanore.\n" * 200_000
    answer = post(alice, content, name="Athanor", filename="a.TXT")
    corpus = answer.json()
    assert answer.status_code == 201
    assert corpus["sha256"] == hashlib.sha256(content).hexdigest()
    assert (corpus["num_bytes"], corpus["state"], corpus["name"]) == (len(content), "parsing", "Athanor")
    assert (storage.corpus(corpus["id"]) / "upload").read_bytes() == content


def test_a_corpus_without_a_name_is_named_after_its_file(alice: TestClient) -> None:
    assert post(alice, filename="红楼梦 第一回.md").json()["name"] == "红楼梦 第一回"


def test_the_notification_of_the_worker_is_sent_after_the_commit(
    alice: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[Any, ...]] = []
    monkeypatch.setattr(queue, "send", lambda task, *args, queue: sent.append((task, *args, queue)))
    post(alice)
    assert (queue.RUN_BACKGROUND_TASKS, queue.BACKGROUND_QUEUE) in sent
    with db.transaction() as session:
        assert session.scalars(select(Outbox)).all() == []


@pytest.mark.parametrize("filename", ["a.exe", "a.txt.zip.gz", "txt", "", ".", "a.", "jsonl", "a.png"])
def test_unsupported_file_types_are_rejected_by_name(alice: TestClient, filename: str) -> None:
    before = folders()
    answer = post(alice, filename=filename)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "filename"
    assert "HTML, PDF, Word (.docx), EPUB" in answer.json()["title"]
    assert folders() == before


@pytest.mark.parametrize(
    "filename",
    [
        "../../etc/passwd.txt",
        "/etc/shadow.txt",
        "..\\..\\boot.txt",
        "%2e%2e%2fx.txt",
        "CON.txt",
        "a/b/c.txt",
        "．．/x.txt",
    ],
)
def test_a_name_is_never_used_as_a_path(alice: TestClient, filename: str) -> None:
    corpus = post(alice, filename=filename).json()
    assert corpus["filename"] == filename
    assert sorted(path.name for path in storage.corpus(corpus["id"]).iterdir()) == ["upload"]
    assert {path.name for path in storage.data().iterdir()} == {"corpora"}


@pytest.mark.parametrize("filename", ["a\u0000.txt", "a\u202etxt.txt", "a\n.txt", "x" * 300 + ".txt"])
def test_unprintable_names_are_rejected(alice: TestClient, filename: str) -> None:
    answer = post(alice, filename=filename)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "filename")


def test_an_empty_file_is_rejected_and_leaves_nothing(alice: TestClient) -> None:
    before = folders()
    answer = post(alice, b"")
    assert answer.json()["errors"] == [{"field": "file", "message": "The file is empty."}]
    assert folders() == before


def test_an_unknown_encoding_is_rejected_by_name(alice: TestClient) -> None:
    answer = post(alice, encoding="klingon")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "encoding")
    assert "gb18030" in answer.json()["title"]


def test_a_content_length_over_the_limit_is_rejected_before_reading(alice: TestClient, small_limit: int) -> None:
    read: list[bytes] = []

    def body() -> Iterator[bytes]:
        read.append(b"x")
        yield b"x"

    headers = {"Content-Length": str(10 * 2**30)}
    before = folders()
    answer = alice.post("/api/v1/corpora", params={"filename": "big.txt"}, content=body(), headers=headers)
    assert answer.status_code == 413
    assert answer.json()["errors"] == [{"field": "file", "message": "The file is larger than the limit of 2.9 MiB."}]
    assert folders() == before


def test_an_upload_without_a_content_length_is_stopped_at_the_limit(alice: TestClient, small_limit: int) -> None:
    before = folders()
    answer = alice.post("/api/v1/corpora", params={"filename": "big.txt"}, content=(b"x" * 65536 for _n in range(100)))
    assert answer.status_code == 413
    assert folders() == before


def test_a_full_disk_is_reported_before_the_upload(alice: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "room", lambda: 16)
    before = folders()
    assert post(alice, b"12345678").status_code == 201
    answer = post(alice, b"123456789")  # it, and its parsed text
    assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
    assert "This needs 18 B of disk space, but only 16 B is left." in answer.json()["title"]
    assert len(folders() - before) == 1


@pytest.mark.parametrize("path", ["/api/v1/corpora?filename=a.txt", "/corpora", "model"])
def test_every_upload_of_unknown_length_stops_before_the_reserve(
    alice: TestClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    if path == "model":
        model_id = alice.post("/api/v1/models", json={"name": "big"}).json()["id"]
        path = f"/api/v1/models/{model_id}/files/model.safetensors"
    method = "PUT" if "models" in path else "POST"
    before = set(storage.data().rglob("*"))
    monkeypatch.setattr(disk, "room", lambda: 5_000_000 - written())

    def written() -> int:
        files = [file for file in storage.data().rglob("*") if file.is_file() and file not in before]
        return sum(file.stat().st_size for file in files)

    head = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n' if path == "/corpora" else b""
    )
    body = chain([head], (b"x" * 65536 for _n in range(200)))
    answer = alice.request(method, path, content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 507
    assert "The disk is full; the file was not saved." in answer.text
    assert written() == 0


@pytest.fixture
def address(web: TestClient) -> Iterator[tuple[str, int]]:
    """The application on a real socket."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(web.app, lifespan="off", log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()
        server.should_exit = True
        thread.join()


def test_an_aborted_upload_leaves_no_file_and_no_row(address: tuple[str, int], alice_user: Person) -> None:
    before = folders()
    head = (
        f"POST /api/v1/corpora?filename=cut.txt HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50000000\r\n"
        f"Authorization: Bearer {alice_user.token()}\r\n\r\n"
    )
    with socket.create_connection(address) as client:
        client.sendall(head.encode() + b"x" * 5_000_000)
        began = until(lambda: folders() - before, what="the upload to begin")
    until(lambda: folders() == before, what="the upload to be removed")
    with db.transaction() as session:
        assert session.get(Corpus, began.pop()) is None


def test_a_disk_that_fills_up_is_reported_and_nothing_is_left(
    alice: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("app.web.uploads.os.fsync", no_space)
    before = folders()
    answer = post(alice)
    assert (answer.status_code, answer.json()["title"]) == (507, "The disk is full; the file was not saved.")
    assert folders() == before


def test_memory_stays_constant_for_any_upload_size(alice: TestClient) -> None:
    held: list[int] = []

    class Chunk(bytes):
        def __del__(self) -> None:
            held.append(-1)

    def body() -> Iterator[bytes]:
        for _n in range(64):
            held.append(1)
            yield Chunk(1 << 20)

    async def stream() -> AsyncIterator[bytes]:
        for piece in body():
            yield piece
            assert sum(held) <= 4  # those being written, and the next

    sink = uploads.StreamedUpload(storage.corpus("flat") / "upload", 1 << 30, PanelError(413, "too_large", "too large"))
    with ThreadPoolExecutor(1) as thread:  # the browser tests leave a loop running in this one
        thread.submit(anyio.run, uploads.drain, stream(), sink.write).result()
    assert sink.num_bytes == 64 << 20
    sink.discard()

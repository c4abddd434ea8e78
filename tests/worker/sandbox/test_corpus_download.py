"""The child that downloads a corpus, from a server on the loopback interface."""

import errno
import hashlib
import json
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from app.core.addresses import DeliveryAddress
from app.core.settings import ROOT
from trainer.processes.child_environment import child_environment
from trainer.processes.child_limits import ChildLimits, limited_command
from worker.background.download import command
from worker.sandbox import corpus_download
from worker.sandbox.corpus_download import Download, DownloadRefused, Redirected

CONTENT = random.Random(0).randbytes(700_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class FileServer:
    """Answers requests with `answer`; keeps the headers of each."""

    def __init__(self) -> None:
        self.answer: Callable[[BaseHTTPRequestHandler], None] = send
        self.requests: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append((self.path, dict(self.headers)))
                outer.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def target(self, path: str = "/a.txt") -> DeliveryAddress:
        return DeliveryAddress("http", "127.0.0.1", self.port, "127.0.0.1", path)


def send(request: BaseHTTPRequestHandler, content: bytes = CONTENT, etag: str = '"1"', most: int | None = None) -> None:
    """The file, or the rest of it from the range on; `most` bytes of that, then the connection ends."""
    begin = 0
    wanted = request.headers.get("Range")
    if wanted and request.headers.get("If-Range") == etag:
        begin = int(wanted.removeprefix("bytes=").rstrip("-"))
        request.send_response(206)
        request.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
    else:
        request.send_response(200)
    request.send_header("ETag", etag)
    request.send_header("Content-Length", str(len(content) - begin))
    request.end_headers()
    request.wfile.write(content[begin:][:most])


def redirect(location: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.path == "/end.txt":
            send(request)
            return
        request.send_response(302)
        request.send_header("Location", location)
        request.end_headers()

    return answer


@contextmanager
def file_server() -> Iterator[FileServer]:
    server = FileServer()
    thread = Thread(target=server.server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.server.shutdown()
    thread.join()
    server.server.server_close()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(corpus_download, "PAUSES", (0, 0))
    with file_server() as server:
        yield server


def test_a_file_is_downloaded_with_its_hash(files: FileServer, tmp_path: Path) -> None:
    facts = Download(tmp_path / "upload", files.target("/a.txt?key=1"), 10**6).run()
    assert facts == {"num_bytes": len(CONTENT), "sha256": SHA256}
    assert (tmp_path / "upload").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["upload"]
    path, headers = files.requests[0]
    assert path == "/a.txt?key=1"
    assert headers["Host"] == f"127.0.0.1:{files.port}"
    assert "Authorization" not in headers


def test_a_broken_download_continues_from_its_last_byte(files: FileServer, tmp_path: Path) -> None:
    files.answer = lambda request: send(request, most=200_000)
    assert Download(tmp_path / "upload", files.target(), 10**6).run()["sha256"] == SHA256
    assert [headers.get("Range") for _path, headers in files.requests] == [
        None,
        *("bytes=200000-", "bytes=400000-", "bytes=600000-"),
    ]


def test_a_later_start_continues(files: FileServer, tmp_path: Path) -> None:
    (tmp_path / corpus_download.PART).write_bytes(CONTENT[:300_000])
    (tmp_path / corpus_download.NOTE).write_text(json.dumps({"validator": '"1"'}))
    assert Download(tmp_path / "upload", files.target(), 10**6).run()["sha256"] == SHA256
    assert files.requests[0][1]["Range"] == "bytes=300000-"


def test_a_file_that_changed_is_downloaded_from_its_beginning(files: FileServer, tmp_path: Path) -> None:
    (tmp_path / corpus_download.PART).write_bytes(b"of another version" * 1000)
    (tmp_path / corpus_download.NOTE).write_text(json.dumps({"validator": '"0"'}))
    assert Download(tmp_path / "upload", files.target(), 10**6).run()["sha256"] == SHA256


def test_without_a_version_the_download_begins_again(files: FileServer, tmp_path: Path) -> None:
    (tmp_path / corpus_download.PART).write_bytes(CONTENT[:10])
    assert Download(tmp_path / "upload", files.target(), 10**6).run()["sha256"] == SHA256
    assert "Range" not in files.requests[0][1]


def test_an_answer_of_another_range_is_not_joined(files: FileServer, tmp_path: Path) -> None:
    (tmp_path / corpus_download.PART).write_bytes(CONTENT[:300_000])
    (tmp_path / corpus_download.NOTE).write_text(json.dumps({"validator": '"1"'}))

    def answer(request: BaseHTTPRequestHandler) -> None:
        if "Range" not in request.headers:
            send(request)
            return
        request.send_response(206)
        request.send_header("Content-Range", f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}")
        request.end_headers()
        request.wfile.write(CONTENT[5:])

    files.answer = answer
    assert Download(tmp_path / "upload", files.target(), 10**6).run()["sha256"] == SHA256


def rest_of_any_version(
    request: BaseHTTPRequestHandler, headers: dict[str, str], content: bytes = CONTENT, size: str = str(len(CONTENT))
) -> None:
    """The range of the request whatever its If-Range says, as of a server that does not know that."""
    begin = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    request.send_response(206 if "Range" in request.headers else 200)
    if "Range" in request.headers:
        request.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{size}")
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(content) - begin))
    request.end_headers()
    request.wfile.write(content[begin:])


MONDAY, TUESDAY = "Mon, 05 Oct 2026 08:00:00 GMT", "Tue, 06 Oct 2026 08:00:00 GMT"


@pytest.mark.parametrize(
    ("note", "headers", "is_joined"),
    [
        ({"validator": '"1"'}, {"ETag": '"1"'}, True),
        ({"validator": '"1"', "total": len(CONTENT)}, {"ETag": '"1"', "Last-Modified": MONDAY}, True),
        ({"validator": '"0"'}, {"ETag": '"1"'}, False),
        ({"validator": '"0"'}, {}, False),
        ({"validator": MONDAY}, {"ETag": '"1"', "Last-Modified": MONDAY}, True),
        ({"validator": MONDAY}, {}, True),
        ({"validator": MONDAY}, {"Last-Modified": TUESDAY}, False),
        ({"validator": '"1"', "total": len(CONTENT) + 1}, {"ETag": '"1"'}, False),
    ],
)
def test_the_rest_is_joined_only_to_its_own_version(
    files: FileServer, tmp_path: Path, note: dict[str, Any], headers: dict[str, str], is_joined: bool
) -> None:
    (tmp_path / corpus_download.PART).write_bytes(CONTENT[:300_000] if is_joined else b"x" * 300_000)
    (tmp_path / corpus_download.NOTE).write_text(json.dumps(note))
    files.answer = lambda request: rest_of_any_version(request, headers)
    assert Download(tmp_path / "upload", files.target(), 10**6).run()["sha256"] == SHA256
    ranges = [headers.get("Range") for _path, headers in files.requests]
    assert ranges == (["bytes=300000-"] if is_joined else ["bytes=300000-", None])


def test_the_size_of_the_version_that_begins_to_arrive_is_noted(files: FileServer, tmp_path: Path) -> None:
    files.answer = lambda request: send(request, most=200_000 if "Range" not in request.headers else 0)
    with pytest.raises(DownloadRefused, match="download_away"):
        Download(tmp_path / "upload", files.target(), 10**6).run()
    note = json.loads((tmp_path / corpus_download.NOTE).read_text())
    assert note == {"validator": '"1"', "total": len(CONTENT)}
    assert (tmp_path / corpus_download.PART).stat().st_size == 200_000


def test_a_file_that_cannot_be_written_is_no_error_of_the_network(files: FileServer, tmp_path: Path) -> None:
    child = limited_command(ChildLimits(file_bytes=300_000), command(tmp_path / "upload", files.target(), 10**6))
    done = subprocess.run(child, env=child_environment("download"), cwd=ROOT, check=True, capture_output=True)
    (problem,) = json.loads(done.stdout.splitlines()[-1])["failed"]["problems"]
    assert problem == {"code": "storage", "why": os.strerror(errno.EFBIG)}
    assert len(files.requests) == 1


def test_redirects_at_the_same_host_are_followed(files: FileServer, tmp_path: Path) -> None:
    files.answer = redirect("/end.txt")
    assert Download(tmp_path / "upload", files.target(), 10**6).run()["sha256"] == SHA256


@pytest.mark.parametrize(
    "location",
    [
        *("http://localhost/end.txt", "http://127.0.0.1:1/end.txt", "https://127.0.0.1/end.txt"),
        *("//169.254.169.254/latest", "http://127.0.0.1@evil.example/"),
    ],
)
def test_a_redirect_to_another_host_is_left_to_the_parent(files: FileServer, tmp_path: Path, location: str) -> None:
    files.answer = redirect(location)
    with pytest.raises(Redirected) as redirected:
        Download(tmp_path / "upload", files.target(), 10**6).run()
    assert redirected.value.url == (f"http:{location}" if location.startswith("//") else location)
    assert len(files.requests) == 1


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://[::1", "ftp://127.0.0.1/end.txt"])
def test_redirects_to_what_is_no_web_address_are_refused(files: FileServer, tmp_path: Path, location: str) -> None:
    files.answer = redirect(location)
    with pytest.raises(DownloadRefused, match="download_redirected"):
        Download(tmp_path / "upload", files.target(), 10**6).run()
    assert len(files.requests) == 1


def test_redirects_without_end_are_refused(files: FileServer, tmp_path: Path) -> None:
    files.answer = redirect("/again.txt")
    with pytest.raises(DownloadRefused, match="download_redirects"):
        Download(tmp_path / "upload", files.target(), 10**6).run()


def without_length(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(CONTENT)


@pytest.mark.parametrize("answer", [send, without_length])
def test_a_file_over_the_limit_is_refused(
    files: FileServer, tmp_path: Path, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    files.answer = answer
    with pytest.raises(DownloadRefused) as refused:
        Download(tmp_path / "upload", files.target(), 100_000).run()
    assert refused.value.problem == {"code": "download_too_large", "limit_bytes": 100_000}
    assert not (tmp_path / "upload").exists()
    part = tmp_path / corpus_download.PART
    assert not part.exists() or part.stat().st_size <= 100_000


@pytest.mark.parametrize(
    ("status", "code", "num_requests"),
    [(404, "download_status", 1), (401, "download_status", 1), (503, "download_away", 4), (429, "download_away", 4)],
)
def test_what_a_later_try_may_get_is_tried_again(
    files: FileServer, tmp_path: Path, status: int, code: str, num_requests: int
) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", "0")
        request.end_headers()

    files.answer = answer
    with pytest.raises(DownloadRefused, match=code):
        Download(tmp_path / "upload", files.target(), 10**6).run()
    # One more than the pauses; the first try has one of the shortest.
    assert len(files.requests) == (num_requests if code == "download_status" else len(corpus_download.PAUSES) + 1)


def test_an_empty_file_is_refused(files: FileServer, tmp_path: Path) -> None:
    files.answer = lambda request: send(request, b"")
    with pytest.raises(DownloadRefused, match="download_empty"):
        Download(tmp_path / "upload", files.target(), 10**6).run()


def test_a_download_takes_a_limited_time(files: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_download, "MAX_SECONDS", -3600)
    with pytest.raises(DownloadRefused, match="download_slow"):
        Download(tmp_path / "upload", files.target(), 10**6).run()

"""Limits of connections: no client keeps one, or memory, by sending slowly, endlessly or nothing at all."""

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.launcher import up
from app.web import middleware
from app.web.connections import MAX_HEAD_BYTES, MAX_PARSED_HEADERS, MAX_PIPELINED, RESERVED, BoundedProtocol
from app.web.errors import install_errors
from app.web.middleware import SecurityMiddleware
from app.web.problem_types import PROBLEM_TYPES
from app.web.security_headers import SECURITY_HEADERS
from app.web.server import create_server
from tests.waiting import until

REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
PATIENCE = 20.0  # seconds until a test gives up


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer the length of the body, after all of it came; or, at /large, 32 MiB; or, at /busy, nothing."""
    if scope["type"] != "http":
        return
    num_bytes, message = 0, {"more_body": True}
    while message.get("more_body"):
        message = dict(await receive())
        num_bytes += len(message.get("body", b""))
    if scope["path"] == "/busy":
        while message["type"] != "http.disconnect":
            message = dict(await receive())
        return
    if scope["path"] == "/large":
        await StreamingResponse(iter([bytes(2**20)] * 32))(scope, receive, send)
    else:
        await PlainTextResponse(str(num_bytes))(scope, receive, send)


@contextmanager
def serving(**limits: Any) -> Iterator[Callable[[], socket.socket]]:
    """A server of `echo` behind our middleware, in a thread. Gives what opens a connection to it."""
    with up.listen("127.0.0.1", 0) as listener, ExitStack() as stack:
        application = FastAPI()
        install_errors(application)
        application.add_middleware(SecurityMiddleware)
        application.mount("/", echo)
        server = create_server(application, **limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield lambda: stack.enter_context(socket.create_connection(listener.getsockname(), PATIENCE))
        finally:
            stack.close()
            server.should_exit = True
            thread.join(PATIENCE)


def received(connection: socket.socket) -> str:
    """All that the server sends until it closes the connection."""
    parts = []
    try:
        while part := connection.recv(2**16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts).decode()


def sent(connection: socket.socket, data: bytes) -> bool:
    """Send data; False if the server has closed the connection."""
    try:
        connection.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def answered(connection: socket.socket) -> tuple[int, str]:
    """Status and body of one answer. The connection stays open; head and body may come in several parts."""
    answer = HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.read().decode()


def assert_refused(answer: str, status: int) -> None:
    assert answer.startswith(f"HTTP/1.1 {status} "), answer[:200]
    for name, value in {**SECURITY_HEADERS, "Cache-Control": "no-store"}.items():
        assert f"{name}: {value}\r\n".lower() in answer.lower(), name


ENDLESS = {
    "value": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", b"x" * 2**16),
    "number": (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n" * 2**13),
    "path": (b"GET /", b"x" * 2**16),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_endless_head_is_refused_before_it_fills_memory(kind: str) -> None:
    begin, more = ENDLESS[kind]
    with serving() as connect:
        connection = connect()
        connection.sendall(begin)
        rounds = next((n for n in range(1000) if not sent(connection, more)), 1000)
        assert rounds < 1000, "64 MB were taken"
    with serving() as connect:
        connection = connect()
        sent(connection, begin + more[: MAX_HEAD_BYTES // 2])
        for _part in range(8):
            sent(connection, more[: MAX_HEAD_BYTES // 4])
        assert_refused(received(connection), 431)


@pytest.mark.parametrize(
    "headers", [b"X: " + b"x" * MAX_HEAD_BYTES + b"\r\n", b"X: y\r\n" * (middleware.MAX_HEADERS + 1)]
)
def test_a_head_that_arrives_at_once_has_the_same_limits(headers: bytes) -> None:
    with serving() as connect:
        connection = connect()
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + headers + b"\r\n")
        assert_refused(received(connection), 431)


def test_of_a_head_of_many_headers_the_end_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = []
    refuse = BoundedProtocol.send_400_response
    monkeypatch.setattr(
        BoundedProtocol, "send_400_response", lambda *arguments: (refusals.append(arguments[1]), refuse(*arguments))
    )
    with serving() as connect:
        connection = connect()
        connection.sendall(b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * (MAX_PARSED_HEADERS + 50))
        assert_refused(received(connection), 431)
    assert refusals == ["There are too many headers.", "Invalid HTTP request received."], "by us, then by the library"


def test_a_body_of_tiny_chunks_or_endless_trailers_is_refused() -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = {b"1\r\nx\r\n" * 2**12: False, b"0\r\nX: " + b"x" * 2**16: False, b"400\r\n" + bytes(1024) + b"\r\n": True}
    with serving() as connect:
        for part, is_fine in parts.items():
            connection = connect()
            connection.sendall(head)
            taken = sum(sent(connection, part) for _n in range(100)) == 100
            answer = received(connection) if is_fine and sent(connection, b"0\r\n\r\n") else ""
            assert (taken and answer.endswith(str(100 * 1024))) == is_fine


def test_silence_ends_and_so_does_a_head_a_byte_at_a_time() -> None:
    with serving(HEAD_SECONDS=0.5) as connect:
        silent, slow = connect(), connect()
        letters = iter(REQUEST)
        stopped = until(lambda: not sent(slow, bytes([next(letters)])), PATIENCE, "the end of a slow head")
        assert stopped
        assert received(silent) == ""


def test_a_body_that_stops_ends_and_its_rest_is_not_read_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.5)
    with serving(HEAD_SECONDS=1) as connect:
        stopping, refused = connect(), connect()
        stopping.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx")
        refused.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\nx")
        until(lambda: not sent(refused, b"x" * 1000), PATIENCE, "the end of a body that nothing reads")
        assert_refused(received(stopping), 408)


def test_a_client_that_does_not_read_its_answer_is_disconnected() -> None:
    with serving(UNREAD_SECONDS=0.5) as connect:
        connection = connect()
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: not sent(connection, b"\r\n"), PATIENCE, "the end of an answer that nothing reads")
        assert len(received(connection)) < 32 * 2**20


def test_above_the_limit_silent_connections_give_way() -> None:
    with serving(max_connections=20) as connect:
        silent = [connect() for _n in range(60)]
        last = connect()
        last.sendall(REQUEST)
        assert last.recv(100).startswith(b"HTTP/1.1 200")
        assert received(silent[0]) == "", "the oldest was closed"


def test_above_the_limit_connections_with_incomplete_bodies_give_way() -> None:
    with serving(max_connections=5) as connect:
        waiting, probe = [connect() for _n in range(4)], connect()
        for connection in waiting:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx")
        for part in (b"", b"x"):
            waiting[0].sendall(part)  # the second one has been silent longest then
            probe.sendall(REQUEST)
            assert answered(probe)[0] == 200, "what was sent before has arrived"
        other = connect()
        other.sendall(REQUEST.replace(b"livez", b"jobs"))
        assert answered(other)[0] == 200
        assert received(waiting[1]) == ""
        waiting[0].sendall(b"x" * 8)
        assert answered(waiting[0]) == (200, "10")


def test_above_the_limit_connections_with_unread_answers_give_way() -> None:
    with serving(max_connections=5) as connect:
        for _n in range(5):
            connect().sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")

        def is_answered() -> bool:
            other = connect()
            other.sendall(REQUEST.replace(b"livez", b"jobs"))
            return answered(other)[0] == 200

        until(is_answered, PATIENCE, "an answer, once the others fill their buffers")


def test_above_the_limit_of_busy_connections_only_probes_are_answered() -> None:
    busy = b"GET /busy HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(max_connections=5) as connect:
        for _n in range(6):
            connect().sendall(busy)
        probe = connect()
        probe.sendall(REQUEST)
        assert answered(probe)[0] == 200
        other = connect()  # not before: as a silent connection the probe would give way to it
        other.sendall(REQUEST.replace(b"livez", b"jobs"))
        answer = received(other)
        assert_refused(answer, 503)
        assert re.search(r"retry-after: \d", answer, re.IGNORECASE)
        beyond = [connect() for _n in range(RESERVED + 10)]
        assert received(beyond[0]) == "", "silent ones give way here too"


@pytest.mark.parametrize("path", ["/api/v1/jobs", "/jobs"])
def test_what_no_request_came_of_is_refused_in_the_form_of_its_address(path: str) -> None:
    heads = {431: "X: y\r\n" * (MAX_PARSED_HEADERS + 1), 400: "no header\r\n"}
    with serving() as connect:
        for status, headers in heads.items():
            connection = connect()
            connection.sendall(f"GET {path} HTTP/1.1\r\n{headers}\r\n".encode())
            answer = received(connection)
            assert_refused(answer, status)
            if path == "/jobs":
                assert "content-type: text/plain" in answer.lower()
                continue
            assert "content-type: application/problem+json" in answer.lower()
            problem = json.loads(answer.partition("\r\n\r\n")[2])
            assert status in PROBLEM_TYPES[problem["code"]][0]
            assert (problem["status"], bool(problem["title"]), problem["errors"]) == (status, True, [])


@pytest.mark.parametrize(
    "line",
    [
        "GET /jobs/日 HTTP/1.1",
        "GET /jobs/%00 HTTP/1.1",
        "GET /jobs/%ff%fe HTTP/1.1",
        "GET /%0d%0aSet-Cookie:x HTTP/1.1",
        "CONNECT localhost:80 HTTP/1.1",
        "GET http:// HTTP/1.1",
        "G\x01T / HTTP/1.1",
        "GET / HTTP/9.9",
        "\x16\x03\x01",
    ],
)
def test_what_is_no_request_is_refused_with_all_headers_and_without_a_line_in_the_log(
    line: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as connect:
        connection = connect()
        connection.sendall(line.encode() + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert_refused(received(connection), 400)
    assert caplog.records == []


def test_the_limit_of_open_files_is_raised_as_far_as_allowed(root: Path) -> None:
    code = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (256, 2048)); from app.web import server; "
        "print(server.raise_file_limit(), r.getrlimit(r.RLIMIT_NOFILE), server.raise_file_limit())"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "2048 (2048, 2048) 2048"


def test_requests_beyond_the_limit_of_pipelining_are_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    begin = BoundedProtocol.on_message_begin
    monkeypatch.setattr(BoundedProtocol, "on_message_begin", lambda self: begun.append(begin(self)))
    with serving() as connect:
        connection = connect()
        sent(connection, REQUEST * 1000)
        received(connection)
    assert MAX_PIPELINED <= len(begun) <= MAX_PIPELINED + 2

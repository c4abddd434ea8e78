"""An HTTP server on loopback that answers as a test says, and breaks connections."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from threading import Thread
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class ReceivedRequest:
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class ScriptedServer:
    """Its answers, one for each request; the last one is repeated. `requests` are those that arrived."""

    answers: list[Answer]
    requests: list[ReceivedRequest] = field(default_factory=list)
    url: str = ""

    def next_answer(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def serving(*answers: Answer, tls: SSLContext | None = None) -> Iterator[ScriptedServer]:
    """A running server; with `tls` by https."""
    script = ScriptedServer(list(answers))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("ScriptedHandler", (_Handler,), {"script": script}))
    script.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(status: int, body: Any = None, **headers: str) -> Answer:
    """An answer with JSON, or with bytes as they are."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()

    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"content-length": str(len(content)), **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(content)

    return send


def problem(status: int, code: str, *fields: str, **headers: str) -> Answer:
    """An error response as the API writes it."""
    errors = [{"field": name, "message": f"{name} is wrong."} for name in fields]
    body = {"type": "", "status": status, "code": code, "title": "A sentence.", "errors": errors, "request_id": "r1"}
    return answer(status, body, **headers)


def broken(request: BaseHTTPRequestHandler) -> None:
    """Close the connection without an answer."""
    request.close_connection = True


def cut_off(content: bytes, length: int, status: int = 200) -> Answer:
    """The beginning of an answer of `length` bytes, after which the connection closes."""

    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("content-length", str(length))
        request.end_headers()
        request.wfile.write(content)
        request.close_connection = True

    return send


def events(*lines: tuple[str, str, Any]) -> Answer:
    """A stream of server-sent events (id, name, data), after which the connection closes."""

    def send(request: BaseHTTPRequestHandler) -> None:
        begin_events(request)
        for key, name, data in lines:
            request.wfile.write(f"id: {key}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode())
        request.close_connection = True

    return send


def begin_events(request: BaseHTTPRequestHandler) -> None:
    """The head of a stream of server-sent events."""
    request.send_response(200)
    request.send_header("content-type", "text/event-stream")
    request.send_header("connection", "close")
    request.end_headers()


class _Handler(BaseHTTPRequestHandler):
    script: ScriptedServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Do not log requests."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.script.requests.append(ReceivedRequest(self.command, self.path, headers, body))
        self.script.next_answer()(self)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

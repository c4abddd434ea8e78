"""HTTP by hand: bytes that no client library would send."""

import socket
from contextlib import suppress
from dataclasses import dataclass

from tests.attack.target import Target, fault_of

MAX_ANSWER_BYTES = 2**20


@dataclass(frozen=True)
class RawAnswer:
    """The beginning of a response; status 0 if the connection was closed without one."""

    status: int
    headers: dict[str, str]


def send(target: Target, data: bytes, seconds: float = 10) -> RawAnswer:
    """Send bytes on a new connection and read the response until the end of its headers."""
    answer = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", target.installation.port), seconds) as connection:
        with suppress(OSError):  # it may answer and close before it has read everything
            connection.sendall(data)
        while b"\r\n\r\n" not in answer and len(answer) < MAX_ANSWER_BYTES:
            part = connection.recv(65_536)
            if not part:
                break
            answer += part
    return parse_head(answer)


def parse_head(answer: bytes) -> RawAnswer:
    """A response from its bytes."""
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    words = head[0].split(" ")
    if len(words) < 2 or not words[1].isdigit():
        return RawAnswer(0, {})
    pairs = (line.partition(":") for line in head[1:])
    return RawAnswer(int(words[1]), {name.lower(): value.strip() for name, _colon, value in pairs})


def refuse(target: Target, name: str, data: bytes) -> int:
    """Send a request and note it as a fault unless the response has a status below 500 and all headers."""
    answer = send(target, data)
    target.statuses[answer.status] = target.statuses.get(answer.status, 0) + 1
    fault = fault_of(answer.status, answer.headers) if answer.status else "no response"
    if fault:
        target.faults.append(f"{name}: {fault}")
    return answer.status


def request(target: Target, path: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    """The bytes of a request by Mallory. `path` is sent as it is; `headers` are lines."""
    lines = [f"{method} {path} HTTP/1.1", f"Authorization: Bearer {target.mallory.token}", "Connection: close"]
    if not any(line.lower().startswith("host:") for line in headers):
        lines.append("Host: localhost")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, *headers, "", ""]).encode("utf-8", "surrogateescape") + body

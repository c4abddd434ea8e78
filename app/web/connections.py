"""Limits of connections, before a request exists: bytes and seconds of its head, of silence, of unread answers.

uvicorn's protocol on httptools has none of these. Limits that need a request are in app/web/middleware.py.
"""

import asyncio
import json
import secrets
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.web.problem_types import http_problem, problem
from app.web.security_headers import SECURITY_HEADERS

MAX_HEAD_BYTES = 32 * 1024  # of a request line and its headers; browsers send all cookies of a host
MAX_PARSED_HEADERS = 500  # of a head; middleware.py refuses fewer, with a sentence
LINGER_BYTES = 2**20  # of a refused client, which are not kept
MAX_PIPELINED = 8  # requests that a client sends before it has the answer to the first
RESERVED = 64  # connections above the limit, which are answered with 503, and for the probes as usual
CROWDED = "crowded"  # set in the state of a request whose connection is above the limit


class RefusedError(Exception):
    """Raised in a callback of the parser, so that it leaves what else has arrived, which others would wait for."""


class BoundedProtocol(HttpToolsProtocol):
    """A connection that cannot be kept open, or memory filled through it, without a request being answered.

    Where the limit of connections is reached, one that waits for its client is closed for a new one: for a head, for
    more of a body, or to be read. Of these it is the one that has waited longest. So clients that are silent or slow
    never keep others out.
    """

    HEAD_SECONDS: ClassVar[float] = 10  # from the first byte of a head, or the connection, to its end
    UNREAD_SECONDS: ClassVar[float] = 120  # how long a client may leave its answer unread
    LINGER_SECONDS: ClassVar[float] = 2  # how long a refused client may go on sending, so that it sees the answer
    max_connections: ClassVar[int] = 4096
    idle: ClassVar[dict["BoundedProtocol", None]] = {}  # connections that wait for their client, the longest first

    url = b""  # as far as it has been parsed
    _num_new = 0  # bytes of the present read that are no body
    _overhead = 0  # bytes of the message so far that are no body: its head, sizes of chunks, trailers
    _is_above_limit = False
    _is_refused = False
    _idle_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit the connection, close the one that has been idle longest for it, or close it."""
        super().connection_made(transport)
        excess = len(self.connections) - self.max_connections
        if excess > 0 and self.idle:
            oldest = next(iter(self.idle))
            self.idle.pop(oldest)
            oldest.transport.abort()
            excess -= 1
        if excess > RESERVED:
            transport.abort()
            return
        self._is_above_limit = excess > 0
        self._begin_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._end_idle()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived. A message with too many bytes that are no body is refused."""
        self._num_new = len(data)
        self._overhead += len(data)
        if self._is_refused:
            if self._overhead > LINGER_BYTES:
                self.transport.abort()
            return
        super().data_received(data)
        if self._is_refused or self.transport.is_closing():
            return
        if self._overhead > MAX_HEAD_BYTES:
            self.send_400_response("The headers are too large.", 431)
        elif self._idle_timer is None and self._waits_for_head():
            self._begin_idle()
        elif self._idle_timer is None and self._unread_timer is None:
            self.idle.pop(self, None)
            if self._waits_for_body():
                self.idle[self] = None  # behind those that have sent nothing since

    def on_message_begin(self) -> None:
        """Count from here: what is left of the present read is the head of this message, or ends it."""
        self._overhead = self._num_new
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, but none after the body (a trailer), which nothing reads."""
        if len(self.headers) >= MAX_PARSED_HEADERS:
            self.send_400_response("There are too many headers.", 431)
            raise RefusedError
        if "method" not in self.scope:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Start the request."""
        self._overhead = 0
        self._end_idle()
        super().on_headers_complete()
        is_crowded = self._is_above_limit and len(self.connections) > self.max_connections
        self.scope["state"][CROWDED] = is_crowded
        if len(self.pipeline) > MAX_PIPELINED:
            self.transport.abort()
            raise RefusedError

    def on_body(self, body: bytes) -> None:
        """Take a part of the body. Parts of a few bytes, each with a size of its own, count as overhead."""
        self._num_new -= len(body)
        self._overhead = max(0, self._overhead - 2 * len(body))
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Wait for the next request, also while the rest of a body arrives that nobody wanted."""
        super().on_response_complete()
        if self._waits_for_head() and not self.transport.is_closing():
            self._begin_idle()

    def pause_writing(self) -> None:
        """The client does not read: close the connection unless it goes on in time."""
        super().pause_writing()
        if self._unread_timer is None:
            self.idle.setdefault(self)
            self._unread_timer = self.loop.call_later(self.UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
            if self._idle_timer is None and not self._waits_for_body():
                self.idle.pop(self, None)

    def send_400_response(self, msg: str, status: int = 400) -> None:
        """Refuse what is no HTTP request, with the headers of every answer, and close the connection."""
        if self._is_refused:
            return
        content_type, body = "text/plain; charset=utf-8", msg.encode()
        if self.url.startswith(b"/api/"):
            refusal = problem(http_problem(status, msg, {}), [], secrets.token_hex(6))
            content_type, body = "application/problem+json", json.dumps(refusal).encode()
        headers = {**SECURITY_HEADERS, "Content-Type": content_type, "Content-Length": str(len(body))}
        lines = [f"{name}: {value}\r\n".encode() for name, value in {**headers, "Connection": "close"}.items()]
        is_responding = not self._waits_for_head()
        if not is_responding or not self.cycle.response_started:
            self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self._is_refused = True
        if is_responding:  # it ends as if the client had disconnected
            self.transport.close()
        else:
            self.transport.write_eof()
            self._begin_idle(self.LINGER_SECONDS)

    def _waits_for_head(self) -> bool:
        return not self.pipeline and (self.cycle is None or self.cycle.response_complete)

    def _waits_for_body(self) -> bool:
        """Whether the client must send more, which the application has not been slow to take."""
        cycle = self.cycle
        return cycle is not None and cycle.more_body and not cycle.response_complete and not self.flow.read_paused

    def _begin_idle(self, seconds: float | None = None) -> None:
        self._end_idle()
        self.idle[self] = None
        self._idle_timer = self.loop.call_later(seconds or self.HEAD_SECONDS, self.transport.abort)

    def _end_idle(self) -> None:
        self.idle.pop(self, None)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None


def protocol_with(**limits: Any) -> type[BoundedProtocol]:
    """The protocol with other limits and connections of its own."""
    return type("BoundedProtocol", (BoundedProtocol,), {**limits, "idle": {}})

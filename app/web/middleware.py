"""ASGI middleware: limits and checks of every request before any work, and security headers on every response."""

import asyncio
import logging
import re
import secrets
from contextlib import closing
from typing import ClassVar
from urllib.parse import urlsplit

from anyio import to_thread
from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import audit_log, i18n
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.settings import settings
from app.web.admission import PROBES
from app.web.client_address import client_address
from app.web.connections import CROWDED, MAX_HEAD_BYTES
from app.web.deprecations import deprecation_headers
from app.web.errors import MAX_BODY_BYTES, busy, error_response, internal_error, too_large
from app.web.pages import LANGUAGE_COOKIE
from app.web.security_headers import SECURITY_HEADERS

log = logging.getLogger(__name__)

MAX_HEADERS = 100
MAX_VISITOR_BODY_BYTES = 16 * 1024  # of the forms that anybody may send: a name, a password, a code
VISITOR_FORMS = re.compile(
    r"(/api/v1)?/(login|logout|setup)|/api/v1/(password-reset|invitations/accept|nodes/join)"
    r"|/(preferences|reset-password|invitation|confirm-email|unsubscribe)"
)
MAX_ALL_BODIES_BYTES = 64 * 2**20  # of all requests at once, without uploads
BODY_SECONDS = 30  # until a body that is no upload must be complete
UPLOAD_IDLE_SECONDS = 60  # an upload may take long, but not stop
MAX_WAITING = 200  # requests that wait for a thread
# Uploads are streamed to disk and have limits of their own.
UPLOADS = re.compile(
    r"(/api/v1)?/(corpora|(tokenizers|jobs)/import)|/api/v1/uploads(/\w+)?|/api/v1/models/\w+/files/[^/]+"
    r"|/v1/files|/v1/uploads/[\w-]+/parts"
)


class SecurityMiddleware:
    """The outermost middleware: checks host, origin and size, sets the language, and adds the security headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        scope["state"] = {**scope.get("state", {}), "id": secrets.token_hex(6)}
        language = i18n.negotiate(request.cookies.get(LANGUAGE_COOKIE), request.headers.get("accept-language", ""))

        is_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers["X-Request-Id"] = scope["state"]["id"]
                headers.update(deprecation_headers(scope["path"]))
            await send(message)

        with i18n.use_locale(language), audit_log.from_address(client_address(request)):
            try:
                check_head(scope)
                check_host(request.headers)
                check_origin(request.method, request.headers)
                check_length(scope["path"], request.headers)
                check_load(scope)
                with closing(LimitedBody(receive, max_body_bytes(scope["path"]))) as body:
                    await self.app(scope, body.receive, send_with_headers)
            except PanelError as error:
                await error_response(request, error)(scope, receive, send_with_headers)
            except Exception as error:
                if is_started:
                    raise
                await internal_error(request, error)(scope, receive, send_with_headers)


def check_head(scope: Scope) -> None:
    """Raise PanelError for too many or too long headers, or a path that no address here can have."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    num_bytes = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    num_bytes += sum(len(name) + len(value) + 4 for name, value in headers)
    if len(headers) > MAX_HEADERS or num_bytes > MAX_HEAD_BYTES:
        message = _("The headers are too large. Delete the cookies of this site, or send fewer headers.")
        raise PanelError(431, "headers_too_large", message)
    path: str = scope["path"]
    if "\ufffd" in path or any(character < " " or character == "\x7f" for character in path):
        raise PanelError(400, "path_invalid", _("The address contains characters that no address here has."))


def check_load(scope: Scope) -> None:
    """Raise PanelError (503) where too many connections are open or too many requests wait. Probes are answered."""
    if scope["path"] in PROBES:
        return
    if scope["state"].get(CROWDED):
        raise busy(Connection="close")
    if to_thread.current_default_thread_limiter().statistics().tasks_waiting >= MAX_WAITING:
        raise busy()


def check_host(headers: Headers) -> None:
    """Raise PanelError unless the Host header is allowed, against DNS rebinding: a foreign name that resolves to us."""
    name = headers.get("host", "")
    host = (_parts("//" + name)[0] or "").lower()
    extra = {name.strip().lower() for name in settings().allowed_hosts.split(",") if name.strip()}
    if host not in {"localhost", "127.0.0.1", "::1", settings().host.lower(), *extra}:
        message = _("The host name {host} is not allowed. Add it to ATHANOR_ALLOWED_HOSTS.", host=host[:100])
        raise PanelError(400, "host_not_allowed", message)


def _parts(url: str) -> tuple[str | None, str | None]:
    """The host name, and the host name with the port, of a URL; None for what is no URL."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.netloc
    except ValueError:
        return None, None


def check_origin(method: str, headers: Headers) -> None:
    """Raise PanelError for a request that another site makes a browser send.

    Links from other sites (a top-level GET) are allowed. Programs send no Origin header; they are checked by token.
    """
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site")
    followed_link = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
    foreign = site in ("cross-site", "same-site") and not followed_link
    if origin is not None and _parts(origin)[1] != headers.get("host"):
        foreign = True
    if foreign:
        raise PanelError(403, "origin_not_allowed", _("The request comes from another site and was refused."))


def check_length(path: str, headers: Headers) -> None:
    """Raise PanelError if the declared length of the body is over the limit, before a byte of it is read."""
    declared = headers.get("content-length", "")
    limit = max_body_bytes(path)
    if limit is not None and declared.isdecimal() and int(declared[:20]) > limit:
        raise PanelError(413, "body_too_large", too_large(limit))


def max_body_bytes(path: str) -> int | None:
    """The largest body of a request to a path, in bytes; None for uploads, which have limits of their own."""
    if UPLOADS.fullmatch(path):
        return None
    return MAX_VISITOR_BODY_BYTES if VISITOR_FORMS.fullmatch(path) else MAX_BODY_BYTES


class LimitedBody:
    """The body of a request, whose `receive` raises HTTPException where it is too large (413) or too slow (408)."""

    all_bytes: ClassVar[int] = 0  # of the bodies in memory, of all requests

    def __init__(self, receive: Receive, max_bytes: int | None) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        self._num_bytes = 0
        self._is_complete = False

    async def receive(self) -> Message:
        """The next part of the body; after its end, the message that the client disconnects."""
        if self._is_complete:
            return await self._receive()
        message = await self._next_message()
        self._is_complete = not message.get("more_body", False)
        if self._max_bytes is not None:
            self._count(len(message.get("body", b"")), self._max_bytes)
        return message

    async def _next_message(self) -> Message:
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(self._deadline if self._max_bytes is not None else now + UPLOAD_IDLE_SECONDS):
                return await self._receive()
        except TimeoutError:
            raise HTTPException(408, headers={"Connection": "close"}) from None

    def _count(self, num_bytes: int, max_bytes: int) -> None:
        self._num_bytes += num_bytes
        LimitedBody.all_bytes += num_bytes
        if self._num_bytes > max_bytes:
            raise HTTPException(413, str(max_bytes))
        if LimitedBody.all_bytes > MAX_ALL_BODIES_BYTES:
            raise HTTPException(503, busy().message, headers=busy().headers)

    def close(self) -> None:
        """Its memory is free."""
        LimitedBody.all_bytes -= self._num_bytes

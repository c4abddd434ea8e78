"""ASGI middleware: checks of host, origin and body size for every request, and security headers on every response."""

import logging
import re
import secrets
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import i18n
from app.core.errors import PanelError
from app.core.i18n import _
from app.core.settings import settings
from app.web.errors import MAX_BODY_BYTES, _too_large, error_response
from app.web.pages import LANGUAGE_COOKIE

log = logging.getLogger(__name__)

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Uploads are streamed to disk and have limits of their own.
UPLOADS = re.compile(r"(/api/v1)?/corpora|/api/v1/models/\w+/files/[^/]+")


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

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                headers["X-Request-Id"] = scope["state"]["id"]
            await send(message)

        with i18n.use_locale(language):
            try:
                check_host(request.headers)
                check_origin(request.method, request.headers)
                check_length(scope["path"], request.headers)
            except PanelError as error:
                await error_response(request, error)(scope, receive, send_with_headers)
                return
            bounded = receive if UPLOADS.fullmatch(scope["path"]) else limit_body(receive)
            await self.app(scope, bounded, send_with_headers)


def check_host(headers: Headers) -> None:
    """Raise PanelError unless the Host header is allowed, against DNS rebinding: a foreign name that resolves to us."""
    host = urlsplit("//" + headers.get("host", "")).hostname or ""
    extra = {name.strip().lower() for name in settings().allowed_hosts.split(",") if name.strip()}
    if host.lower() not in {"localhost", "127.0.0.1", "::1", settings().host.lower(), *extra}:
        message = _("The host name {host} is not allowed. Add it to ATHANOR_ALLOWED_HOSTS.", host=host)
        raise PanelError(400, "host_not_allowed", message)


def check_origin(method: str, headers: Headers) -> None:
    """Raise PanelError for a request that another site makes a browser send.

    Links from other sites (a top-level GET) are allowed. Programs send no Origin header; they are checked by token.
    """
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site")
    followed_link = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
    foreign = site in ("cross-site", "same-site") and not followed_link
    if origin is not None and urlsplit(origin).netloc != headers.get("host"):
        foreign = True
    if foreign:
        raise PanelError(403, "origin_not_allowed", _("The request comes from another site and was refused."))


def check_length(path: str, headers: Headers) -> None:
    """Raise PanelError if the declared length of the body is over the limit, before a byte of it is read."""
    declared = headers.get("content-length", "")
    if not UPLOADS.fullmatch(path) and declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise PanelError(413, "body_too_large", _too_large())


def limit_body(receive: Receive) -> Receive:
    """Wrap `receive` to raise HTTPException (413) once the body is over the limit, whatever length was declared."""
    num_bytes = 0

    async def receive_limited() -> Message:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > MAX_BODY_BYTES:
            raise HTTPException(413)
        return message

    return receive_limited

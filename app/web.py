"""The web's ground: checks on every request, headers on every answer, one shape of error, one way to draw a page."""

import json
import logging
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from babel.dates import format_datetime, format_timedelta
from babel.numbers import format_decimal
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.orm import Session
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import auth, db, i18n, queue
from app.errors import FieldError, PanelError
from app.i18n import _
from app.settings import ROOT, settings
from app.version import VERSION
from trainer.problems import SENTENCES, SpecError

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
MAX_BODY_BYTES = 2**20  # a spec or a prompt is far smaller
# These stream to the disk, under a limit of their own.
UPLOADS = re.compile(r"(/api/v1)?/corpora|/api/v1/models/\w+/files/[^/]+")
LANGUAGE_COOKIE = "athanor_language"
THEME_COOKIE = "athanor_theme"


class Guard:
    """The outermost layer: refuses strange hosts and origins, sets the language, puts the headers on every answer."""

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
                if not scope["path"].startswith("/static/"):
                    headers.setdefault("Cache-Control", "no-store")
                headers["X-Request-Id"] = scope["state"]["id"]
            await send(message)

        with i18n.speaking(language):
            try:
                check_host(request.headers)
                check_origin(request.method, request.headers)
                check_length(scope["path"], request.headers)
            except PanelError as error:
                await error_response(request, error)(scope, receive, send_with_headers)
                return
            bounded = receive if UPLOADS.fullmatch(scope["path"]) else limited(receive)
            await self.app(scope, bounded, send_with_headers)


def check_host(headers: Headers) -> None:
    """Refuse a Host that is not ours: a foreign name that points here (DNS rebinding) gets nothing."""
    host = urlsplit("//" + headers.get("host", "")).hostname or ""
    extra = {name.strip().lower() for name in settings().allowed_hosts.split(",") if name.strip()}
    if host.lower() not in {"localhost", "127.0.0.1", "::1", settings().host.lower(), *extra}:
        message = _("This panel does not answer to the host name {host}. Add it to ATHANOR_ALLOWED_HOSTS.", host=host)
        raise PanelError(400, "host_not_allowed", message)


def check_origin(method: str, headers: Headers) -> None:
    """Refuse what another site makes a browser send. Programs send no Origin and are held to their token.

    A foreign page may link here (a top-level GET), but neither read nor change anything.
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
    """Refuse a body that says itself that it is too long, before a byte of it is read."""
    declared = headers.get("content-length", "")
    if not UPLOADS.fullmatch(path) and declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise PanelError(413, "body_too_large", _too_large())


def limited(receive: Receive) -> Receive:
    """The same body, ended with a 413 where it turns out too long: it is held in memory, also before anyone logs in."""
    seen = 0

    async def receive_limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            raise HTTPException(413)
        return message

    return receive_limited


def _too_large() -> str:
    return _("The body is too long: at most {limit} are taken here.", limit=file_size(MAX_BODY_BYTES))


# ---- pages ----------------------------------------------------------------------------------------------------------


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ROOT / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(_=_, t=i18n.translate, locale=i18n.locale, version=VERSION, languages=i18n.LOCALES)
    environment.filters.update(number=number, bytes=file_size, instant=instant, span=span, compact=compact)
    return environment


def number(value: float | None) -> str:
    """1,234,567 in the reader's language; a dash for what is not known."""
    return "–" if value is None else str(format_decimal(value, locale=i18n.locale().replace("-", "_")))


def compact(value: float | None) -> str:
    """1.2 k, 3.4 M, 6.7 B: for counts of tokens and parameters."""
    if value is None:
        return "–"
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.3g}"


def file_size(value: float | None) -> str:
    """Bytes in binary units, as file managers show them."""
    if value is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def instant(value: Any) -> str:
    """A point in time, in UTC; the page's script turns it into local time."""
    return str(format_datetime(value, "yyyy-MM-dd HH:mm:ss", locale=i18n.locale().replace("-", "_"))) if value else "–"


def span(seconds: float | None) -> str:
    """A duration in words: 3 minutes, 2 小时."""
    if seconds is None:
        return "–"
    return str(format_timedelta(seconds, threshold=1.2, locale=i18n.locale().replace("-", "_")))


templates = Jinja2Templates(env=_environment())


def page(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """Draw a template. `principal` is there in every page: the user, or None for a visitor."""
    if "principal" not in context:
        context["principal"] = auth.identify(request)
    context["theme"] = request.cookies.get(THEME_COOKIE, "system")
    return templates.TemplateResponse(request, template, context, status_code=status)


def change(verb: Callable[[Session], None], then: str, refused: Callable[[PanelError], Response]) -> Response:
    """Do what a form of a page asks for, then go on to another page; what is refused is said on its own page."""
    try:
        with db.transaction() as session:
            verb(session)
    except PanelError as error:
        if error.status == 404:
            raise
        return refused(error)
    queue.flush_outbox()
    return RedirectResponse(then, status_code=303)


# ---- errors ---------------------------------------------------------------------------------------------------------


def install_errors(app: FastAPI) -> None:
    """One shape for all that can go wrong, whoever raised it."""
    app.add_exception_handler(PanelError, _panel_error)
    app.add_exception_handler(SpecError, _spec_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OperationalError, _database_error)
    app.add_exception_handler(DataError, _data_error)
    app.add_exception_handler(Exception, _internal_error)


def error_response(request: Request, error: PanelError) -> Response:
    """The error as a program or as a person wants it."""
    if request.url.path.startswith(("/api/", "/v1/")) and request.url.path != "/api/docs":
        body: dict[str, Any] = {
            "type": "about:blank",
            "status": error.status,
            "code": error.code,
            "title": error.message,
            "errors": [{"field": f.field, "message": f.message} for f in error.fields],
            "request_id": request.state.id,
        }
        return JSONResponse(body, error.status, error.headers, media_type="application/problem+json")
    if error.status == 401:
        query = f"?next={request.url.path}" if request.method == "GET" and request.url.path != "/" else ""
        return Response(status_code=303, headers={"Location": f"/login{query}"})
    response = page(request, "error.html", error.status, error=error, principal=None)
    response.headers.update(error.headers)
    return response


def spec_fields(error: SpecError) -> list[FieldError]:
    """The problems of a spec as sentences in the reader's language."""
    return [FieldError(p.field, f"{p.field} {_(p.message, **p.values)}") for p in error.problems]


async def _panel_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PanelError)
    return error_response(request, error)


async def _spec_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SpecError)
    fields = spec_fields(error)
    return error_response(request, PanelError(422, "spec_invalid", "; ".join(f.message for f in fields), fields))


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = [validation_field(detail) for detail in error.errors()]
    message = "; ".join(f.message for f in fields)
    return error_response(request, PanelError(422, "request_invalid", message, fields))


def validation_field(detail: dict[str, Any]) -> FieldError:
    """One of pydantic's complaints as a sentence. The first part of its place says where in the request it was."""
    place: Sequence[Any] = detail["loc"]
    name = ".".join(str(part) for part in place[1:]) or str(place[0])
    if detail["type"] == "json_invalid":
        why = detail.get("ctx", {}).get("error", "")
        at = place[-1]
        return FieldError("body", _("The body is not JSON: {why} at character {at}.", why=why, at=at))
    sentence = SENTENCES.get(detail["type"])
    values = {k: v for k, v in detail.get("ctx", {}).items() if isinstance(v, str | int | float)}
    return FieldError(name, f"{name} " + (_(sentence, **values) if sentence else detail["msg"]))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {
        404: _("There is nothing at this address."),
        405: _("This address does not take that method."),
        413: _too_large(),
    }
    message = messages.get(error.status_code, str(error.detail))
    return error_response(
        request, PanelError(error.status_code, "http_error", message, headers=dict(error.headers or {}))
    )


async def _database_error(request: Request, error: Exception) -> Response:
    log.error("request %s: database not reachable: %s", request.state.id, error)
    message = _("The database cannot be reached. Running jobs go on; try again in a moment.")
    return error_response(request, PanelError(503, "database_away", message, headers={"Retry-After": "5"}))


async def _data_error(request: Request, error: Exception) -> Response:
    # A NUL character, which no text in the database can hold, or a number beyond its column.
    message = _("The request holds a character or a number that cannot be stored.")
    return error_response(request, PanelError(400, "not_storable", message))


async def _internal_error(request: Request, error: Exception) -> Response:
    log.error("request %s failed", request.state.id, exc_info=error)
    message = _("Something went wrong on our side. The server log tells more under {id}.", id=request.state.id)
    return error_response(request, PanelError(500, "internal", message))


def json_text(value: Any) -> str:
    """Compact JSON that refuses NaN."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

"""Error responses: problem+json for the API, pages for browsers."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import DataError, OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.core.errors import FieldError, PanelError
from app.core.formatting import file_size
from app.core.i18n import _
from app.core.principal import not_found
from app.web.pages import page
from trainer.spec_errors import MESSAGES, SpecError

log = logging.getLogger(__name__)


def install_errors(app: FastAPI) -> None:
    """Register the exception handlers, so that every error has the same form."""
    app.add_exception_handler(PanelError, _panel_error)
    app.add_exception_handler(SpecError, _spec_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OperationalError, _database_error)
    app.add_exception_handler(DataError, _data_error)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    app.add_exception_handler(Exception, _internal_error)


async def _disconnected(request: Request, error: Exception) -> Response:
    """The response to a client that disconnected during its request: 499, the code of nginx for that."""
    return Response(status_code=499)


def error_response(request: Request, error: PanelError) -> Response:
    """The response for an error: problem+json under /api/ and /v1/, else a page, or the login page for a 401."""
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
    return [FieldError(p.field, f"{p.field} {_(p.message.template, **p.message.values)}") for p in error.problems]


async def _panel_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PanelError)
    return error_response(request, error)


async def _spec_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SpecError)
    fields = spec_fields(error)
    return error_response(request, PanelError(422, "spec_invalid", "; ".join(f.message for f in fields), fields))


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if any(detail["loc"][0] == "path" for detail in error.errors()):
        return error_response(request, not_found())  # no such id can exist
    fields = [validation_field(detail) for detail in error.errors()]
    message = "; ".join(f.message for f in fields)
    return error_response(request, PanelError(422, "request_invalid", message, fields))


def validation_field(detail: dict[str, Any]) -> FieldError:
    """A pydantic error as a sentence. The first item of its `loc` is the part of the request, such as "body"."""
    location: Sequence[Any] = detail["loc"]
    name = ".".join(str(part) for part in location[1:]) or str(location[0])
    if detail["type"] == "json_invalid":
        why = detail.get("ctx", {}).get("error", "")
        at = location[-1]
        return FieldError("body", _("The body is not JSON: {why} at character {at}.", why=why, at=at))
    sentence = MESSAGES.get(detail["type"])
    values = {k: v for k, v in detail.get("ctx", {}).items() if isinstance(v, str | int | float)}
    return FieldError(name, f"{name} " + (_(sentence, **values) if sentence else detail["msg"]))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {
        404: _("There is nothing at this address."),
        405: _("This address does not support that method."),
        413: _too_large(),
    }
    message = messages.get(error.status_code, str(error.detail))
    return error_response(
        request, PanelError(error.status_code, "http_error", message, headers=dict(error.headers or {}))
    )


async def _database_error(request: Request, error: Exception) -> Response:
    log.error("request %s: database not reachable: %s", request.state.id, error)
    message = _("The database cannot be reached. Running jobs keep running; try again in a moment.")
    return error_response(request, PanelError(503, "database_away", message, headers={"Retry-After": "5"}))


async def _data_error(request: Request, error: Exception) -> Response:
    # A NUL character, which PostgreSQL cannot store in a text, or a number out of the column's range.
    message = _("The request contains a character or number that cannot be stored.")
    return error_response(request, PanelError(400, "not_storable", message))


async def _internal_error(request: Request, error: Exception) -> Response:
    log.error("request %s failed", request.state.id, exc_info=error)
    message = _("Internal server error. See the server log, ID {id}.", id=request.state.id)
    return error_response(request, PanelError(500, "internal", message))


MAX_BODY_BYTES = 2**20  # a spec or a prompt is far smaller


def _too_large() -> str:
    return _("The request body is too large: the limit is {limit}.", limit=file_size(MAX_BODY_BYTES))

"""Error responses: problem+json for the API, pages for browsers."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from app.core import db
from app.core.errors import FieldError, PanelError
from app.core.formatting import file_size
from app.core.i18n import _, join_sentences, ngettext
from app.core.principal import not_found
from app.web import auth
from app.web.openai_errors import is_openai, openai_error_response
from app.web.pages import render
from app.web.problem_types import http_problem, problem
from app.web.unread import count_unread
from trainer.spec_errors import MESSAGES, SpecError

log = logging.getLogger(__name__)

MAX_ERRORS = 20  # wrong fields that one answer names
# Of a field and its sentence in an answer, in characters: both may hold what a client invented.
MAX_NAME_LENGTH = 100
MAX_SENTENCE_LENGTH = 500


def install_errors(app: FastAPI) -> None:
    """Register the exception handlers, so that every error has the same form."""
    app.add_exception_handler(PanelError, _panel_error)
    app.add_exception_handler(SpecError, _spec_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(OperationalError, _database_error)
    app.add_exception_handler(PoolTimeout, _database_busy)
    app.add_exception_handler(DataError, _data_error)
    app.add_exception_handler(UnicodeEncodeError, _data_error)
    app.add_exception_handler(IntegrityError, _conflict)
    app.add_exception_handler(ClientDisconnect, _disconnected)


async def _disconnected(request: Request, error: Exception) -> Response:
    """The response to a client that disconnected during its request: 499, the code of nginx for that."""
    return Response(status_code=499)


def error_response(request: Request, error: PanelError) -> Response:
    """The response for an error: problem+json under /api/, OpenAI's form under /v1/, else a page (401: the login)."""
    if is_openai(request.url.path):
        return openai_error_response(error)
    if _is_for_programs(request.url.path):
        body = problem(error, error.fields[:MAX_ERRORS], request.state.id)
        return JSONResponse(body, error.status, error.headers, media_type="application/problem+json")
    if error.status == 401:
        query = f"?next={quote(request.url.path)}" if request.method == "GET" and request.url.path != "/" else ""
        return Response(status_code=303, headers={"Location": f"/login{query}"})
    principal = getattr(request.state, "principal", None)  # if the request came so far; then the page has the menu
    num_unread = getattr(request.state, "num_unread", 0)
    response = render(request, "error.html", error.status, error=error, principal=principal, num_unread=num_unread)
    response.headers.update(error.headers)
    return response


def _is_for_programs(path: str) -> bool:
    return f"{path}/".startswith(("/api/", "/livez/", "/readyz/", "/version/")) and path != "/api/docs"


def spec_fields(error: SpecError) -> list[FieldError]:
    """The first problems of a spec as sentences in the reader's language."""
    problems = error.problems[:MAX_ERRORS]
    return [_field_error(p.field, _(p.message.template, **p.message.values)) for p in problems]


def _field_error(name: str, sentence: str) -> FieldError:
    name = name[:MAX_NAME_LENGTH]
    return FieldError(name, f"{name} {sentence}"[:MAX_SENTENCE_LENGTH])


def _panel_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PanelError)
    _note_unread(request)
    return error_response(request, error)


def _note_unread(request: Request) -> None:
    """Count the unread notices of the user, for the menu of an error page. Called by handlers that run in threads."""
    principal = getattr(request.state, "principal", None)
    if principal is not None and not _is_for_programs(request.url.path):
        with suppress(SQLAlchemyError), db.transaction() as session:
            request.state.num_unread = count_unread(session, principal.user_id)


def _spec_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SpecError)
    fields = spec_fields(error)
    return error_response(request, PanelError(422, "spec_invalid", joined(fields, len(error.problems)), fields))


def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = error.errors()
    if any(detail["loc"][0] == "path" for detail in details):
        return error_response(request, not_found())  # no such id can exist
    fields = [validation_field(detail) for detail in details[:MAX_ERRORS]]
    return error_response(request, PanelError(422, "request_invalid", joined(fields, len(details)), fields))


def joined(fields: list[FieldError], num_errors: int) -> str:
    """The sentences of the first errors in one, and how many there are beyond them."""
    text = "; ".join(f.message for f in fields)
    left_out = num_errors - len(fields)
    return (
        ngettext("{text}; and {n} other error", "{text}; and {n} other errors", left_out, text=text)
        if left_out
        else text
    )


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
    return _field_error(name, _(sentence, **values) if sentence else detail["msg"])


def form_error(error: ValidationError) -> PanelError:
    """The fields of a form that a model of pydantic does not accept, as an error."""
    wrong = [validation_field({**detail, "loc": ("body", *detail["loc"])}) for detail in error.errors()]
    return PanelError(422, "request_invalid", join_sentences(problem.message for problem in wrong), wrong)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {
        404: _("There is nothing at this address."),
        405: _("This address does not support that method."),
        408: _("The request did not arrive in time. Send it again."),
        413: too_large(int(error.detail) if error.detail.isdecimal() else MAX_BODY_BYTES),
    }
    message = messages.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(allowed_methods(request))
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
    if error.status_code == 404 and not _is_for_programs(request.url.path):  # no route has asked who this is
        with suppress(PanelError, SQLAlchemyError):
            auth.identify(request)
        _note_unread(request)
    return error_response(request, http_problem(error.status_code, message, headers))


def allowed_methods(request: Request) -> list[str]:
    """The methods that the request's address supports. A route says only its own, and each method has a route."""
    supported = ["OPTIONS"]
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        scope = {"type": "http", "method": method, "path": request.scope["path"], "headers": []}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            supported += ["GET", "HEAD"] if method == "GET" else [method]
    return sorted(supported)


def _database_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DBAPIError)
    if getattr(error.orig, "sqlstate", None) in db.BUSY_STATES:
        return _database_busy(request, error)
    log.error("request %s: database not reachable: %s", request.state.id, error.orig)
    message = _("The database cannot be reached. Running jobs keep running; try again in a moment.")
    return error_response(request, PanelError(503, "database_away", message, headers={"Retry-After": "5"}))


def _database_busy(request: Request, error: Exception) -> Response:
    log.warning("request %s: database busy: %s", request.state.id, getattr(error, "orig", error))
    return error_response(request, busy())


def busy(**headers: str) -> PanelError:
    """The error for a request that would have to wait too long for others, with further headers of its response."""
    message = _("Too much is being done at once. Try again in a moment.")
    return PanelError(503, "busy", message, headers={"Retry-After": "2", **headers})


def _conflict(request: Request, error: Exception) -> Response:
    # Services refuse what they can see; this is what another request did in the meantime.
    log.warning("request %s: %s", request.state.id, error)
    message = _("Something that this request refers to was deleted or added at the same moment. Try again.")
    return error_response(request, PanelError(409, "conflict", message))


def _data_error(request: Request, error: Exception) -> Response:
    # A NUL character, which PostgreSQL cannot store in a text, a number out of the column's range, or an unpaired
    # surrogate, which JSON can hold and UTF-8 cannot.
    message = _("The request contains a character or number that cannot be stored.")
    return error_response(request, PanelError(400, "not_storable", message))


def internal_error(request: Request, error: Exception) -> Response:
    """The response for an exception that nothing handles, which is logged."""
    log.error("request %s failed", request.state.id, exc_info=error)
    message = _("Internal server error. See the server log, ID {id}.", id=request.state.id)
    return error_response(request, PanelError(500, "internal", message))


MAX_BODY_BYTES = 2**20  # a spec or a prompt is far smaller


def too_large(limit: int) -> str:
    """The sentence for a body over the limit in bytes."""
    return _("The request body is too large: the limit is {limit}.", limit=file_size(limit))

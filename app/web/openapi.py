"""The OpenAPI document: names of operations, who may call them, and the errors that each can answer."""

import asyncio
from typing import Any

from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from app.core.formatting import json_text
from app.core.idempotency import HEADER, MAX_KEY_LENGTH
from app.web.deprecations import DEPRECATED
from app.web.idempotency import REPEATABLE
from app.web.problem_types import PROBLEM_TYPES, errors, type_uri

PATH = "/api/openapi.json"
MEDIA_TYPE = "application/problem+json"
SCHEMA = "Problem"

DESCRIPTION = """Everything that the pages do. `docs/api.md` describes what holds for all operations:
authentication, errors, lists, `HEAD` and `OPTIONS`, repeating requests safely, and deprecated addresses.
Which scope an operation needs stands with its security requirements."""


KEY_PARAMETER = {
    "name": HEADER,
    "in": "header",
    "description": "Makes repeating the request safe for a day: the same request gets the same answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH},
}


class ProblemField(BaseModel):
    """What is wrong with one field of the request."""

    field: str
    message: str = Field(description="In the language of the request.")


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="Identifies the kind of error: the address of its description.")
    status: int
    code: str = Field(description="The last part of `type`, for programs.")
    title: str = Field(description="What happened and what to do about it, in the language of the request.")
    errors: list[ProblemField]
    request_id: str = Field(description="Also in the header X-Request-Id, and in the server's log.")


def operation_id(route: APIRoute) -> str:
    """The stable name of an operation: its function's; at a deprecated address with the name of that."""
    former = next((prefix for prefix in DEPRECATED if route.path_format.startswith(prefix)), None)
    return f"{route.name}_at_{former.rpartition('/')[2].replace('-', '_')}" if former else route.name


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an application, built once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, summary=app.summary, description=DESCRIPTION, routes=app.routes
        )
        schemas = schema["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        parts = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(parts.pop("$defs"))
        schemas[SCHEMA] = parts
        for path, item in schema["paths"].items():
            for method, operation in item.items():
                _add_errors(method, path, operation)
        app.openapi_schema = schema
    return app.openapi_schema


async def encode(app: FastAPI) -> bytes:
    """The document as JSON. To build it takes about a second of a processor."""
    return await to_thread.run_sync(lambda: json_text(document(app)).encode())


async def get_document(request: Request) -> Response:
    """The route of the document, for any visitor. The first request builds it; a start does not wait for it."""
    state = request.app.state
    if state.openapi_json is None:
        state.openapi_json = asyncio.create_task(encode(request.app))
    # Shielded: a first visitor who leaves does not take it from those who wait with them.
    return Response(await asyncio.shield(state.openapi_json), media_type="application/json")


def _add_errors(method: str, path: str, operation: dict[str, Any]) -> None:
    """Describe the errors that any operation of this shape can answer, and give all the one schema."""
    responses = operation["responses"]
    if _is_repeatable(method, operation):
        operation.setdefault("parameters", []).append(KEY_PARAMETER)
    if not str(responses.get("422", {}).get("description", "")).startswith("`"):
        responses.pop("422", None)  # the framework's own: an ID in the path that cannot exist is answered with 404
    for status, response in errors(*_common_codes(method, path, operation)).items():
        listed = responses.setdefault(str(status), {})
        listed["description"] = " ".join(filter(None, (response["description"], listed.get("description"))))
    for status, response in responses.items():
        if int(status) >= 400 and "content" not in response:
            response["content"] = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{SCHEMA}"}}}
            code = response["description"].removeprefix("`").partition("`")[0]
            response["content"][MEDIA_TYPE]["example"] = _example(int(status), code)
    operation["responses"] = dict(sorted(responses.items()))


def _is_repeatable(method: str, operation: dict[str, Any]) -> bool:
    """Whether app/web/idempotency.py answers the operation, as its route says itself by its status."""
    names = [parameter["name"].lower() for parameter in operation.get("parameters", ())]
    is_new = any(str(status) in operation["responses"] for status in REPEATABLE)
    return method == "post" and is_new and HEADER.lower() not in names


def _common_codes(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    """The codes that follow from the shape of an operation."""
    codes = ["headers_too_large", "host_not_allowed", "not_storable", "path_invalid", "origin_not_allowed"]
    if path.startswith("/api/"):
        codes += ["busy", "database_away"]
    if "security" in operation:
        codes += ["not_logged_in", "token_invalid", "scope_missing", "guesses_limited"]
    if any("submit" in scopes for names in operation.get("security", ()) for scopes in names.values()):
        codes += ["role_missing"]
    if "{" in path:
        codes += ["not_found"]
    if "requestBody" in operation or any(parameter["in"] != "path" for parameter in operation.get("parameters", ())):
        codes += ["request_invalid"]
    if KEY_PARAMETER in operation.get("parameters", ()):
        codes += ["idempotency_conflict", "idempotency_in_progress", "idempotency_interrupted", "key_invalid"]
    if method in ("post", "put"):
        codes += ["body_slow", "body_too_large"]
    return codes


def _example(status: int, code: str) -> dict[str, Any]:
    return {
        "type": type_uri(code),
        "status": status,
        "code": code,
        "title": PROBLEM_TYPES[code][1],
        "errors": [],
        "request_id": "9f86d081884c",
    }

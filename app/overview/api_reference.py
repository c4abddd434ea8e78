"""The API reference: a page drawn from the application's own OpenAPI document, with a curl example for each call."""

import json
import re
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from app.core.i18n import gettext_noop, translate
from app.jobs.views import form, form_controls
from app.web.auth import Reader
from app.web.pages import page

router = APIRouter()

SECTIONS = {
    "jobs": gettext_noop("Jobs"),
    "recipes": gettext_noop("Jobs"),
    "corpora": gettext_noop("Corpora"),
    "tokenizers": gettext_noop("Tokenizers"),
    "models": gettext_noop("Base models"),
    "checkpoints": gettext_noop("Checkpoints"),
    "works": gettext_noop("Exports and evaluations"),
    "generate": gettext_noop("Playground"),
    "nodes": gettext_noop("Nodes"),
}
REST = gettext_noop("Accounts and health")


@dataclass(frozen=True)
class Field:
    """One parameter, or one field of a body."""

    name: str
    kind: str
    required: bool
    description: str


@dataclass(frozen=True)
class Operation:
    """One call: what it takes, what it answers, how to make it from a shell."""

    method: str
    path: str
    anchor: str
    summary: str
    description: str
    parameters: list[Field]
    body: list[Field]
    answers: list[tuple[str, str]]
    curl: str


@router.get("/api/docs")
def show_reference(request: Request, principal: Reader) -> Response:
    """Every call, in sections, and every field of a spec."""
    document = request.app.openapi()
    base = str(request.base_url).rstrip("/")
    sections: dict[str, list[Operation]] = {translate(title): [] for title in (*SECTIONS.values(), REST)}
    for path, item in document["paths"].items():
        title = SECTIONS.get(path.removeprefix("/api/v1/").split("/")[0], REST)
        sections[translate(title)] += [_operation(document, base, path, method, item[method]) for method in item]
    return page(
        request,
        "docs/reference.html",
        principal=principal,
        base=base,
        sections={title: operations for title, operations in sections.items() if operations},
        spec=_spec_table(),
    )


def _operation(document: dict[str, Any], base: str, path: str, method: str, raw: dict[str, Any]) -> Operation:
    parameters = [
        Field(p["name"], f"{p['in']}, {_kind(p['schema'])}", p.get("required", False), p.get("description", ""))
        for p in raw.get("parameters", [])
        if p["in"] != "cookie"
    ]
    body = _json_body(raw)
    answers = [(code, answer.get("description", "")) for code, answer in raw["responses"].items()]
    return Operation(
        method=method.upper(),
        path=path,
        anchor=raw["operationId"],
        summary=raw.get("summary", path),
        description=raw.get("description", ""),
        parameters=parameters,
        body=_fields(document, body.get("schema", {})),
        answers=answers,
        curl=_curl(document, base, path, method, raw),
    )


def _json_body(raw: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = raw.get("requestBody", {}).get("content", {})
    body: dict[str, Any] = content.get("application/json", {})
    return body


def _resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["schemas"][name] if name else schema
    return found


def _fields(document: dict[str, Any], schema: dict[str, Any]) -> list[Field]:
    whole = _resolve(document, schema)
    required = whole.get("required", [])
    return [
        Field(name, _kind(part), name in required, part.get("description", ""))
        for name, part in whole.get("properties", {}).items()
    ]


def _kind(schema: dict[str, Any]) -> str:
    """A JSON type with its limits, short enough for a table."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(part) for part in schema["anyOf"]))
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "enum" in schema or "const" in schema:
        return " | ".join(map(str, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        return f"array of {_kind(schema.get('items', {}))}"
    return str(schema.get("type", "any")) + _limits(schema)


def _limits(schema: dict[str, Any]) -> str:
    low = schema.get("minimum", schema.get("minLength", schema.get("minItems")))
    high = schema.get("maximum", schema.get("maxLength", schema.get("maxItems")))
    low = f"> {schema['exclusiveMinimum']:g}" if "exclusiveMinimum" in schema else low
    high = f"< {schema['exclusiveMaximum']:g}" if "exclusiveMaximum" in schema else high
    if low is None and high is None:
        return ""
    return f" {'' if low is None else low}…{'' if high is None else high}"


def _curl(document: dict[str, Any], base: str, path: str, method: str, raw: dict[str, Any]) -> str:
    query = "&".join(
        f"{p['name']}={p['name'].upper()}"
        for p in raw.get("parameters", [])
        if p["in"] == "query" and p.get("required")
    )
    address = base + re.sub(r"\{(\w+)\}", lambda place: f"${place[1].upper()}", path) + (f"?{query}" if query else "")
    flags = "-N " if "text/event-stream" in str(raw["responses"].get("200", {}).get("content", {})) else ""
    verb = "" if method == "get" else f"-X {method.upper()} "
    lines = [f'curl {flags}{verb}"{address}"']
    if path.startswith("/api/") and not path.endswith(("/login", "/setup")):
        lines.append('-H "Authorization: Bearer $ATHANOR_TOKEN"')
    example = _example(document, _json_body(raw))
    if example is not None:
        lines += ['-H "Content-Type: application/json"', f"-d '{json.dumps(example, ensure_ascii=False)}'"]
    elif "requestBody" in raw and not _json_body(raw):
        lines.append('--data-binary "@$NAME"' if path.endswith("/{name}") else '--data-binary "@kjv.txt"')
    return " \\\n  ".join(lines)


def _example(document: dict[str, Any], body: dict[str, Any]) -> Any:
    """The first example of a body, else the examples of its fields put together."""
    if not body:
        return None
    if body.get("examples"):
        return next(iter(body["examples"].values()))["value"]
    schema = _resolve(document, body.get("schema", {}))
    if schema.get("examples"):
        return schema["examples"][0]
    parts = schema.get("properties", {}).items()
    return {name: part["examples"][0] for name, part in parts if part.get("examples")} or {}


def _spec_table() -> dict[str, list[Field]]:
    """The fields of a spec by group."""
    titles = {name: translate(title) for name, title in form_controls.GROUPS.items()}
    table: dict[str, list[Field]] = {title: [] for title in titles.values()}
    for name, schema in form.properties().items():
        kind = _kind({key: value for key, value in schema.items() if key != "anyOf"})
        kind += " or null" if schema["nullable"] else ""
        description = f"{translate(schema['title'])}: {translate(schema['description'])}"
        table[titles[schema["group"]]].append(Field(name, kind, name == "corpora", description))
    return table

"""The bounds of what requests hold: every integer has both, every text of a path or query has a longest length."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.core import storage
from app.corpora import previews
from app.main import FEATURES, PAGES
from app.web import probes
from tests.app.jobs import factories
from tests.users import Person
from trainer.spec import TrainSpec

Schema = dict[str, Any]


def document() -> Schema:
    """The OpenAPI document of every route, pages too."""
    application = FastAPI()
    for feature in (*FEATURES, probes):
        application.include_router(feature.router, prefix="/api/v1")
    for pages in PAGES:
        application.include_router(
            pages.router, generate_unique_id_function=lambda route: f"page_{route.path_format}_{route.methods}"
        )
    return application.openapi()


def parts(schema: Schema, place: str, named: dict[str, Schema], seen: set[str]) -> Iterator[tuple[str, Schema]]:
    """A schema and all those within it, each with its place."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in seen:
            seen.add(name)
            yield from parts(named[name], name, named, seen)
        return
    yield place, schema
    for inner in [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("prefixItems", ())]:
        yield from parts(inner, place, named, seen)
    for name, inner in schema.get("properties", {}).items():
        yield from parts(inner, f"{place}.{name}", named, seen)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from parts(schema[key], f"{place}[]", named, seen)


def is_unbounded(schema: Schema) -> bool:
    is_listed = "enum" in schema or "const" in schema
    has_bounds = all({end, f"exclusive{end.capitalize()}"} & schema.keys() for end in ("minimum", "maximum"))
    return schema.get("type") in ("integer", "number") and not is_listed and not has_bounds


def is_endless(schema: Schema) -> bool:
    return schema.get("type") == "string" and not {"maxLength", "enum", "const"} & schema.keys()


def test_every_number_of_a_request_has_both_bounds_and_every_text_of_its_address_a_length() -> None:
    whole = document()
    named = whole["components"]["schemas"]
    wrong = []
    for path, operations in whole["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", ()):
                found = parts(parameter["schema"], f"{method} {path} {parameter['name']}", named, set())
                wrong += [place for place, schema in found if is_unbounded(schema) or is_endless(schema)]
            for content in operation.get("requestBody", {}).get("content", {}).values():
                found = parts(content.get("schema", {}), f"{method} {path}", named, set())
                wrong += [place for place, schema in found if is_unbounded(schema)]
    spec = TrainSpec.model_json_schema()
    wrong += [place for place, schema in parts(spec, "spec", spec.get("$defs", {}), set()) if is_unbounded(schema)]
    assert wrong == []


@pytest.mark.parametrize("bad", ["%E6%97%A5", "x" * 5000, "..", "A", "00kingjamesbible%20", "%F0%9F%A6%8A"])
def test_an_id_that_cannot_exist_is_not_found(alice_api: TestClient, bad: str) -> None:
    for kind in ("jobs", "corpora", "checkpoints", "models", "tokenizers", "checkpoint-tasks"):
        answer = alice_api.get(f"/api/v1/{kind}/{bad}/".removesuffix("/"))
        assert answer.status_code in ((200, 404) if bad == ".." else (404,)), kind
    assert alice_api.get("/jobs/" + bad).status_code in ((200, 404) if bad == ".." else (404,))


def test_such_an_id_is_answered_like_one_that_does_not_exist(alice_api: TestClient) -> None:
    absent, impossible = (alice_api.get(f"/api/v1/jobs/{job_id}").json() for job_id in ("0" * 16, "no_id"))
    assert {**absent, "request_id": ""} == {**impossible, "request_id": ""}


@pytest.fixture(scope="module")
def corpus(alice_user: Person) -> str:
    corpus_id = factories.corpus(alice_user)
    directory = storage.corpus(corpus_id)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "text.bin").write_bytes(b"ab")
    (directory / "index.bin").write_bytes((1).to_bytes(8, "little") + (2).to_bytes(8, "little"))
    return corpus_id


@pytest.mark.parametrize("after", [2, 3, 2**31, 2**53 - 1, 2**53])
def test_a_list_is_empty_after_its_end_however_far_that_is(alice_api: TestClient, corpus: str, after: int) -> None:
    answer = alice_api.get(f"/api/v1/corpora/{corpus}/documents", params={"after": after})
    assert (answer.status_code, answer.json()) == (200, {"data": [], "next": None})
    assert alice_api.get(f"/corpora/{corpus}", params={"start": after}).status_code == 200
    assert [document.text for document in previews.documents(corpus, 1, 5)] == ["b"]


@pytest.mark.parametrize(
    "path", ["/api/v1/jobs/{job}/log?offset=4611686018427387904", "/api/v1/jobs/{job}/metrics?start=2147483647"]
)
def test_the_largest_number_of_an_address_is_answered(alice_api: TestClient, corpus: str, path: str) -> None:
    factories.node()
    job = alice_api.post("/api/v1/jobs", json={"corpora": [corpus]}).json()["id"]
    assert alice_api.get(path.format(job=job)).status_code == 200

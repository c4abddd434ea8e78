"""Random requests to each operation get the answers that the OpenAPI document promises. API_EXAMPLES: how many."""

import os
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks
from starlette.testclient import TestClient

from app.core import db
from app.tokenizers import service as tokenizers_service
from app.web.middleware import SECURITY_HEADERS
from tests.app.jobs import factories
from tests.users import Person

EXAMPLES = int(os.environ.get("API_EXAMPLES", "2"))  # of each operation and mode
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
PROMISES = (
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
)


@pytest.fixture(scope="module")
def real_ids(alice_user: Person) -> dict[str, str]:
    """IDs of rows that exist, by the names of path parameters."""
    factories.node()
    corpus_id = factories.corpus(alice_user)
    job_id, checkpoint_id = factories.finished(alice_user, corpus_id)
    with db.transaction() as session:
        tokenizer = tokenizers_service.record_tokenizer(
            session, owner_id=alice_user.id, name="Genesis", vocab_size=500, sha256="0" * 64, corpora=[corpus_id]
        )
    return {
        "corpus_id": corpus_id,
        "job_id": job_id,
        "checkpoint_id": checkpoint_id,
        "tokenizer_id": tokenizer.id,
    }


def test_random_requests_get_the_answers_that_the_document_promises(
    web: TestClient, alice_api: TestClient, real_ids: dict[str, str]
) -> None:
    schema = schemathesis.openapi.from_dict(web.get("/api/openapi.json").json())
    operations = [result.ok() for result in schema.get_all_operations()]
    failures = []
    for operation in sorted(operations, key=lambda operation: operation.method == "delete"):
        for mode in MODES:
            ids = {} if operation.path.endswith("/events") else real_ids  # a stream would not end
            failures += faults(operation, mode, alice_api, cycle([ids, {}]))
    assert failures == [], "\n".join(failures)


def faults(operation: Any, mode: GenerationMode, client: TestClient, ids: Iterator[dict[str, str]]) -> list[str]:
    """What random requests to one operation found, at most one fault."""

    @settings(
        max_examples=EXAMPLES,
        database=None,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def try_out(case: Any) -> None:
        for name, value in next(ids).items():
            if name in case.path_parameters:
                case.path_parameters[name] = value
        request = case.as_transport_kwargs(base_url="http://localhost")
        response = send(client, request)
        case.validate_response(response, checks=PROMISES)
        missing = {name for name, value in SECURITY_HEADERS.items() if response.headers.get(name) != value}
        assert missing == set()

    try:
        try_out()
    except Unsatisfiable:  # nothing about the request can be wrong
        return []
    except (Exception, BaseExceptionGroup) as error:
        causes = error.exceptions if isinstance(error, BaseExceptionGroup) else [error]
        return [f"{operation.label}: {cause}" for cause in causes]
    return []


def send(client: TestClient, request: dict[str, Any]) -> Any:
    """The response of the application to a request in the form of the library requests."""
    headers = {**client.headers, **dict(request.get("headers") or {})}
    return client.request(
        request["method"],
        request["url"],
        params=request.get("params"),
        headers=headers,
        json=request.get("json"),
        content=request.get("data"),
    )
